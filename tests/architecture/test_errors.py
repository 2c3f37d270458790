"""The tree at the top of `replication/errors.py` is the one in the code."""

import importlib
import pkgutil
from types import ModuleType

import conflict
import replication
import workers
from replication import errors
from replication.errors import FirefleetError


def _import_all(package: ModuleType) -> None:
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)


def _descendants(cls: type[Exception]) -> set[type[Exception]]:
    below = set(cls.__subclasses__())
    return below.union(*(_descendants(child) for child in below))


def test_every_error_is_in_the_list() -> None:
    for package in (conflict, replication, workers):
        _import_all(package)
    text = errors.__doc__ or ""
    missing = {cls.__name__ for cls in _descendants(FirefleetError) if _ours(cls) and cls.__name__ not in text}
    assert not missing, f"add {sorted(missing)} to the tree in replication/errors.py"


def _ours(cls: type) -> bool:
    return cls.__module__.split(".")[0] in {"conflict", "replication", "workers"}
