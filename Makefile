# Everything runs in .venv, which the first target that needs it makes from the lock.
PYTHON ?= python3
BIN := .venv/bin
BACKEND ?= auto
SEEDS ?= 20000
MINUTES ?= 10
SECONDS ?= 60

.PHONY: help demo picture test check lint types imports simulate replay planted soak fuzz bench bench-analytics lock clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile

demo: .venv/.installed ## Three replicas on this machine, real conflicts, and the proof that they end equal (BACKEND=auto|emulator|memory)
	$(BIN)/firefleet demo --backend $(BACKEND) $(if $(CHANGES),--changes $(CHANGES)) $(if $(SEED),--seed $(SEED))

picture: .venv/.installed ## The demo's report as demo.svg, for the README
	$(BIN)/firefleet demo --backend $(BACKEND) --picture demo.svg

test: .venv/.installed ## All tests; those that need the emulators skip without them
	@# What needs no fleet of its own runs beside the rest, in the time that the other leaves.
	@trap 'kill $$beside' INT TERM; nice -n 19 $(BIN)/pytest --ignore=tests/emulator >.tests.log 2>&1 & beside=$$!; \
	$(BIN)/pytest tests/emulator; status=$$?; wait $$beside || status=$$?; cat .tests.log; exit $$status

check: lint types imports test ## Everything a change has to pass

lint: .venv/.installed ## Lint and format, without changing anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed ## Strict types
	$(BIN)/mypy

imports: .venv/.installed ## Dependencies point one way
	$(BIN)/lint-imports

simulate: .venv/.installed ## The core in a simulator, SEEDS histories on all cores, every fault and interleaving
	$(BIN)/python -m tests.simulation run --seeds $(SEEDS)
	$(BIN)/python -m tests.simulation.analytics run --seeds $$(( ($(SEEDS) + 9) / 10 ))

replay: .venv/.installed ## One history of the simulator with its trace: make replay SEED=7
	$(BIN)/python -m tests.simulation replay $(SEED)

planted: .venv/.installed ## Plant faults in the simulated core, one after the other: each must be found
	$(BIN)/python -m tests.simulation planted
	$(BIN)/python -m tests.simulation.analytics planted

soak: .venv/.installed ## Real processes killed and stopped again and again for MINUTES; losses, divergence, memory
	$(BIN)/python -m tests.emulator.soak --minutes $(MINUTES)

fuzz: .venv/.installed ## Coverage-guided fuzzing, for SECONDS, of everything that takes bytes from outside
	$(BIN)/pip install --quiet "atheris>=3,<4"
	$(BIN)/python -m tests.fuzz -max_total_time=$(SECONDS) -max_len=4096

bench: .venv/.installed ## How fast it is, beside its own ceiling and what one would write instead
	$(BIN)/python -m tests.bench --chart bench.svg

bench-analytics: .venv/.installed ## How fast the analytics worker is, and what it saves
	$(BIN)/python -m tests.bench.bench_analytics

lock: ## Resolve the dependencies anew into requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet "pip-tools>=7.5"
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --strip-extras --generate-hashes \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --upgrade \
		--allow-unsafe --extra dev --output-file requirements.lock pyproject.toml

clean: ## Remove what was made
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache \
		.coverage htmlcov .tests.log bench.json

# Installed when the lock or the project's own description is newer than the last installation.
.venv/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@
