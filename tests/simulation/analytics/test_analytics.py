"""The real analytics engine lives through seeded histories, and the rules find what is planted."""

import logging
from collections.abc import Iterator

import pytest

from tests.simulation.analytics.faults import FAULTS, Fault, hunt
from tests.simulation.analytics.runner import REACHED, live, quiet, run_many

SEEDS = 150


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    quiet()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(600)
def test_every_event_is_stored_once_whatever_fails_and_everything_worth_reaching_is_reached() -> None:
    failures, seen = run_many(range(SEEDS))
    assert not failures, failures
    assert not [what for what in REACHED if not seen[what]], seen


@pytest.mark.timeout(300)
def test_a_database_and_a_pubsub_that_often_fail_lose_nothing() -> None:
    failures, seen = run_many(range(30), failures=150, workers=3, limit=30)
    assert not failures, failures
    assert seen["half write"]
    assert seen["late write"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found_by_its_rule(fault: Fault) -> None:
    found = hunt(fault)
    assert found is not None
    assert found.rule == fault.rule


@pytest.mark.timeout(300)
def test_planted_faults_are_taken_out_again() -> None:
    for fault in FAULTS:
        with fault.plant():
            pass
        assert live(0, **fault.knobs).wrong == []


def test_the_same_seed_gives_the_same_history() -> None:
    first, second = (live(5) for _ in range(2))
    assert first.seen == second.seen
    assert (first.stored, first.lettered, first.copies) == (second.stored, second.lettered, second.copies)
