"""Each import contract breaks on a planted line: a contract that cannot fail checks nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("conflict", "replication", "workers")

PLANTED = {
    "Dependencies point one way": ("conflict/clock.py", "import replication.errors"),
    "Inside replication": ("replication/documents/wire.py", "import replication.apply.plan"),
    "Inside workers": ("workers/replicate/driver.py", "import workers.capture.answers"),
    "replication is pure": ("replication/apply/batch.py", "import time, random, os, socket, logging"),
    "conflict is pure": ("conflict/clock.py", "import time"),
}
"""For the beginning of each contract's name: where a violation is planted, and what it is."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("house")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def _broken(house: Path) -> set[str]:
    """The names of the contracts that do not hold in `house`; a name may be cut where the report folds it."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=house,
        env={**os.environ, "PYTHONPATH": str(house), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Contracts:" in done.stdout, done.stdout + done.stderr
    verdicts = done.stdout.partition("Contracts:")[0].replace("\n", " ")
    return {name for name in PLANTED if _verdict(verdicts, name) == "BROKEN"}


def _verdict(verdicts: str, name: str) -> str:
    after = verdicts[verdicts.index(name) :]
    return min(("KEPT", "BROKEN"), key=lambda word: after.find(word) if word in after else len(after))


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_violation_breaks_its_contract(house: Path, name: str) -> None:
    file, line = PLANTED[name]
    path = house / file
    original = path.read_text()
    path.write_text(f"{original}\n{line}\n")
    try:
        assert _broken(house) >= {name}
    finally:
        path.write_text(original)


def test_every_contract_has_a_planted_violation(house: Path) -> None:
    contracts = (house / "pyproject.toml").read_text().count("[[tool.importlinter.contracts]]")
    assert contracts == len(PLANTED)


def test_all_contracts_hold_without_one(house: Path) -> None:
    assert _broken(house) == set()
