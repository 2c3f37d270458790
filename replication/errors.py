"""Everything that can go wrong, as one tree; the type decides what happens next.

    FirefleetError
    ├── ConfigError            the operator's file or arguments: exit 2
    ├── Interrupted            the operator stopped it: exit 130
    ├── EventError             this message can never be applied: dead-letter topic, with its `reason`
    ├── Transient              try again, later: back off, hold the messages, extend their deadlines
    ├── ConditionFailed        a write rested on a state that has changed since: read and decide again
    ├── Refused                the database will never take this write: bisect, then dead-letter
    └── CannotTell             the cloud does not answer this question: a finding of `firefleet check`
        └── NotOnEmulators     an emulator has nothing of the kind

A module whose errors no one else handles derives its own from these: `Expired` (`apply.effects`), `PackError`
(`analytics.packing`), `BodyTooLarge` and `BodyTooSlow` (`workers.runtime.serving`), `Missing` and `StartFailed`
(`workers.local.emulators`). A test holds this list against the code.

An error says what, where (replica, document, event or config key) and what to do about it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class FirefleetError(Exception):
    """The root: catch it to catch everything this project raises on purpose."""


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One mistake in a configuration file. `line` counts from 1, 0 for the file as a whole; `key` has dots."""

    file: str
    line: int
    key: str
    text: str

    def __str__(self) -> str:
        line = f":{self.line}" if self.line else ""
        key = f"{self.key}: " if self.key else ""
        return f"{self.file}{line}: {key}{self.text}"


class ConfigError(FirefleetError):
    """The configuration or the command line is wrong; the text names file, line or key, and the remedy."""

    def __init__(self, text: str, *, faults: tuple[Fault, ...] = ()) -> None:
        super().__init__(text)
        self.faults = faults

    @classmethod
    def of(cls, faults: Iterable[Fault]) -> Self:
        """One line of text for each fault, in the file's order."""
        ordered = tuple(sorted(faults))
        return cls("\n".join(map(str, ordered)), faults=ordered)


class Interrupted(FirefleetError):
    """The operator stopped the command; the text says what was already done."""


class Reason(StrEnum):
    """Why a message went to the dead-letter topic; the `reason` attribute there."""

    UNDECODABLE = "undecodable"
    MISSING_ATTRIBUTE = "missing_attribute"
    UNKNOWN_KIND = "unknown_kind"
    UNKNOWN_REPLICA = "unknown_replica"
    FOREIGN_DATABASE = "foreign_database"
    NOT_A_DOCUMENT = "not_a_document"
    INVALID_METADATA = "invalid_metadata"
    LOCAL_COLLECTION = "local_collection"
    TOO_LARGE = "too_large"
    INVALID = "invalid"
    UNKNOWN_TYPE = "unknown_type"
    UNKNOWN_REGION = "unknown_region"


class EventError(FirefleetError):
    """This event can never be applied; it goes to the dead-letter topic with its reason."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Transient(FirefleetError):
    """The database or Pub/Sub cannot answer now; whether a write landed is unknown."""


class ConditionFailed(FirefleetError):
    """A precondition of an atomic write did not hold; nothing of it was written."""


class Refused(FirefleetError):
    """The database will never accept this request as it is (invalid, or too large); nothing was written."""


class CannotTell(FirefleetError):
    """The backend does not answer this question, or not to these credentials."""


class NotOnEmulators(CannotTell):
    """An emulator has nothing of the kind."""
