"""What one worker holds between a pull and a flush, and what happens to each message that it is offered.

    pulled ── offer ─┬─ HELD       until a flush has stored it, then acknowledged
                     ├─ COPY       of a held one: acknowledged with it, never before (it may be a redelivery of
                     │             that very message, and acknowledging that loses the event if we crash)
                     ├─ DUPLICATE  of one already stored: acknowledge
                     └─ THROTTLED  acknowledge, and count

Bounded in messages and bytes: `reserve` says how many may be pulled, 0 at the bound. Nothing here knows a
clock; `now` is in monotonic seconds. Not for several threads at once: the worker has a lock around it.
"""

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

from replication.analytics.recency import Recent, TokenBuckets
from replication.analytics.schema import AnalyticsEvent
from replication.configuration.analytics import Analytics
from replication.documents.wire import MICROS
from replication.ports import Received

HELD_OVERHEAD_BYTES = 1_500
"""About what Python keeps around one held message: objects, attributes, identities, ids (tried)."""
COPY_BYTES = 300
"""A copy is only an acknowledgement id."""
_MEAN_WEIGHT = 0.01


class Fate(Enum):
    """What became of a message that was offered."""

    HELD = auto()
    COPY = auto()
    DUPLICATE = auto()
    THROTTLED = auto()
    CLOSED = auto()
    """The worker is stopping: release it."""


@dataclass(slots=True, eq=False)
class HeldEvent:
    """An event on its way to the database; `sampled` is the share it stands for, 1 or a throttle's `sample`."""

    event: AnalyticsEvent
    received: Received
    sampled: float
    copies: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """What it takes, roughly."""
        return len(self.received.message.data) + HELD_OVERHEAD_BYTES + len(self.copies) * COPY_BYTES


class Settled(NamedTuple):
    """The deliveries of events that left the buffer: their own, and their copies' (counted by event type)."""

    own: list[str]
    copies: list[str]
    counts: Counter[str]


