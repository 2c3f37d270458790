"""Turn what happened to messages into the contract's metrics and into log lines."""

import logging
from collections import Counter
from collections.abc import Sequence

from replication import metrics
from replication.apply.conflict_log import conflict_id, winner_of
from replication.apply.effects import Observation
from replication.apply.outcomes import Outcome, State
from replication.documents.wire import MICROS, collection_id
from replication.ports import Telemetry
from workers.runtime.journal import Journal

log = logging.getLogger(__name__)

COLLECTIONS_MAX = 200
"""Attribute values are bounded: an application that makes up collection ids must not make up metrics."""


class Observer:
    """Counts and logs what became of messages at one target."""

    def __init__(self, target: str, telemetry: Telemetry, journal: Journal, *, conflicts: str) -> None:
        """`conflicts` is the collection of the conflict log."""
        self._target = target
        self._telemetry = telemetry
        self._journal = journal
        self._conflicts = conflicts
        self._collections: set[str] = set()

    def record(self, observations: Sequence[Observation], *, received_us: int) -> None:
        """Record the outcomes of messages that were received at `received_us` (µs)."""
        alike: dict[tuple[str, str, Outcome], int] = {}
        lags_s = [seen.lag_us / MICROS for seen in observations if seen.lag_us is not None]
        self._journal.record(Counter(seen.outcome.value for seen in observations), lags_s)
        for seen in observations:
            source, collection = seen.source or "unknown", self._collection(seen.path)
            key = (source, collection, seen.outcome)
            alike[key] = alike.get(key, 0) + 1
            labels = {"source": source, "target": self._target, "collection": collection}
            if seen.lag_us is not None:
                self._telemetry.measure(metrics.LAG, seen.lag_us / MICROS, **labels)
            if seen.commit_time:
                age = (received_us - seen.commit_time) / MICROS
                self._telemetry.measure(metrics.RECORD_AGE, age, **labels)
            self._note(seen, labels)
        # A call to the library takes longer than deciding on a change: one for all that are alike.
        for (source, collection, outcome), amount in alike.items():
            self._telemetry.count(
                metrics.CHANGES,
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
        if seen.faults:
            self._note_faults(seen, labels)
        if seen.outcome is Outcome.VIOLATION:
            self._note_violation(seen, labels)
        elif seen.conflict is not None:
            self._note_conflict(seen, labels)
        if seen.outcome is Outcome.DEAD_LETTER:
            self._note_dead_letter(seen, labels)

    def _note_faults(self, seen: Observation, labels: dict[str, str]) -> None:
        """Counted always; a line a minute for each replica, because a changed secret makes very many."""
        self._telemetry.count(metrics.METADATA_FAULTS, len(seen.faults), **labels)
        left_out = self._journal.rarely(f"faults of {labels['source']}")
        if left_out is None:
            return
        log.warning(
            "the version in %s, changed at %s, is not believed and treated as absent: %s%s",
            seen.path,
            labels["source"],
            "; ".join(seen.faults),
            f" ({left_out:,} more changes with such a version since the last line)" if left_out else "",
            extra={"document": seen.path, "event": seen.message_id, **labels},
        )

    def _note_dead_letter(self, seen: Observation, labels: dict[str, str]) -> None:
        self._telemetry.count(metrics.DEAD_LETTERS, reason=seen.reason, target=self._target)
        log.error(
            "message %s%s went to the dead-letter topic as %s: %s: %s",
            seen.message_id,
            f" of {seen.path}" if seen.path else "",
            seen.letter,
            seen.reason,
            seen.text,
            extra={
                "document": seen.path,
                "event": seen.message_id,
                "reason": seen.reason,
                "dead_letter": seen.letter,
                **labels,
            },
        )

    def _note_violation(self, seen: Observation, labels: dict[str, str]) -> None:
        conflict = seen.conflict
        assert conflict is not None  # noqa: S101  a violation has both sides
        entry = f"{self._target}/{self._conflicts}/{conflict_id(conflict)}"
        written, stands = conflict.sides
        log.warning(
            "%s was %s at %s, but only %s may write it: reverted (%s); %s: %s",
            seen.path,
            "written" if written.body is not None and not written.version.deleted else "deleted",
            self._target,
            conflict.primary,
            _standing(stands, conflict.primary),
            "its body" if written.body is not None else "the log's entry",
            entry,
            extra={
                "document": seen.path,
                "event": seen.message_id,
                "conflict": conflict_id(conflict),
                **labels,
            },
        )

    def _note_conflict(self, seen: Observation, labels: dict[str, str]) -> None:
        conflict = seen.conflict
        assert conflict is not None  # noqa: S101  the caller looked
        winner = winner_of(conflict)
        side = "computed" if winner == "computed" else conflict.winner.version.origin
        self._telemetry.count(metrics.CONFLICTS, policy=conflict.policy, winner=side, **labels)
        log.log(
            logging.WARNING if conflict.failure else logging.INFO,
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


def _standing(state: State, primary: str) -> str:
    """What the primary has of a document, in words."""
    if state.body is not None:
        return f"to {primary}'s document"
    return f"{primary} deleted it" if state.version.dot else f"{primary} has no such document"
