"""Turn what happened to analytics events into metrics and log lines."""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import assert_never

from replication import metrics
from replication.analytics.effects import (
    CheckFailed,
    CopyRefused,
    DeadLettered,
    LetterRefused,
    Observation,
    Stored,
    Taken,
)
from replication.ports import Telemetry
from workers.runtime.journal import Journal

log = logging.getLogger(__name__)

_TOLD = {
    metrics.ANALYTICS_WRITTEN: "written",
    metrics.ANALYTICS_DUPLICATE: "duplicate",
    metrics.ANALYTICS_THROTTLED: "throttled",
    metrics.ANALYTICS_DEAD_LETTERED: "dead_lettered",
    metrics.ANALYTICS_RELEASED: "released",
}
"""The counts that the log's line a minute names."""


class AnalyticsObserver:
    """Counts and logs what became of events at one replica."""

    def __init__(self, target: str, telemetry: Telemetry, journal: Journal) -> None:
        self._target = target
        self._telemetry = telemetry
        self._journal = journal

    def record(self, observations: Sequence[Observation]) -> None:
        """Record what an engine observed."""
        for seen in observations:
            match seen:
                case Taken():
                    self._record_taken(seen)
                case Stored():
                    self._record_stored(seen)
                case DeadLettered():
                    self._record_dead_lettered(seen)
                case CheckFailed():
                    log.error(
                        "checking message %s failed; it will be delivered again",
                        seen.message_id,
                        exc_info=seen.error,
                    )
                case LetterRefused():
                    log.error("the dead-letter topic refuses message %s: %s", seen.message_id, seen.error)
                case CopyRefused():
                    log.error("the warehouse's topic refuses a copy, which is left out: %s", seen.error)
                    self._count(metrics.ANALYTICS_WAREHOUSE_REFUSED, Counter(any=1))
                case _:
                    assert_never(seen)

    def record_released(self, messages: int) -> None:
        """So many messages were released."""
        self._count(metrics.ANALYTICS_RELEASED, Counter(any=messages))

    def record_flush(self, messages: int, seconds: float) -> None:
        """A flush of so many events took so long."""
        self._telemetry.measure(metrics.ANALYTICS_FLUSH_DURATION, seconds, target=self._target)
        self._telemetry.measure(metrics.ANALYTICS_FLUSH_SIZE, messages, target=self._target)

    def record_level(self, depth: int, size: int, age_s: float) -> None:
        """How full the buffer is: messages, bytes, and the age of the oldest."""
        labels = {"target": self._target}
        self._telemetry.gauge(metrics.ANALYTICS_BUFFER_DEPTH, depth, **labels)
        self._telemetry.gauge(metrics.ANALYTICS_BUFFER_BYTES, size, **labels)
        self._telemetry.gauge(metrics.ANALYTICS_BUFFER_OLDEST, age_s, **labels)

    def record_failure(self) -> None:
        """A fault of this program."""
        self._telemetry.count(metrics.FAILURES, target=self._target)

    def _record_taken(self, seen: Taken) -> None:
        self._count(metrics.ANALYTICS_RECEIVED, seen.received)
        self._count(metrics.ANALYTICS_FOREIGN, Counter(any=seen.foreign))
        self._count(metrics.ANALYTICS_DUPLICATE, seen.duplicates)
        self._count(metrics.ANALYTICS_THROTTLED, seen.throttled)
        self._count(metrics.ANALYTICS_WRITES_SAVED, seen.duplicates + seen.throttled)

    def _record_stored(self, seen: Stored) -> None:
        self._count(metrics.ANALYTICS_WRITTEN, seen.written)
        self._count(metrics.ANALYTICS_DUPLICATE, seen.duplicates)
        self._telemetry.count(metrics.ANALYTICS_WRITES, seen.documents, target=self._target)
        # Against one write for each message.
        self._count(metrics.ANALYTICS_WRITES_SAVED, Counter(any=seen.messages - seen.documents))

    def _record_dead_lettered(self, seen: DeadLettered) -> None:
        for (reason, event_type), amount in seen.amounts.items():
            self._count(metrics.ANALYTICS_DEAD_LETTERED, Counter({event_type: amount}), reason=reason)
        # One line for all: an application that sends nothing but wrong events must not fill the log too.
        received, error = seen.example
        log.warning(
            "%d events went to the dead-letter topic; one of them, message %s: %s",
            seen.amounts.total(),
            received.id,
            error,
            extra={"event": received.id, "reason": error.reason.value},
        )

    def _count(self, metric: str, amounts: Counter[str], /, **labels: str) -> None:
        """Add to a metric, by event type."""
        for event_type, amount in amounts.items():
            if amount > 0:
                self._telemetry.count(metric, amount, type=event_type, target=self._target, **labels)
        if metric in _TOLD:
            self._journal.record({_TOLD[metric]: amounts.total()})
