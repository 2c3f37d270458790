"""Every test of this folder needs the emulators: real triggers, real processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require_emulators
from tests.emulator.replicas import Replicas
from workers.local.eventarc import Delivery
from workers.local.fleet import LocalFleet

_HERE = Path(__file__).parent

RULES = (
    {"match": "private/{rest=**}", "mode": "local"},
    {"match": "wallets/{id}", "mode": "single-primary", "primary": "eu"},
    {"match": "{document=**}", "mode": "multi-primary"},
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The hook sees the whole run's tests, not only this folder's.
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.emulator)


@pytest.fixture(scope="session")
def fleet() -> Iterator[LocalFleet]:
    """Three replicas, an emulator each; events come in no order, late, and some of them twice."""
    require_emulators()
    with LocalFleet(collections=RULES, delivery=Delivery(shuffle=0.2, duplicate=0.05, seed=1)) as running:
        yield running


@pytest.fixture(scope="session")
def replicas(fleet: LocalFleet) -> Replicas:
    return Replicas(fleet)
