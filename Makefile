# Everything runs in .venv, which the first target that needs it makes from a lock (see .ci/install): the demo from
# requirements.lock, all else from requirements-dev.lock.
PYTHON ?= python3
BIN := .venv/bin
BACKEND ?= auto
SEEDS ?= 20000
MINUTES ?= 10
SECONDS ?= 60
JOBS ?= 2

.PHONY: help demo picture test coverage check locks lint types imports simulate replay planted soak fuzz bench bench-analytics docs lock clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile
	@echo
	@echo 'Variables: PYTHON=$(PYTHON) (what .venv is made with), BACKEND=$(BACKEND) (auto, emulator or memory), CHANGES, SEED,'
	@echo 'JOBS=$(JOBS), SEEDS=$(SEEDS), MINUTES=$(MINUTES), SECONDS=$(SECONDS). For example: make demo BACKEND=memory SEED=7'

demo: .venv/.runtime ## Three replicas on this machine, real conflicts, and the proof that they end equal (BACKEND, CHANGES, SEED)
	$(BIN)/firefleet demo --backend $(BACKEND) $(if $(CHANGES),--changes $(CHANGES)) $(if $(SEED),--seed $(SEED))

picture: .venv/.runtime ## The demo's live view and verdict as demo.svg, for the README
	$(BIN)/firefleet demo --backend $(BACKEND) --picture demo.svg

test: .venv/.development ## All tests, in JOBS processes; those that need the emulators skip without them
	@# One process runs tests/emulator, whose tests share a fleet; the others run the rest at the same time.
	$(BIN)/pytest --numprocesses $(JOBS) --dist loadgroup

coverage: .venv/.development ## Branch coverage without the emulators; fails below 100 % for conflict/, 98 % for replication/
	@# The contract suite on the emulators holds the adapters; most of their lines never run without one.
	$(BIN)/pytest --quiet --numprocesses $(JOBS) --dist loadgroup --ignore tests/emulator --ignore tests/docs \
		-m "not emulator" --cov --cov-report=
	$(BIN)/coverage report --include 'conflict/*' --skip-covered --fail-under 100
	$(BIN)/coverage report --include 'replication/*' --omit 'replication/adapters/*' --skip-covered --fail-under 98

check: locks lint types imports test ## Everything a change has to pass

locks: .venv/.development ## Each lock is complete: every requirement of every package is in it
	$(BIN)/pytest --quiet tests/test_locks.py

lint: .venv/.development ## Lint and format, without changing anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.development ## Strict types
	$(BIN)/mypy

imports: .venv/.development ## Dependencies point one way
	$(BIN)/lint-imports

simulate: .venv/.development ## The core in a simulator, SEEDS histories on all cores, every fault and interleaving
	$(BIN)/python -m tests.simulation run --seeds $(SEEDS)
	$(BIN)/python -m tests.simulation.analytics run --seeds $$(( ($(SEEDS) + 9) / 10 ))

replay: .venv/.development ## One history of the simulator with its trace: make replay SEED=7
	@test -n "$(SEED)" || { echo "Which history? A failing test prints its seed: make replay SEED=7" >&2; exit 2; }
	$(BIN)/python -m tests.simulation replay $(SEED)

planted: .venv/.development ## Plant faults in the simulated core, one at a time: each must be found
	$(BIN)/python -m tests.simulation planted
	$(BIN)/python -m tests.simulation.analytics planted

soak: .venv/.development ## Real processes killed and stopped again and again for MINUTES; losses, divergence, memory
	$(BIN)/python -m tests.emulator.soak --minutes $(MINUTES)

fuzz: .venv/.development ## Coverage-guided fuzzing, for SECONDS, of everything that accepts bytes from outside
	$(BIN)/pip install --quiet --no-deps atheris==3.0.0
	$(BIN)/python -m tests.fuzz -max_total_time=$(SECONDS) -max_len=4096

bench: .venv/.development ## How fast it is, compared with its upper bound and with simpler implementations
	$(BIN)/python -m tests.bench --chart bench.svg

bench-analytics: .venv/.development ## How fast the analytics worker is, and what it saves
	$(BIN)/python -m tests.bench.bench_analytics

docs: .venv/.development ## The documentation as a site in build/site; fails on a broken link
	$(BIN)/python -m tests.docs.configuration_page
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# For every Python from 3.11 on and every platform at once (--universal).
COMPILE = build/uv/bin/uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
	--no-strip-extras --custom-compile-command "make lock" --extra build pyproject.toml

lock: ## Resolve the dependencies again into requirements.lock and requirements-dev.lock
	$(PYTHON) -m venv --clear build/uv
	build/uv/bin/pip install --quiet "uv>=0.9,<1"
	$(COMPILE) --extra dev --upgrade --output-file requirements-dev.lock
	$(COMPILE) --constraint requirements-dev.lock --upgrade --output-file requirements.lock

clean: ## Remove everything that was built
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache \
		.coverage htmlcov bench.json

.venv/.runtime: requirements.lock pyproject.toml
	@PYTHON="$(PYTHON)" .ci/install runtime

.venv/.development: requirements.lock requirements-dev.lock pyproject.toml
	@PYTHON="$(PYTHON)" .ci/install development
