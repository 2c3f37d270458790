"""The way into the command line: a package that would answer in our place is named, whatever it holds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import firefleet
from firefleet import shadows

HOME = Path(firefleet.__file__).parent
SCRIPT = str(Path(sys.executable).with_name("firefleet"))


def run(*command: str, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_where_nothing_is_shadowed_nothing_is_named() -> None:
    assert shadows(HOME) == {}


def test_a_package_that_is_missing_is_named() -> None:
    assert shadows(HOME, ["conflict", "no_such_package"]) == {"no_such_package": "nowhere"}


@pytest.mark.parametrize("name", ["conflict", "replication", "workers"])
@pytest.mark.parametrize("place", ["{}/__init__.py", "{}.py"])
def test_a_shadowing_package_or_module_on_the_path_is_named_before_it_is_imported(
    name: str, place: str, tmp_path: Path
) -> None:
    shadow = tmp_path / place.format(name)
    shadow.parent.mkdir(exist_ok=True)
    shadow.write_text("raise SystemExit('imported')\n")
    done = run(SCRIPT, "--version", cwd=HOME, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    named = shadow.parent if shadow.name == "__init__.py" else shadow
    assert done.stderr.startswith(
        f"firefleet: the package '{name}' of firefleet is shadowed by {named}\nRename"
    )
    assert "take its folder out of\nPYTHONPATH" in done.stderr


def test_as_a_module_it_names_what_the_current_folder_shadows(tmp_path: Path) -> None:
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "__init__.py").touch()
    done = run(sys.executable, "-m", "firefleet", "--version", cwd=tmp_path, PYTHONPATH="")
    assert done.returncode == 2
    assert f"shadowed by {tmp_path}/workers" in done.stderr


def test_script_and_module_answer_alike_where_nothing_shadows(tmp_path: Path) -> None:
    answers = [run(*way, "--version", cwd=tmp_path) for way in ((SCRIPT,), (sys.executable, "-m", "firefleet"))]
    assert {(done.returncode, done.stdout) for done in answers} == {(0, answers[0].stdout)}
    assert answers[0].stdout.startswith("firefleet 0.")
