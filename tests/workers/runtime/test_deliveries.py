"""What a worker holds: extended in time, ended in one way each, and never more than it was told to hold."""

from collections.abc import Sequence

import pytest

from replication.adapters.memory_pubsub import MemorySubscription, MemoryTopic
from replication.documents.wire import MICROS
from replication.errors import Refused, Transient
from replication.ports import Message, Received, Subscription
from workers.runtime.deliveries import Deliveries, Leases
from workers.runtime.progress import Progress


def test_deadlines_are_extended_a_third_of_the_way_and_only_of_what_is_held() -> None:
    leases = Leases(deadline_s=60)
    leases.add(["a", "b"], now=0.0)
    leases.add(["c"], now=15.0)
    assert leases.due(now=19.0) == []
    leases.drop(["b", "unknown"])
    assert leases.due(now=20.0) == ["a"]
    assert leases.due(now=36.0) == ["c"]
    assert leases.due(now=41.0) == ["a"]
    assert len(leases) == 2


class Away(Subscription):
    """A subscription that fails as it is told, and else passes calls on."""

    def __init__(self, inner: MemorySubscription) -> None:
        self.inner = inner
        self.error: Exception | None = None

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error

    def pull(self, limit: int, *, timeout: float) -> list[Received]:
        return self.inner.pull(limit, timeout=timeout)

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        self._fail()
        self.inner.acknowledge(ack_ids)

    def extend(self, ack_ids: Sequence[str], seconds: int) -> None:
        self._fail()
        self.inner.extend(ack_ids, seconds)

    def close(self) -> None:
        """Nothing is open."""


class Rig:
    """Three messages, pulled and held, on a clock of the test's (seconds)."""

    def __init__(self) -> None:
        self.clock = 1_000.0
        topic = MemoryTopic(now=lambda: int(self.clock * MICROS))
        self.subscription = Away(topic.subscription("s", ack_deadline_s=60))
        self.progress = Progress(lambda: self.clock)
        self.deliveries = Deliveries(
            "puller-1", self.subscription, self.progress, deadline_s=60, now=lambda: self.clock
        )
        for number in range(3):
            topic.publish(Message(b"%d" % number))
        self.pulled = self.subscription.pull(10, timeout=0)
        self.deliveries.hold(self.pulled)
        self.ids = [received.ack_id for received in self.pulled]

    def delivered_again(self) -> list[bytes]:
        return [received.message.data for received in self.subscription.pull(10, timeout=0)]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_what_is_held_counts_as_in_progress_until_it_ends(rig: Rig) -> None:
    assert (len(rig.deliveries), rig.progress.inflight) == (3, 3)
    rig.deliveries.acknowledge(rig.ids[:1])
    rig.deliveries.postpone(rig.ids[1:2], 30)
    assert rig.ids[0] not in rig.deliveries
    assert (len(rig.deliveries), rig.progress.inflight) == (1, 1)
    assert rig.deliveries.release_all() == 1
    assert (len(rig.deliveries), rig.progress.inflight) == (0, 0)


def test_what_is_acknowledged_never_comes_again(rig: Rig) -> None:
    rig.deliveries.acknowledge(rig.ids)
    rig.clock += 1_000
    assert rig.delivered_again() == []


def test_what_is_released_comes_again_at_once_and_only_if_it_is_held(rig: Rig) -> None:
    rig.deliveries.acknowledge(rig.ids[:1])
    assert rig.deliveries.release(rig.ids[:2]) == 1
    assert rig.delivered_again() == [b"1"]


def test_what_is_postponed_comes_again_after_that_time(rig: Rig) -> None:
    rig.deliveries.postpone(rig.ids[:1], 300)
    rig.deliveries.acknowledge(rig.ids[1:])
    rig.clock += 299
    assert rig.delivered_again() == []
    rig.clock += 2
    assert rig.delivered_again() == [b"0"]


def test_what_is_held_is_not_delivered_to_others_for_as_long_as_it_is_extended(rig: Rig) -> None:
    for _ in range(20):
        rig.clock += 21
        rig.deliveries.extend()
        assert rig.delivered_again() == []


def test_a_failed_acknowledgement_is_reported_and_lets_the_messages_go(rig: Rig) -> None:
    rig.subscription.error = Transient("Pub/Sub is down")
    rig.deliveries.acknowledge(rig.ids[:2])
    assert rig.progress.unreachable() == "Pub/Sub is down"
    assert (len(rig.deliveries), rig.progress.inflight) == (1, 1)
    rig.subscription.error = None
    rig.deliveries.acknowledge(rig.ids[2:])
    assert rig.progress.unreachable() is None
    rig.clock += 61
    assert rig.delivered_again() == [b"0", b"1"]


def test_an_unexpected_error_lets_the_messages_go_too(rig: Rig) -> None:
    """Else they would be extended for as long as the worker lives, and never delivered again."""
    rig.subscription.error = Refused("no such subscription")
    with pytest.raises(Refused):
        rig.deliveries.acknowledge(rig.ids)
    assert len(rig.deliveries) == 0


@pytest.mark.parametrize("end", ["release_all", "extend"])
def test_a_failed_release_or_extension_leaves_it_to_the_deadline(rig: Rig, end: str) -> None:
    rig.subscription.error = Transient("Pub/Sub is down")
    rig.clock += 21
    getattr(rig.deliveries, end)()
    assert rig.delivered_again() == []
    rig.clock += 40
    assert rig.delivered_again() == [b"0", b"1", b"2"]
