"""Turn what happened to messages into the contract's metrics and into log lines."""

import logging
from collections.abc import Sequence

from replication.apply.conflict_log import conflict_id, winner_of
from replication.apply.effects import Observation
from replication.apply.outcomes import Outcome
from replication.documents.wire import MICROS, collection_id
from replication.ports import Telemetry

log = logging.getLogger(__name__)

COLLECTIONS_MAX = 200
"""Attribute values are bounded: an application that makes up collection ids must not make up metrics."""


class Observer:
    """Counts and logs what became of messages at one target."""

    def __init__(self, target: str, telemetry: Telemetry) -> None:
        self._target = target
        self._telemetry = telemetry
        self._collections: set[str] = set()

    def record(self, observations: Sequence[Observation], *, received_us: int) -> None:
        """Record the outcomes of messages that were received at `received_us` (µs)."""
        alike: dict[tuple[str, str, Outcome], int] = {}
        for seen in observations:
            source, collection = seen.source or "unknown", self._collection(seen.path)
            key = (source, collection, seen.outcome)
            alike[key] = alike.get(key, 0) + 1
            labels = {"source": source, "target": self._target, "collection": collection}
            if seen.lag_us is not None:
                self._telemetry.measure("firefleet.replication.lag", seen.lag_us / MICROS, **labels)
            if seen.commit_time:
                age = (received_us - seen.commit_time) / MICROS
                self._telemetry.measure("firefleet.replication.record_age", age, **labels)
            self._note(seen, labels)
        # A call to the library takes longer than deciding on a change: one for all that are alike.
        for (source, collection, outcome), amount in alike.items():
            self._telemetry.count(
                "firefleet.changes",
                amount,
                source=source,
                target=self._target,
                collection=collection,
                outcome=outcome.value,
            )

    def _collection(self, path: str) -> str:
        if not path:
            return "unknown"
        collection = collection_id(path)
        if collection not in self._collections:
            if len(self._collections) >= COLLECTIONS_MAX:
                return "other"
            self._collections.add(collection)
        return collection

    def _note(self, seen: Observation, labels: dict[str, str]) -> None:
        """What is rare and worth a line of the log."""
        for fault in seen.faults:
            self._telemetry.count("firefleet.metadata.faults", **labels)
            log.warning(
                "metadata of %s is not believed and treated as absent: %s",
                seen.path,
                fault,
                extra={"document": seen.path, "event": seen.message_id, **labels},
            )
        if seen.conflict is not None:
            self._note_conflict(seen, labels)
        if seen.outcome is Outcome.DEAD_LETTER:
            self._telemetry.count("firefleet.dead_letters", reason=seen.reason, target=self._target)
            log.error(
                "message %s went to the dead-letter topic: %s",
                seen.message_id,
                seen.text,
                extra={"event": seen.message_id, "reason": seen.reason, **labels},
            )

    def _note_conflict(self, seen: Observation, labels: dict[str, str]) -> None:
        conflict = seen.conflict
        assert conflict is not None  # noqa: S101  the caller looked
        winner = winner_of(conflict)
        side = "computed" if winner == "computed" else conflict.winner.version.origin
        if seen.outcome is Outcome.CONFLICT:
            self._telemetry.count("firefleet.conflicts", policy=conflict.policy, winner=side, **labels)
        level = logging.INFO if seen.outcome is Outcome.CONFLICT and not conflict.failure else logging.WARNING
        log.log(
            level,
            "%s on %s: %s keeps %s, both bodies are in the conflict log",
            seen.outcome,
            seen.path,
            conflict.policy,
            winner,
            extra={
                "document": seen.path,
                "event": seen.message_id,
                "conflict": conflict_id(conflict),
                "failure": conflict.failure,
                **labels,
            },
        )
