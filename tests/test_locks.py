"""The locks are complete: what they list can be installed as it is, with nothing looked up beside it.

pip installs them with `--no-deps`, so nothing but an import would notice a requirement that is not locked.
The requirements are those in the installed packages' metadata, for every supported Python on Linux and macOS.
"""

import tomllib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
RUNTIME, DEVELOPMENT = "requirements.lock", "requirements-dev.lock"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
ROOTS = {
    RUNTIME: [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"], *EXTRAS["build"]],
    DEVELOPMENT: [*PROJECT["project"]["dependencies"], *(one for extra in EXTRAS.values() for one in extra)],
}
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = {"linux": "Linux", "darwin": "Darwin"}

Pins = dict[str, Requirement]
"""A locked requirement by its package's name."""


def environment(python: str, platform: str) -> dict[str, str]:
    """The values of the markers on that platform."""
    given = {key: str(value) for key, value in default_environment().items()}
    given |= {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "implementation_version": f"{python}.1",
    }
    return given | {"sys_platform": platform, "platform_system": PLATFORMS[platform], "os_name": "posix"}


def applies(one: Requirement, given: Mapping[str, str]) -> bool:
    """Whether it is required in an environment."""
    return one.marker is None or one.marker.evaluate(dict(given))


def locked(text: str, given: Mapping[str, str]) -> Pins:
    """What a lock lists for an environment."""
    lines = [line.removesuffix("\\") for line in text.splitlines() if line[:1] not in ("", " ", "#")]
    found = [one for one in map(Requirement, lines) if applies(one, given)]
    pins: Pins = {canonicalize_name(one.name): one for one in found}
    assert len(pins) == len(found), "a package is listed twice"
    return pins


def version(pin: Requirement) -> str:
    [only] = pin.specifier
    assert only.operator == "=="
    return only.version


def requires(name: str) -> list[Requirement]:
    """The requirements of an installed package; none of one that is for other platforms than this."""
    try:
        return [Requirement(text) for text in metadata.requires(name) or []]
    except metadata.PackageNotFoundError:
        return []


def unmet(
    pins: Pins,
    roots: Iterable[str],
    given: Mapping[str, str],
    requires: Callable[[str], list[Requirement]] = requires,
) -> list[str]:
    """The requirements of the project and of locked packages, extras included, that the lock does not meet."""
    wrong: list[str] = []
    waiting = deque(("pyproject.toml", Requirement(root)) for root in roots)
    waiting += [("the lock", pin) for pin in pins.values()]
    seen: set[tuple[str, str]] = set()
    while waiting:
        by, wanted = waiting.popleft()
        name = canonicalize_name(wanted.name)
        pin = pins.get(name)
        if pin is None:
            wrong.append(f"{by} needs {wanted}: not locked")
            continue
        if not wanted.specifier.contains(version(pin), prereleases=True):
            wrong.append(f"{by} needs {wanted}: locked is {version(pin)}")
        if not wanted.extras <= pin.extras:
            # A pip that resolves looks such a requirement up, finds another release, and refuses it.
            wrong.append(f"{by} needs {wanted}: locked without the extra")
        for extra in {"", *wanted.extras} - {known for package, known in seen if package == name}:
            seen.add((name, extra))
            waiting += [(name, one) for one in requires(name) if applies(one, {**given, "extra": extra})]
    return list(dict.fromkeys(wrong))


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", [RUNTIME, DEVELOPMENT])
def test_a_lock_satisfies_every_requirement_of_the_project_and_of_all_it_lists(
    lock: str, python: str, platform: str
) -> None:
    given = environment(python, platform)
    found = unmet(locked((ROOT / lock).read_text(), given), ROOTS[lock], given)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("lock", [RUNTIME, DEVELOPMENT])
def test_every_package_has_hashes(lock: str) -> None:
    lines = (ROOT / lock).read_text().splitlines()
    bare = [
        line
        for line, after in zip(lines, [*lines[1:], ""], strict=True)
        if "==" in line and "--hash" not in after
    ]
    assert bare == []


def test_the_development_lock_contains_the_runtime_lock() -> None:
    for python in PYTHONS:
        for platform in PLATFORMS:
            given = environment(python, platform)
            runtime, development = (locked((ROOT / lock).read_text(), given) for lock in (RUNTIME, DEVELOPMENT))
            assert {name: version(development[name]) for name in runtime} == {
                name: version(pin) for name, pin in runtime.items()
            }


def test_what_is_installed_is_what_is_locked() -> None:
    """Otherwise the requirements read here would be those of other releases."""
    pins = locked((ROOT / DEVELOPMENT).read_text(), {k: str(v) for k, v in default_environment().items()})
    assert {name: metadata.version(name) for name in pins} == {name: version(pin) for name, pin in pins.items()}


METADATA = {
    "app": ["base>=2", "tools[fast]; python_version < '3.12'"],
    "tools": ["quick>=1; extra == 'fast'", "slow; extra == 'slow'"],
}


@pytest.mark.parametrize(
    ("lock", "wrong"),
    [
        ("app==1\nbase==2\ntools[fast]==1\nquick==1", []),
        ("app==1\nbase==2\nquick==1", ['app needs tools[fast]; python_version < "3.12": not locked']),
        ("app==1\nbase==1\ntools[fast]==1\nquick==1", ["app needs base>=2: locked is 1"]),
        ("app==1\nbase==2\ntools[fast]==1", ['tools needs quick>=1; extra == "fast": not locked']),
        (
            "app==1\nbase==2\ntools==1\nquick==1",
            ['app needs tools[fast]; python_version < "3.12": locked without the extra'],
        ),
        (
            "app==1\nbase==2\ntools[fast]==1\nquick==1; sys_platform == 'win32'",
            ['tools needs quick>=1; extra == "fast": not locked'],
        ),
        ("base==2", ["pyproject.toml needs app: not locked"]),
    ],
)
def test_what_a_lock_lacks_is_found(lock: str, wrong: list[str]) -> None:
    given = environment("3.11", "linux")
    found = unmet(
        locked(lock, given), ["app"], given, lambda name: list(map(Requirement, METADATA.get(name, [])))
    )
    assert found == wrong


def test_what_another_python_needs_is_not_missed() -> None:
    given = environment("3.12", "linux")
    pins = locked("app==1\nbase==2", given)
    assert unmet(pins, ["app"], given, lambda name: list(map(Requirement, METADATA.get(name, [])))) == []
