"""Every test of this folder needs the emulators: real triggers, real processes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require_emulators
from tests.emulator.metrics import Collector
from tests.emulator.outage import Outage, write_many
from tests.emulator.replicas import Replicas
from workers.local.eventarc import Delivery
from workers.local.fleet import LocalFleet
from workers.local.otlp import Receiver

_HERE = Path(__file__).parent

RULES = (
    {"match": "private/{rest=**}", "mode": "local"},
    {"match": "wallets/{id}", "mode": "single-primary", "primary": "eu"},
    {"match": "{document=**}", "mode": "multi-primary"},
)
DELIVERY = Delivery(in_flight_max=200, shuffle=0.1, duplicate=0.02, seed=1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The hook sees the whole run's tests, not only this folder's.
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.emulator)
            # Run by one process: they share their fleet.
            item.add_marker(pytest.mark.xdist_group("fleet"))
    items.sort(key=_waits_for_an_outage)


def _waits_for_an_outage(item: pytest.Item) -> bool:
    return "outage" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session", autouse=True)
def outage_beside_the_other_tests(request: pytest.FixtureRequest) -> None:
    """Five minutes are long: they begin with the first test, and what waits for their end is the last one."""
    if any(map(_waits_for_an_outage, request.session.items)):
        request.getfixturevalue("outage")


@pytest.fixture(scope="session")
def quick_to_start() -> Iterator[None]:
    """Java's optimising compiler costs these short-lived processes more than it gives: half of all CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")
        yield


@pytest.fixture(scope="session")
def metrics() -> Collector:
    """What the processes of `fleet` report."""
    return Collector()


@pytest.fixture(scope="session")
def fleet(quick_to_start: None, metrics: Collector) -> Iterator[LocalFleet]:
    """Three replicas, an emulator each; events come in no order, late, and some of them twice."""
    require_emulators()
    with contextlib.ExitStack() as stack:
        receiver = Receiver(metrics.take)
        receiver.start()
        stack.callback(receiver.stop)
        running = LocalFleet(
            collections=RULES,
            # Fourteen processes share this machine: one puller each takes batches twice as large. The other
            # fleets of these tests have as many as by default.
            settings={"pull": {"threads": 1}},
            delivery=DELIVERY,
            environment=receiver.environment(interval_ms=2000),
        )
        yield stack.enter_context(running)


@pytest.fixture(scope="session")
def outage(quick_to_start: None) -> Iterator[Outage]:
    """A fleet of its own, one of whose databases hangs from the start."""
    require_emulators()
    with LocalFleet(replicas=("eu", "us")) as running, Outage(running, "us") as began:
        write_many(running.client("eu"), "outage", 500)
        yield began


@pytest.fixture(scope="session")
def replicas(fleet: LocalFleet) -> Replicas:
    return Replicas(fleet)
