"""`firefleet`, and `python -m firefleet`: the way in, which makes sure that the right packages answer.

firefleet consists of the packages `conflict`, `replication` and `workers`. A package or module of the same name
that Python finds earlier (in PYTHONPATH, or in the folder of `python -m`) would be imported in its place. So
this module, whose name no one else has, looks where each is before it imports anything of them.
"""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

PACKAGES = ("conflict", "replication", "workers")


def shadows(home: Path, packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """The packages that are not the ones in `home`, each with where Python finds it instead."""
    found = {name: _place(name) for name in packages}
    return {name: place for name, place in found.items() if Path(place).resolve() != home.resolve() / name}


def _place(name: str) -> str:
    """The folder of a package, or the file of a module; nothing is imported for it."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        return "nowhere"
    return next(iter(spec.submodule_search_locations or ()), spec.origin or "nowhere")


def _refusal(found: dict[str, str]) -> str:
    lines = [
        f"firefleet: the package '{name}' of firefleet is shadowed by {place}" for name, place in found.items()
    ]
    return "\n".join(
        [
            *lines,
            "Rename that package, or run firefleet where Python does not find it first: take its folder out of",
            "PYTHONPATH; with `python -m`, start in another folder. Put policies of your own into a package",
            "with a name of its own, installed beside firefleet.",
        ]
    )


def main() -> None:
    """Run the command line; exit code 2 where a package of another project would answer in our place."""
    if found := shadows(Path(__file__).parent):
        sys.stderr.write(_refusal(found) + "\n")
        raise SystemExit(2)
    from workers.cli import main as command_line  # noqa: PLC0415

    command_line(prog_name="firefleet")


if __name__ == "__main__":
    main()
