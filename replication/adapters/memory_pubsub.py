"""Pub/Sub in memory: one topic, its subscriptions, leases that expire by a given clock.

Keeps the promise of `replication.ports.Subscription` and no more: at least once, in no order. Message ids,
acknowledgement ids and the order of deliveries follow from the calls alone; a simulation passes `order` to
shuffle them, repeat or hold some back. A message no filter lets through is never delivered, one published
before a subscription exists does not reach it: both as Pub/Sub does.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from types import MappingProxyType
from typing import NamedTuple

from replication.documents.wire import MICROS
from replication.errors import Refused
from replication.limits import (
    ATTRIBUTE_BYTES_MAX,
    ATTRIBUTE_KEY_BYTES_MAX,
    ATTRIBUTES_MAX,
    MESSAGE_BYTES_MAX,
)
from replication.ports import Message, Publisher, Received, Subscription


class Retained(NamedTuple):
    """A message a subscription keeps until it is acknowledged. `publish_time` is in microseconds."""

    id: str
    message: Message
    publish_time: int


class _Lease(NamedTuple):
    message_id: str
    expires: int


Order = Callable[[list[Retained]], list[Retained]]
"""What may be delivered, in publish order, to what is: shuffled, some repeated, some left for a later pull."""
Filter = Callable[[Mapping[str, str]], bool]


class MemoryTopic:
    """A topic. `now` gives microseconds since 1970; `order` is for the subscriptions (see `Order`)."""

    def __init__(self, *, now: Callable[[], int], order: Order | None = None) -> None:
        self._now = now
        self._order = order
        self._published = 0
        self._subscriptions: dict[str, MemorySubscription] = {}
        self._lock = threading.RLock()

    def publisher(self) -> "MemoryPublisher":
        """A publisher to this topic."""
        return MemoryPublisher(self)

    def subscription(
        self,
        name: str,
        *,
        ack_deadline_s: float = 60,
        filter: Filter | None = None,
        retention_s: float = 7 * 86_400,
        retained_max: int = 1_000_000,
    ) -> "MemorySubscription":
        """The subscription of that name, created with these options if it does not exist.

        `filter` sees a message's attributes. What is older than `retention_s`, or the oldest beyond
        `retained_max`, is dropped and counted in `dropped`.
        """
        with self._lock:
            if name not in self._subscriptions:
                self._subscriptions[name] = MemorySubscription(
                    name,
                    now=self._now,
                    order=self._order,
                    ack_deadline_s=ack_deadline_s,
                    filter=filter,
                    retention_s=retention_s,
                    retained_max=retained_max,
                )
            return self._subscriptions[name]

    def publish(self, message: Message) -> str:
        """Hand a message to every subscription there is; returns its id. Raises `Refused` if it is invalid."""
        _check(message)
        # A copy, read-only: what the publisher does to its dictionary later must not reach a receiver.
        kept = Message(bytes(message.data), MappingProxyType(dict(message.attributes)))
        with self._lock:
            self._published += 1
            retained = Retained(str(self._published), kept, self._now())
            # Under the lock, so that every subscription keeps messages in the order of their ids.
            for subscription in self._subscriptions.values():
                subscription.offer(retained)
        return retained.id


class MemoryPublisher(Publisher):
    """Publishes to one `MemoryTopic`; its futures are done when it returns them."""

    def __init__(self, topic: MemoryTopic) -> None:
        self._topic = topic

    def submit(self, message: Message) -> "Future[str]":
        """See `Publisher.submit`."""
        future: Future[str] = Future()
        try:
            future.set_result(self._topic.publish(message))
        except Refused as refused:
            future.set_exception(refused)
        return future

    def close(self) -> None:
        """Do nothing: nothing waits, and the topic belongs to others too."""


class MemorySubscription(Subscription):
    """A pull subscription; any number of workers share it. Made by `MemoryTopic.subscription`."""

    def __init__(
        self,
        name: str,
        *,
        now: Callable[[], int],
        order: Order | None,
        ack_deadline_s: float,
        filter: Filter | None,
        retention_s: float,
        retained_max: int,
    ) -> None:
        self.name = name
        self.dropped = 0
        """How many messages retention has dropped, unacknowledged."""
        self._now = now
        self._order = order
        self._ack_deadline = int(ack_deadline_s * MICROS)
        self._filter = filter
        self._retention = int(retention_s * MICROS)
        self._retained_max = retained_max
        # Ordered dictionaries, because a plain one takes ever longer to find its first entry the more of
        # them were removed. Both by message id: what is unacknowledged, and of that what may be delivered.
        self._retained: OrderedDict[str, Retained] = OrderedDict()
        self._ready: OrderedDict[str, Retained] = OrderedDict()
        self._leases: dict[str, _Lease] = {}  # by ack id
        self._earliest = 0  # no lease expires before this
        self._attempts: dict[str, int] = {}  # by message id, of those retained
        self._deliveries = 0
        self._changed = threading.Condition(threading.RLock())

    @property
    def backlog(self) -> int:
        """How many messages are not acknowledged, those out on a lease included."""
        with self._changed:
            self._drop_old()
            return len(self._retained)

    def attempts(self, message_id: str) -> int:
        """How often a message has been delivered; 0 once it is acknowledged."""
        with self._changed:
            return self._attempts.get(message_id, 0)

    def offer(self, retained: Retained) -> None:
        """Keep a message the topic has accepted, if the filter lets it through."""
        if self._filter and not self._filter(retained.message.attributes):
            return
        with self._changed:
            self._retained[retained.id] = retained
            self._ready[retained.id] = retained
            self._drop_old()
            self._changed.notify_all()

    def pull(self, limit: int, *, timeout: float) -> list[Received]:
        """See `Subscription.pull`. Leases expire by the given clock, seen when a pull begins or is woken.

        The wait is in real time, for another thread to publish or release; with 0 it returns at once.
        """
        with self._changed:
            self._changed.wait_for(self._has_ready, timeout)
            return [self._deliver(one) for one in self._take(limit)]

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """See `Subscription.acknowledge`. Too late after the lease: the message comes again."""
        with self._changed:
            self._release_expired()
            for ack_id in ack_ids:
                if lease := self._leases.pop(ack_id, None):
                    self._forget(lease.message_id)

    def extend(self, ack_ids: Sequence[str], seconds: int) -> None:
        """See `Subscription.extend`."""
        with self._changed:
            self._release_expired()
            expires = self._now() + seconds * MICROS
            for ack_id in ack_ids:
                lease = self._leases.get(ack_id)
                if lease:
                    self._leases[ack_id] = _Lease(lease.message_id, expires)
                    self._earliest = min(self._earliest, expires)
            self._release_expired()

    def close(self) -> None:
        """Do nothing: what is not acknowledged stays, for this worker's successor."""

    def _has_ready(self) -> bool:
        self._drop_old()
        self._release_expired()
        return bool(self._ready)

    def _take(self, limit: int) -> list[Retained]:
        if self._order is None:
            return [self._ready.popitem(last=False)[1] for _ in range(min(limit, len(self._ready)))]
        taken = self._order(list(self._ready.values()))[:limit]
        for one in taken:
            self._ready.pop(one.id, None)
        return taken

    def _deliver(self, retained: Retained) -> Received:
        self._deliveries += 1
        ack_id = f"{self.name}-{self._deliveries}"
        expires = self._now() + self._ack_deadline
        self._earliest = min(self._earliest, expires) if self._leases else expires
        self._leases[ack_id] = _Lease(retained.id, expires)
        self._attempts[retained.id] = self._attempts.get(retained.id, 0) + 1
        return Received(retained.message, retained.id, ack_id, retained.publish_time)

    def _release_expired(self) -> None:
        now = self._now()
        if not self._leases or now < self._earliest:
            return
        for ack_id, lease in list(self._leases.items()):
            if lease.expires <= now:
                del self._leases[ack_id]
                # Acknowledged through another delivery of the same message, it is done.
                if retained := self._retained.get(lease.message_id):
                    self._ready[lease.message_id] = retained
        self._earliest = min((lease.expires for lease in self._leases.values()), default=0)
        self._changed.notify_all()

    def _forget(self, message_id: str) -> None:
        self._retained.pop(message_id, None)
        self._ready.pop(message_id, None)
        self._attempts.pop(message_id, None)

    def _drop_old(self) -> None:
        oldest = self._now() - self._retention
        while self._retained:
            message_id, retained = next(iter(self._retained.items()))
            if retained.publish_time >= oldest and len(self._retained) <= self._retained_max:
                return
            self._forget(message_id)
            self.dropped += 1


def _check(message: Message) -> None:
    """Raise `Refused` for what Pub/Sub does not take."""
    attributes = message.attributes
    if not message.data and not attributes:
        raise Refused("a message must have data or an attribute")
    if len(message.data) > MESSAGE_BYTES_MAX or len(attributes) > ATTRIBUTES_MAX:
        raise Refused(
            f"a message of {len(message.data)} bytes and {len(attributes)} attributes is over the limits of "
            f"{MESSAGE_BYTES_MAX} and {ATTRIBUTES_MAX}"
        )
    for key, value in attributes.items():
        if not key or len(key.encode()) > ATTRIBUTE_KEY_BYTES_MAX or len(value.encode()) > ATTRIBUTE_BYTES_MAX:
            raise Refused(
                f"attribute {key[:40]!r}: 1 to {ATTRIBUTE_KEY_BYTES_MAX} bytes for a key, "
                f"{ATTRIBUTE_BYTES_MAX} for a value"
            )
