"""Turn what happened to analytics events into metrics and log lines."""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import assert_never

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

log = logging.getLogger(__name__)


class AnalyticsObserver:
    """Counts and logs what became of events at one replica."""

    def __init__(self, target: str, telemetry: Telemetry) -> None:
        self._target = target
        self._telemetry = telemetry

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
                    self._count("warehouse_refused", Counter(any=1))
                case _:
                    assert_never(seen)

    def record_released(self, messages: int) -> None:
        """So many messages were released."""
        self._count("released", Counter(any=messages))

    def record_flush(self, messages: int, seconds: float) -> None:
        """A flush of so many events took so long."""
        self._telemetry.measure("firefleet.analytics.flush.duration", seconds, target=self._target)
        self._telemetry.measure("firefleet.analytics.flush.size", messages, target=self._target)

    def record_level(self, depth: int, size: int, age_s: float) -> None:
        """How full the buffer is: messages, bytes, and the age of the oldest."""
        labels = {"target": self._target}
        self._telemetry.gauge("firefleet.analytics.buffer.depth", depth, **labels)
        self._telemetry.gauge("firefleet.analytics.buffer.bytes", size, **labels)
        self._telemetry.gauge("firefleet.analytics.buffer.oldest", age_s, **labels)

    def record_failure(self) -> None:
        """A fault of this program."""
        self._telemetry.count("firefleet.failures", target=self._target)

    def _record_taken(self, seen: Taken) -> None:
        self._count("received", seen.received)
        self._count("foreign", Counter(any=seen.foreign))
        self._count("duplicate", seen.duplicates)
        self._count("throttled", seen.throttled)
        self._count("writes_saved", seen.duplicates + seen.throttled)

    def _record_stored(self, seen: Stored) -> None:
        self._count("written", seen.written)
        self._count("duplicate", seen.duplicates)
        self._telemetry.count("firefleet.analytics.writes", seen.documents, target=self._target)
        # Against one write for each message.
        self._count("writes_saved", Counter(any=seen.messages - seen.documents))

    def _record_dead_lettered(self, seen: DeadLettered) -> None:
        for (reason, event_type), amount in seen.amounts.items():
            self._count("dead_lettered", Counter({event_type: amount}), reason=reason)
        # One line for all: an application that sends nothing but wrong events must not fill the log too.
        received, error = seen.example
        log.warning(
            "%d events went to the dead-letter topic; one of them, message %s: %s",
            seen.amounts.total(),
            received.id,
            error,
            extra={"event": received.id, "reason": error.reason.value},
        )

    def _count(self, name: str, amounts: Counter[str], /, **labels: str) -> None:
        """Add to `firefleet.analytics.{name}`, by event type."""
        for event_type, amount in amounts.items():
            if amount > 0:
                self._telemetry.count(
                    f"firefleet.analytics.{name}", amount, type=event_type, target=self._target, **labels
                )
