"""What becomes of the messages of one pull.

    pulled ── sort ─┬─ valid ── offer ─┬─ HELD, COPY             wait for a flush
                    │                  ├─ DUPLICATE, THROTTLED   acknowledge
                    │                  └─ CLOSED                 release
                    ├─ foreign                                   acknowledge
                    ├─ failed                                    release
                    └─ invalid                                   dead-letter, then acknowledge

Wrong messages are dealt with last, so that they do not delay the others.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from replication.analytics.buffer import Buffer, Fate
from replication.analytics.dead_letters import dead_letter_all
from replication.analytics.effects import CheckFailed, Rejected, Steps, Taken
from replication.analytics.job import Job
from replication.analytics.schema import AnalyticsEvent, Schema
from replication.effects import Acknowledge, Observe, Postpone
from replication.errors import EventError
from replication.ports import Received


@dataclass(slots=True)
class Sorted:
    """The messages of one pull, by what they are. `counts` has the events of this replica, by type."""

    valid: list[tuple[AnalyticsEvent, Received]] = field(default_factory=list)
    invalid: list[Rejected] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    failed: dict[str, CheckFailed] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Offered:
    """What happened to the valid ones: their deliveries, and how many there are of each type."""

    deliveries: dict[Fate, list[str]] = field(default_factory=lambda: {fate: [] for fate in Fate})
    counts: dict[Fate, Counter[str]] = field(default_factory=lambda: {fate: Counter() for fate in Fate})

    def left(self, pulled: Sequence[Received]) -> list[str]:
        """Those deliveries of the pull that do not wait in the buffer for a flush."""
        waiting = {*self.deliveries[Fate.HELD], *self.deliveries[Fate.COPY]}
        return [received.ack_id for received in pulled if received.ack_id not in waiting]


def sort(pulled: Sequence[Received], schema: Schema) -> Sorted:
    """Check each message."""
    found = Sorted()
    for received in pulled:
        if schema.is_foreign(received.message):
            found.foreign.append(received.ack_id)
            continue
        found.counts[schema.type_of(received.message)] += 1
        try:
            found.valid.append((schema.decode(received.message), received))
        except EventError as error:
            found.invalid.append(Rejected(received, error))
        except Exception as fault:  # noqa: BLE001  one message must not keep the others; it is observed
            # A fault of this program: Pub/Sub's own dead-letter policy takes the message in the end.
            found.failed[received.ack_id] = CheckFailed(received.id, fault)
    return found


def offer(found: Sorted, buffer: Buffer) -> Offered:
    """Offer the valid ones to the buffer."""
    offered = Offered()
    for event, received in found.valid:
        fate = buffer.offer(event, received)
        offered.deliveries[fate].append(received.ack_id)
        offered.counts[fate][event.type] += 1
    return offered


def finish(found: Sorted, offered: Offered, job: Job) -> Steps:
    """Release, acknowledge and dead-letter what does not wait for a flush."""
    yield Observe([_taken(found, offered), *found.failed.values()])
    if released := [*found.failed, *offered.deliveries[Fate.CLOSED]]:
        yield Postpone(released, 0)
    done = found.foreign + offered.deliveries[Fate.DUPLICATE] + offered.deliveries[Fate.THROTTLED]
    if done:
        yield Acknowledge(done)
    yield from dead_letter_all(found.invalid, job)


def _taken(found: Sorted, offered: Offered) -> Taken:
    return Taken(
        found.counts, offered.counts[Fate.DUPLICATE], offered.counts[Fate.THROTTLED], len(found.foreign)
    )
