"""What happened to messages, as the operator reads it in the log."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from conflict.version import Version
from replication.apply.conflict_log import conflict_id
from replication.apply.effects import Observation
from replication.apply.outcomes import Conflict, ConflictKind, Outcome, State
from replication.documents.wire import Document
from workers.replicate.observe import Observer
from workers.runtime.journal import Journal

NOWHERE = State(Version({}, 0, "eu", 0, deleted=True), None)
DELETED = State(Version({"eu": 5}, 5, "eu", 5, deleted=True), None)
BODY = bytes(Document().SerializeToString())
STANDS = State(Version({"eu": 5}, 5, "eu", 5), BODY)
WRITTEN = State(Version({"us": 7}, 7, "us", 7), BODY)
LOST = State(Version({"us": 7}, 7, "us", 7, deleted=True), BODY)


class Counts:
    """A Telemetry that remembers its counters."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, dict[str, str]]] = []

    def count(self, name: str, amount: int = 1, /, **labels: str) -> None:
        self.seen.append((name, amount, labels))

    def measure(self, name: str, value: float, /, **labels: str) -> None: ...

    def gauge(self, name: str, value: float, /, **labels: str) -> None: ...

    def total(self, name: str) -> int:
        return sum(amount for seen, amount, _ in self.seen if seen == name)


class Desk:
    """An observer at `us`, with a clock that the test moves."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.caplog = caplog
        self.counts = Counts()
        self.now = 0.0
        self._observer = Observer("us", self.counts, Journal(lambda: self.now), conflicts="_repl_conflicts")

    def see(self, *observations: Observation) -> list[Any]:
        """Record these; the log's lines about them."""
        self.caplog.clear()
        self._observer.record(observations, received_us=0)
        return list(self.caplog.records)


@pytest.fixture
def desk(caplog: pytest.LogCaptureFixture) -> Iterator[Desk]:
    with caplog.at_level(logging.INFO, logger="workers"):
        yield Desk(caplog)


def violation(written: State, stands: State) -> Conflict:
    sides = (written, stands)
    return Conflict(
        "wallets/w1", ConflictKind.VIOLATION, sides, winner=stands, policy="single-primary", primary="eu"
    )


@pytest.mark.parametrize(
    ("written", "stands", "told"),
    [
        (WRITTEN, NOWHERE, "was written at us, but only eu may write it: reverted (eu has no such document)"),
        (WRITTEN, DELETED, "was written at us, but only eu may write it: reverted (eu deleted it)"),
        (WRITTEN, STANDS, "was written at us, but only eu may write it: reverted (to eu's document)"),
        (LOST, STANDS, "was deleted at us, but only eu may write it: reverted (to eu's document)"),
    ],
)
def test_a_violation_is_told_in_words_with_the_place_of_its_body(
    desk: Desk, written: State, stands: State, told: str
) -> None:
    conflict = violation(written, stands)
    [line] = desk.see(Observation(Outcome.VIOLATION, "m1", "us", "wallets/w1", conflict=conflict))
    entry = f"us/_repl_conflicts/{conflict_id(conflict)}"
    assert (line.levelname, line.getMessage()) == ("WARNING", f"wallets/w1 {told}; its body: {entry}")


def test_a_dead_letter_names_document_and_letter_and_counts_for_its_collection(desk: Desk) -> None:
    [line] = desk.see(
        Observation(
            Outcome.DEAD_LETTER,
            "m1",
            "eu",
            "big/b2",
            reason="too_large",
            text="cannot be written",
            letter="a30b",
        )
    )
    assert line.levelname == "ERROR"
    assert line.getMessage() == (
        "message m1 of big/b2 went to the dead-letter topic as a30b: too_large: cannot be written"
    )
    assert (line.document, line.dead_letter, line.collection) == ("big/b2", "a30b", "big")
    [changes] = [labels for name, _, labels in desk.counts.seen if name == "firefleet.changes"]
    assert changes["collection"] == "big"


def test_a_dead_letter_of_no_known_document_says_nothing_of_one(desk: Desk) -> None:
    [line] = desk.see(Observation(Outcome.DEAD_LETTER, "m1", "", reason="undecodable", text="no", letter="a"))
    assert line.getMessage() == "message m1 went to the dead-letter topic as a: undecodable: no"
    assert line.collection == "unknown"


def test_versions_not_believed_are_told_once_a_minute_for_each_replica_and_counted_always(desk: Desk) -> None:
    def fault(source: str) -> Observation:
        return Observation(Outcome.APPLIED, "m1", source, "orders/q1", faults=("sealed with another secret",))

    lines = desk.see(*[fault("eu")] * 50, *[fault("apac")] * 50)
    assert [line.getMessage() for line in lines] == [
        f"the version in orders/q1, changed at {source}, is not believed and treated as absent: "
        "sealed with another secret"
        for source in ("eu", "apac")
    ]
    assert desk.counts.total("firefleet.metadata.faults") == 100
    desk.now += 60
    [line] = desk.see(fault("eu"))
    assert line.getMessage().endswith(" (49 more changes with such a version since the last line)")
