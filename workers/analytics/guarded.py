"""The buffer under its lock: what the threads of one worker share."""

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from replication.analytics.buffer import Buffer, HeldEvent, Settled
from replication.analytics.intake import Offered, Sorted, offer
from replication.configuration.analytics import Analytics


class Level(NamedTuple):
    """How full the buffer is: messages, bytes, and when the oldest was published (µs, 0: it is empty)."""

    depth: int
    bytes: int
    oldest: int


class GuardedBuffer:
    """A `Buffer` for several threads. `now` gives monotonic seconds."""

    def __init__(self, settings: Analytics, *, now: Callable[[], float]) -> None:
        self._now = now
        self._buffer = Buffer(settings, now=now())
        self._changed = threading.Condition()

    def reserve(self, limit: int, *, wait_s: float) -> int:
        """Places for up to `limit` messages; 0 if there are none, after waiting for a change."""
        with self._changed:
            places = self._buffer.reserve(limit)
            if not places:
                self._changed.wait(wait_s)
            return places

    def unreserve(self, places: int) -> None:
        """Give places back, after what was pulled has been offered."""
        with self._changed:
            self._buffer.unreserve(places)

    def offer(self, found: Sorted) -> Offered:
        """Offer the valid messages of a pull."""
        with self._changed:
            offered = offer(found, self._buffer)
            self._changed.notify_all()
            return offered

    def wait_until_due(self, *, wait_s: float) -> bool:
        """Whether a flush is due; waits for up to `wait_s` seconds if it is not."""
        with self._changed:
            seconds = self._buffer.wait(self._now())
            if seconds > 0:
                self._changed.wait(min(seconds, wait_s))
            return seconds <= 0

    def take(self) -> list[HeldEvent]:
        """What waits, for a flush that begins now."""
        with self._changed:
            return self._buffer.take(self._now())

    def settle(self, held: Sequence[HeldEvent], *, stored: bool) -> Settled:
        """These leave the buffer, stored or given up."""
        with self._changed:
            settled = self._buffer.settle(held, stored=stored)
            self._changed.notify_all()
            return settled

    def give_up(self, held: Iterable[HeldEvent]) -> list[str]:
        """Those of these that are still in the buffer leave it; their deliveries."""
        with self._changed:
            settled = self._buffer.settle(self._buffer.unsettled(held), stored=False)
            self._changed.notify_all()
            return settled.own + settled.copies

    def close(self) -> None:
        """Take no more."""
        with self._changed:
            self._buffer.close()

    @property
    def level(self) -> Level:
        """How full it is now."""
        with self._changed:
            return Level(self._buffer.depth, self._buffer.bytes, self._buffer.oldest)
