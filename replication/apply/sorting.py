"""A batch of messages, sorted by what has to be done with each before anything is read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, assert_never

from replication.apply.admission import Admit, Applicant, Hold, Redirect, Refuse, admit
from replication.changes.dead_letters import path_named
from replication.changes.decode import Change, decode
from replication.changes.envelope import Kind
from replication.errors import EventError
from replication.fleet.addressing import addressed
from replication.fleet.model import Rule, Target
from replication.ports import Message, Received


class Refusal(NamedTuple):
    """A message that can never be applied; `path` is the document's, where it is known."""

    received: Received
    error: EventError
    path: str


class Arrival(NamedTuple):
    """A change and the delivery that brought it."""

    received: Received
    change: Change


@dataclass(slots=True)
class Waiting:
    """A document with changes still to be applied, and its rule, looked up once.

    `violated`: they are violations, all of them. `deletes`: they may delete it. `alone`: they are applied one
    at a time, because all together were refused. `unsure`: a write of it may have landed. `raced`: a write of
    it failed its condition.
    """

    path: str
    rule: Rule
    arrivals: list[Arrival] = field(default_factory=list)
    violated: bool = False
    deletes: bool = False
    alone: bool = False
    unsure: bool = False
    raced: bool = False

    @property
    def due(self) -> list[Arrival]:
        """The changes that the next round decides."""
        return self.arrivals[:1] if self.alone else self.arrivals

    @property
    def primary(self) -> str:
        """The replica whose state overrules a violation."""
        assert self.rule.primary is not None  # noqa: S101  only a single-primary collection has violations
        return self.rule.primary


@dataclass(slots=True)
class Sorted:
    """A batch, by what has to be done with each message."""

    documents: dict[str, Waiting] = field(default_factory=dict)
    violated: dict[str, Waiting] = field(default_factory=dict)
    refused: list[Refusal] = field(default_factory=list)
    redirected: list[tuple[Received, Message | None]] = field(default_factory=list)
    held: dict[int, list[Received]] = field(default_factory=dict)
    """By the seconds to wait."""
    skipped: list[str] = field(default_factory=list)
    """Acknowledgement ids of what is not for this replica."""

    def by_primary(self) -> Iterator[list[Waiting]]:
        """The violated documents of each primary: one that is down must not delay anything else."""
        groups: dict[str, list[Waiting]] = {}
        for document in self.violated.values():
            groups.setdefault(document.primary, []).append(document)
        yield from groups.values()


def sort_batch(batch: Sequence[Received], target: Target) -> Sorted:
    """Decode each message, ask the gate, and group what is admitted by document."""
    found = Sorted()
    for received in batch:
        if not addressed(received.message.attributes, target.replica.id):
            found.skipped.append(received.ack_id)
            continue
        try:
            change = decode(received.message, target.fleet)
        except EventError as error:
            found.refused.append(Refusal(received, error, path_named(received.message.attributes)))
            continue
        _place(received, change, found, target)
    return found


def _place(received: Received, change: Change, found: Sorted, target: Target) -> None:
    violates = change.kind is Kind.VIOLATION
    documents = found.violated if violates else found.documents
    document = documents.get(change.path)
    rule = target.fleet.rule_for(change.path) if document is None else document.rule
    verdict = admit(Applicant(received.message, change, rule), target.fleet)
    match verdict:
        case Admit():
            if document is None:
                document = documents[change.path] = Waiting(change.path, rule, violated=violates)
            # What reverts a violation is the primary's state, and that may be a delete.
            document.deletes |= violates or change.version.deleted
            document.arrivals.append(Arrival(received, change))
        case Refuse(error):
            found.refused.append(Refusal(received, error, change.path))
        case Redirect(message):
            found.redirected.append((received, message))
        case Hold(seconds):
            found.held.setdefault(seconds, []).append(received)
        case _:
            assert_never(verdict)
