"""What can become of a change, and what a conflict was."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from conflict.version import Version


class Outcome(StrEnum):
    """What became of one change; the `outcome` of the metric `firefleet.changes`."""

    APPLIED = "applied"
    STALE = "stale"
    DUPLICATE = "duplicate"
    ECHO = "echo"
    CONFLICT = "conflict"
    VIOLATION = "violation"
    DEAD_LETTER = "dead_letter"


class ConflictKind(StrEnum):
    """Why the conflict log has an entry; its `kind` there."""

    CONFLICT = "conflict"
    VIOLATION = "violation"


class State(NamedTuple):
    """A document at one replica: its version and, unless it is deleted, its body."""

    version: Version
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Conflict:
    """A conflict, or a violation, and how it was decided; what the conflict log keeps.

    `winner` is the state that stays; for a computed body it is neither side. `primary` is the replica that may
    write, where the other may not: of a violation.
    """

    path: str
    kind: ConflictKind
    sides: tuple[State, State]
    winner: State
    policy: str
    failure: str | None = None
    primary: str = ""
