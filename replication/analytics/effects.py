"""What taking and flushing analytics events yields: effects of `replication.effects`, and its own.

Every message ends in exactly one way, and is observed there: written, duplicate, throttled, dead-lettered, or
released to be received again. So `received` is the sum of the others once a worker has stopped.
"""

from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from typing import Any, NamedTuple

from replication.analytics.buffer import HeldEvent
from replication.effects import Acknowledge, BatchWrite, Observe, Pause, Postpone, PublishEach, Read
from replication.errors import EventError
from replication.ports import Received


class Rejected(NamedTuple):
    """A message that can never be stored, and why."""

    received: Received
    error: EventError


class Settle(NamedTuple):
    """These events leave the buffer: stored, or given up. Answered by `Settled`."""

    held: Sequence[HeldEvent]
    stored: bool


class Refusal(NamedTuple):
    """An event that the database will never take, still in the buffer."""

    held: HeldEvent
    error: EventError


class Part(NamedTuple):
    """Independent steps, and the events that they finish; they return those that the database refuses.

    A driver that cannot go on with the steps closes them, and releases those of the events that are still in
    the buffer.
    """

    steps: "Generator[Effect, Any, list[Refusal]]"
    held: Sequence[HeldEvent]


class SideBySide(NamedTuple):
    """Go through the steps of these parts in any order or at once; answered when all have ended.

    The answer has what each returned, in their order; nothing for one that did not come to its end.
    """

    parts: Iterable[Part]


class Taken(NamedTuple):
    """Messages of one pull, by event type; and how many were for another replica."""

    received: Counter[str]
    duplicates: Counter[str]
    throttled: Counter[str]
    foreign: int


class CheckFailed(NamedTuple):
    """A fault of this program kept a message from being checked; it is released."""

    message_id: str
    error: Exception


class Stored(NamedTuple):
    """Events that are durable, by event type, and what they cost.

    `duplicates` are copies that were acknowledged with them, and events that were stored before.
    """

    written: Counter[str]
    duplicates: Counter[str]
    documents: int
    messages: int


class DeadLettered(NamedTuple):
    """Messages that the dead-letter topic has, by reason and event type; one of them as an example."""

    amounts: Counter[tuple[str, str]]
    example: Rejected


class LetterRefused(NamedTuple):
    """The dead-letter topic will never take a message; it is released."""

    message_id: str
    error: Exception


class CopyRefused(NamedTuple):
    """The warehouse's topic will never take a copy; it is left out."""

    error: Exception


Observation = Taken | CheckFailed | Stored | DeadLettered | LetterRefused | CopyRefused
Effect = (
    Read
    | BatchWrite
    | PublishEach
    | Acknowledge
    | Postpone
    | Pause
    | Observe[Observation]
    | Settle
    | SideBySide
)
Steps = Generator[Effect, Any, None]
