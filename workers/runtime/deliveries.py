"""The deliveries a worker holds: extended in time, and in the end acknowledged, released or postponed.

A delivery is named by its ack id. It is held from the pull until it ends in one of the three ways. While it is
held, its deadline is extended, so that no other worker gets the message. If Pub/Sub cannot be reached for this,
the deadline passes and the message is delivered again, which every receiver allows for.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence

from replication.errors import Transient
from replication.ports import Received, Subscription
from workers.runtime.loop import PUBSUB
from workers.runtime.progress import Progress

log = logging.getLogger(__name__)


class Leases:
    """Held deliveries by when they were last extended. Times are monotonic seconds."""

    def __init__(self, *, deadline_s: float) -> None:
        # A third: two more tries before the deadline, should one fail.
        self._renew_s = deadline_s / 3
        self._renewed: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._renewed)

    def __iter__(self) -> Iterator[str]:
        return iter(self._renewed)

    def __contains__(self, ack_id: str) -> bool:
        return ack_id in self._renewed

    def add(self, ack_ids: Iterable[str], *, now: float) -> None:
        """These have just been delivered."""
        for ack_id in ack_ids:
            self._renewed[ack_id] = now

    def drop(self, ack_ids: Iterable[str]) -> list[str]:
        """These are acknowledged or released; returns those that were held."""
        return [ack_id for ack_id in ack_ids if self._renewed.pop(ack_id, None) is not None]

    def due(self, *, now: float) -> list[str]:
        """What has to be extended now; counts as extended from then on."""
        due = []
        for ack_id, renewed in self._renewed.items():
            if now - renewed < self._renew_s:
                break  # in the order of their times
            due.append(ack_id)
        for ack_id in due:
            self._renewed.move_to_end(ack_id)
            self._renewed[ack_id] = now
        return due


class Deliveries:
    """What one holder (a puller, or a whole worker) holds of a subscription; any number of threads may use it.

    `now` gives monotonic seconds. `deadline_s` is the subscription's acknowledgement deadline, and what an
    extension asks for.
    """

    def __init__(
        self,
        holder: str,
        subscription: Subscription,
        progress: Progress,
        *,
        deadline_s: int,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._holder = holder
        self._subscription = subscription
        self._progress = progress
        self._deadline_s = deadline_s
        self._now = now
        self._lock = threading.Lock()
        self._leases = Leases(deadline_s=deadline_s)

    def __len__(self) -> int:
        return len(self._leases)

    def __contains__(self, ack_id: str) -> bool:
        return ack_id in self._leases

    def hold(self, received: Sequence[Received]) -> None:
        """These have just been delivered, and are held from now on."""
        if not received:
            return
        with self._lock:
            self._leases.add((item.ack_id for item in received), now=self._now())
            self._progress.hold(self._holder, len(self._leases), min(item.publish_time for item in received))

    def extend(self) -> None:
        """Extend the deadlines of what has been held for a third of the deadline since it was last extended."""
        with self._lock:
            due = self._leases.due(now=self._now())
        if not due:
            return
        try:
            self._subscription.extend(due, self._deadline_s)
        except Transient as error:
            log.warning("cannot extend the deadline of %d messages: %s", len(due), error)

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """These are done. If that cannot be said, they come again and are found to be duplicates."""
        if not ack_ids:
            return
        try:
            self._subscription.acknowledge(ack_ids)
        except Transient as error:
            self._progress.trouble(self._holder, PUBSUB, str(error))
            log.warning("%d messages are done but not acknowledged: %s", len(ack_ids), error)
        else:
            self._progress.trouble(self._holder, PUBSUB, None)
        finally:
            self._drop(ack_ids)

    def postpone(self, ack_ids: Iterable[str], seconds: int) -> int:
        """Let those of these that are held be delivered again after `seconds`; returns how many."""
        held = self._drop(ack_ids)
        if held:
            try:
                self._subscription.extend(held, seconds)
            except Transient as error:
                log.warning("%d messages are not released; their deadline does it: %s", len(held), error)
        return len(held)

    def release(self, ack_ids: Iterable[str]) -> int:
        """Let those of these that are held be delivered again at once; returns how many."""
        return self.postpone(ack_ids, 0)

    def release_all(self) -> int:
        """Release everything that is held; returns how many."""
        with self._lock:
            held = list(self._leases)
        return self.release(held)

    def _drop(self, ack_ids: Iterable[str]) -> list[str]:
        with self._lock:
            dropped = self._leases.drop(ack_ids)
            if dropped:
                self._progress.finished(self._holder, len(dropped))
        return dropped