class Buffer:
    """Events held by one worker: waiting for the next flush, or in it."""

    def __init__(self, settings: Analytics, *, now: float) -> None:
        self._settings = settings
        self._every = settings.flush.every / MICROS
        self._next = now + self._every
        self._waiting: list[HeldEvent] = []
        self._waiting_bytes = 0
        self._by_identity: dict[bytes, HeldEvent] = {}
        self._flushing: set[HeldEvent] = set()
        self._recent = Recent(settings.recent)
        throttles = {name: rules.throttle for name, rules in settings.types.items()}
        self._throttles = throttles
        self._buckets = TokenBuckets(throttles, users=settings.users)
        self._reserved = 0
        self._mean_bytes = float(HELD_OVERHEAD_BYTES)
        self._closed = False
        self.depth = 0
        """Messages held, copies included."""
        self.bytes = 0

    def reserve(self, limit: int) -> int:
        """How many messages may be pulled now, at most `limit`, and keep their places until `unreserve`.

        Bytes are predicted from the mean of earlier messages; a pull of larger ones may exceed the bound.
        """
        bound = self._settings.buffer
        free = bound.events - self.depth - self._reserved
        free_bytes = bound.bytes - self.bytes - self._reserved * self._mean_bytes
        places = max(0, min(limit, free, int(free_bytes / self._mean_bytes)))
        if not places and not self.depth and not self._reserved:
            places = 1  # events larger than the whole bound: one at a time
        self._reserved += places
        return places

    def unreserve(self, places: int) -> None:
        """Give places back, after what was pulled has been offered."""
        self._reserved -= places

    def offer(self, event: AnalyticsEvent, received: Received) -> Fate:
        """Take a message that was pulled."""
        if self._closed:
            return Fate.CLOSED
        if any(identity in self._recent for identity in event.identities):
            return Fate.DUPLICATE
        held = next(filter(None, map(self._by_identity.get, event.identities)), None)
        if held is not None:
            held.copies.append(received.ack_id)
            self.depth += 1
            self.bytes += COPY_BYTES
            return Fate.COPY
        sampled = self._sampled(event, received.publish_time)
        if not sampled:
            # By its id only: a delivery of the same event meets the same fate, another one with its key does
            # not have to.
            self._recent.add(event.identities[:1])
            return Fate.THROTTLED
        self._hold(HeldEvent(event, received, sampled))
        return Fate.HELD

    def _sampled(self, event: AnalyticsEvent, published: int) -> float:
        """1 for an event within its user's rate, else the share that is kept: 0 where this one is not.

        Which ones are kept follows from their ids: a redelivery gets the same decision.
        """
        if self._buckets.take(event.type, event.user, time=published):
            return 1.0
        throttle = self._throttles[event.type]
        share = throttle.sample if throttle else 0.0
        return share if int.from_bytes(event.identities[0][:8]) < share * 2**64 else 0.0

    def _hold(self, held: HeldEvent) -> None:
        self._waiting.append(held)
        size = held.bytes
        self._waiting_bytes += size
        self._mean_bytes += (size - self._mean_bytes) * _MEAN_WEIGHT
        self.depth += 1
        self.bytes += size
        for identity in held.event.identities:
            self._by_identity[identity] = held

    def wait(self, now: float) -> float:
        """Seconds until a flush is due; 0 when it is."""
        flush = self._settings.flush
        if len(self._waiting) >= flush.events or self._waiting_bytes >= flush.bytes:
            return 0.0
        return max(0.0, self._next - now)

    def take(self, now: float) -> list[HeldEvent]:
        """What waits, for a flush that begins now; it counts towards the bound until it has left the buffer.

        Flushes keep the beat of the clock: one that was late does not move those after it.
        """
        late = now - self._next
        self._next = self._next + self._every if 0 <= late < self._every else now + self._every
        taken, self._waiting, self._waiting_bytes = self._waiting, [], 0
        self._flushing.update(taken)
        return taken

    def settle(self, held: Iterable[HeldEvent], *, stored: bool) -> Settled:
        """These leave the buffer, stored or given up."""
        leave = self.stored if stored else self.given_up
        # Flat, because a list that is kept for each event costs the garbage collector more than all the rest.
        settled = Settled([], [], Counter())
        for event in held:
            deliveries = leave(event)
            settled.own.append(deliveries[0])
            if len(deliveries) > 1:
                settled.copies.extend(deliveries[1:])
                settled.counts[event.event.type] += len(deliveries) - 1
        return settled

    def stored(self, held: HeldEvent) -> list[str]:
        """A held event is durable: remember it; returns the deliveries to acknowledge, its own first."""
        self._recent.add(held.event.identities)
        return [held.received.ack_id, *self._forget(held)]

    def given_up(self, held: HeldEvent) -> list[str]:
        """A held event leaves unwritten; returns the deliveries to release, its own first.

        That way, a copy that is another event with the same key gets its own try.
        """
        return [held.received.ack_id, *self._forget(held)]

    def unsettled(self, held: Iterable[HeldEvent]) -> list[HeldEvent]:
        """Those of a flush's events that have not left the buffer."""
        return [event for event in held if event in self._flushing]

    def _forget(self, held: HeldEvent) -> list[str]:
        self._flushing.remove(held)
        for identity in held.event.identities:
            if self._by_identity.get(identity) is held:
                del self._by_identity[identity]
        self.depth -= 1 + len(held.copies)
        self.bytes -= held.bytes
        copies, held.copies = held.copies, []
        return copies

    def close(self) -> None:
        """Take no more: what is offered from now on is `CLOSED`."""
        self._closed = True

    @property
    def oldest(self) -> int:
        """When the oldest held event was published (µs), 0 when none is held. Looks at all of them."""
        held = itertools.chain(self._waiting, self._flushing)
        return min((one.received.publish_time for one in held), default=0)
