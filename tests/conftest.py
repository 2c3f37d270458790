"""The emulators for every test marked `emulator`: one process each, started when first needed.

On a machine without them those tests are skipped with a line that says how to get them, except where `CI` or
`FIREFLEET_REQUIRE_EMULATORS` is set: there a skipped proof would look like a passed one, so they fail.

Each law is tried on 1,000 examples, or as many as `FIREFLEET_EXAMPLES` says.
"""

import functools
import os
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from workers.local.emulators import FirestoreEmulator, Missing, PubsubEmulator, programs

settings.register_profile(
    "firefleet",
    max_examples=int(os.environ.get("FIREFLEET_EXAMPLES", "1000")),
    deadline=None,  # the machine's other work must not fail a law
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("firefleet")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ and not item.get_closest_marker("xdist_group"):
        yield_to_fleets()
    if item.get_closest_marker("emulator"):
        require_emulators()


@functools.cache
def yield_to_fleets() -> None:
    """Beside the process whose tests take longest, the others use what it leaves of the cores."""
    os.nice(5)


@functools.cache
def missing_emulators() -> str | None:
    """What is not on this machine and how to get it; None if nothing is missing."""
    try:
        programs()
    except Missing as missing:
        return str(missing)
    return None


def require_emulators() -> None:
    """Skip the test (or fail it, see above) if the emulators are not on this machine."""
    text = missing_emulators()
    if text is None:
        return
    if os.environ.get("CI") or os.environ.get("FIREFLEET_REQUIRE_EMULATORS"):
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


@pytest.fixture(scope="session")
def firestore_emulator() -> Iterator[FirestoreEmulator]:
    require_emulators()
    with FirestoreEmulator.start() as emulator:
        yield emulator


@pytest.fixture(scope="session")
def pubsub_emulator() -> Iterator[PubsubEmulator]:
    require_emulators()
    with PubsubEmulator.start() as emulator:
        yield emulator


@pytest.fixture
def project() -> str:
    """A project id of this test's own, so that tests sharing an emulator never meet."""
    return f"test-{uuid.uuid4().hex[:12]}"
