"""Takes pulled messages into the buffer; what need not wait for a flush is settled at once."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from replication.analytics.buffer import Fate
from replication.analytics.schema import Event
from replication.errors import EventError
from replication.ports import Received
from workers.analytics.shared import BUFFER, Shared

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Sorted:
    """The messages of one pull, by what is done with them."""

    valid: list[tuple[Event, Received]] = field(default_factory=list)
    invalid: list[tuple[Received, EventError]] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


class Intake:
    """Sorts messages for one worker; any number of threads may share it."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._schema = shared.job.schema

    def take(self, pulled: Sequence[Received]) -> None:
        """Hold, acknowledge, dead-letter or release each message. Wrong ones do not delay the others."""
        found = self._sort(pulled)
        fates = self._offer(found)
        shared = self._shared
        shared.release(found.failed + fates[Fate.CLOSED])
        shared.acknowledge(found.foreign + fates[Fate.DUPLICATE] + fates[Fate.THROTTLED])
        shared.bury(found.invalid)

    def _sort(self, pulled: Sequence[Received]) -> _Sorted:
        found = _Sorted()
        received: Counter[str] = Counter()
        for one in pulled:
            if self._schema.is_foreign(one.message):
                found.foreign.append(one.ack_id)
                continue
            received[self._schema.type_of(one.message)] += 1
            try:
                found.valid.append((self._schema.decode(one.message), one))
            except EventError as error:
                found.invalid.append((one, error))
            except Exception:
                # A fault of this program: Pub/Sub's own dead-letter policy takes the message in the end.
                log.exception("checking message %s failed; it will be delivered again", one.id)
                found.failed.append(one.ack_id)
        self._shared.count("received", received)
        if found.foreign:
            self._shared.count("foreign", Counter({"any": len(found.foreign)}))
        return found

    def _offer(self, found: _Sorted) -> dict[Fate, list[str]]:
        fates: dict[Fate, list[str]] = {fate: [] for fate in Fate}
        counts: dict[Fate, Counter[str]] = {fate: Counter() for fate in Fate}
        shared = self._shared
        with shared.changed:
            for event, received in found.valid:
                fate = shared.buffer.offer(event, received)
                fates[fate].append(received.ack_id)
                counts[fate][event.type] += 1
            shared.leases.add(fates[Fate.HELD] + fates[Fate.COPY], now=shared.now())
            if found.valid:
                shared.progress.hold(BUFFER, shared.buffer.depth, found.valid[0][1].publish_time)
            shared.changed.notify_all()
        shared.count("duplicate", counts[Fate.DUPLICATE])
        shared.count("throttled", counts[Fate.THROTTLED])
        shared.count("writes_saved", counts[Fate.DUPLICATE] + counts[Fate.THROTTLED])
        return fates
