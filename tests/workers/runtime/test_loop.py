"""A worker's loop: what it cannot reach, how it backs off, and that it gives up when the worker stops."""

from collections.abc import Sequence

import pytest

from replication.errors import Transient
from replication.ports import Message, Received, Subscription
from tests.support.analytics import Counts
from tests.support.analytics_worker import Impatient
from workers.runtime.backoff import BACKOFF_S_MAX, BACKOFF_S_MIN
from workers.runtime.loop import Loop
from workers.runtime.progress import Progress
from workers.runtime.stop import Stopping


class Rig:
    """A loop that waits no real time; `waits` has how long it would have waited."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.telemetry = Counts()
        self.progress = Progress(lambda: 0.0)
        self.stop = Impatient(self._wait)
        self.loop = self.loop_named("puller-1", reporter="puller-1")

    def _wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return self.stop.is_set()

    def loop_named(self, name: str, *, reporter: str) -> Loop:
        return Loop(
            name=name,
            target="eu",
            progress=self.progress,
            stop=self.stop,
            telemetry=self.telemetry,
            retries="firefleet.retries",
            reporter=reporter,
        )


@pytest.fixture
def rig() -> Rig:
    return Rig()


def fail() -> None:
    raise Transient("Firestore is down")


def test_what_cannot_be_reached_is_reported_until_it_can_be(rig: Rig) -> None:
    with pytest.raises(Transient):
        rig.loop.reach("Firestore", fail)
    assert rig.progress.unreachable() == "Firestore is down"
    assert rig.loop.reach("Firestore", lambda: 5) == 5
    assert rig.progress.unreachable() is None


def test_loops_with_one_reporter_overrule_one_another(rig: Rig) -> None:
    puller, flusher = (rig.loop_named(name, reporter="buffer") for name in ("puller-1", "flusher"))
    with pytest.raises(Transient):
        flusher.reach("Pub/Sub", fail)
    puller.reach("Pub/Sub", lambda: None)
    assert rig.progress.unreachable() is None


def test_pauses_grow_to_a_bound_with_jitter_and_are_counted(rig: Rig) -> None:
    for attempt in range(1, 30):
        rig.loop.pause(attempt, "down", holding=1)
    for attempt, wait in enumerate(rig.waits, start=1):
        longest = min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2**attempt)
        assert longest / 2 <= wait <= longest
    assert rig.telemetry.sums["firefleet.retries"] == 29


def test_a_stopping_worker_does_not_pause(rig: Rig) -> None:
    rig.stop.set()
    with pytest.raises(Stopping):
        rig.loop.pause(1, "down", holding=1)
    assert rig.waits == []


def test_the_signal_to_stop_ends_a_pause(rig: Rig) -> None:
    def signal(_: float) -> bool:
        rig.stop.set()
        return True

    rig.stop = rig.loop.stop = Impatient(signal)
    with pytest.raises(Stopping):
        rig.loop.pause(1, "down", holding=1)


class Down(Subscription):
    """Fails as many pulls as `failures` says; then each gives a message."""

    def __init__(self) -> None:
        self.failures = 0

    def pull(self, limit: int, *, timeout: float) -> list[Received]:
        if self.failures:
            self.failures -= 1
            raise Transient("Pub/Sub is down")
        return [Received(Message(b"x"), "m1", "a1")]

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """Nothing is kept."""

    def extend(self, ack_ids: Sequence[str], seconds: int) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is open."""


def test_failed_pulls_are_backed_off_from_and_a_success_starts_afresh(rig: Rig) -> None:
    subscription = Down()
    for _ in range(2):
        subscription.failures = 3
        for _ in range(3):
            assert rig.loop.pull(subscription, 10, timeout=0) == []
        assert rig.progress.unreachable() == "Pub/Sub is down"
        assert len(rig.loop.pull(subscription, 10, timeout=0)) == 1
        assert rig.progress.unreachable() is None
    assert rig.waits == [BACKOFF_S_MIN * 2, BACKOFF_S_MIN * 4, BACKOFF_S_MIN * 8] * 2
