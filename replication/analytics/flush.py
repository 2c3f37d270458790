"""Store what the buffer held: documents, then the warehouse's copies, then acknowledgements.

    held ── pack ── requests ─┬─ write ── copies to the warehouse ── settle, acknowledge
                              ├─ write …                                                   side by side
                              └─ refused: halved until the event at fault stands alone
                                 └────────────────────────────────────────────────────────> dead letters, last

Each step is idempotent and the order is fixed, so a crash between any two repeats from the start: a document's
name follows from its events, and a copy that is published twice has the same key. A write whose outcome is
unknown is tried again; if its document is there then, the flush's own name in it shows whether it is ours.
"""

from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from replication.analytics.buffer import HeldEvent, Settled
from replication.analytics.dead_letters import dead_letter_all
from replication.analytics.effects import (
    CopyRefused,
    Effect,
    Part,
    Refusal,
    Rejected,
    Settle,
    SideBySide,
    Steps,
    Stored,
)
from replication.analytics.job import Job
from replication.analytics.packing import BATCH, Output, PackedUnit, pack, single
from replication.documents.requests import chunks
from replication.effects import Acknowledge, BatchWrite, Observe, Pause, Postpone, PublishEach, Read, Reading
from replication.errors import EventError, Reason, Refused, Transient
from replication.ports import Message, Status, Written


def flush(held: Sequence[HeldEvent], job: Job, output: Output) -> Steps:
    """Store these events, which were taken from the buffer; ends when all have left it.

    Never acknowledges before an event is durable. Repeats for as long as the database takes; a driver that has
    to stop closes the steps, and releases what is still in the buffer.
    """
    units, refused = _units(held, job, output)
    parts = (
        Part(_store(request, job, output), [event for unit in request for event in unit.members])
        for request in chunks(units, output.documents_max)
    )
    returned: list[list[Refusal]] = yield SideBySide(parts)
    # Last, so that they do not delay the others.
    yield from _give_up([*refused, *(item for part in returned for item in part)], job)


def _units(held: Sequence[HeldEvent], job: Job, output: Output) -> tuple[Iterable[PackedUnit], list[Refusal]]:
    if job.settings.layout == "packed":
        return pack(held, output), []
    units: list[PackedUnit] = []
    refused: list[Refusal] = []
    for event in held:
        try:
            units.append(single(event, output))
        except EventError as error:
            refused.append(Refusal(event, error))
    return units, refused


def _give_up(refused: Sequence[Refusal], job: Job) -> Steps:
    """Dead-letter events that can never be stored; their copies are released, to get their own try."""
    if not refused:
        return
    yield from dead_letter_all([Rejected(item.held.received, item.error) for item in refused], job)
    settled: Settled = yield Settle([item.held for item in refused], stored=False)
    if settled.copies:
        yield Postpone(settled.copies, 0)


@dataclass(slots=True)
class _Request:
    """One request's documents, by path, until each is stored or refused.

    `unsure`: a write of the document may have landed. `refused`: events that the database will never take.
    `failure`: why some of the last round's documents are not written yet.
    """

    waiting: dict[str, PackedUnit]
    unsure: set[str] = field(default_factory=set)
    refused: list[Refusal] = field(default_factory=list)
    failure: str = ""


def _store(units: Sequence[PackedUnit], job: Job, output: Output) -> Generator[Effect, Any, list[Refusal]]:
    """Write these documents, however long it takes; returns the events that the database refuses."""
    request = _Request({unit.path: unit for unit in units})
    attempt = 0
    while request.waiting:
        request.failure = ""
        try:
            yield from _write(list(request.waiting.values()), request, job, output)
        except Transient as error:
            # Whatever had no answer yet may have landed.
            request.unsure.update(request.waiting)
            request.failure = str(error)
        if request.failure:
            attempt += 1
            yield Pause(attempt, request.failure)
    return request.refused


def _write(units: Sequence[PackedUnit], request: _Request, job: Job, output: Output) -> Steps:
    """Write, halving what the database refuses as a whole until the document at fault stands alone."""
    try:
        outcomes = yield BatchWrite([unit.write for unit in units], None)
    except Refused as error:
        if len(units) > 1:
            middle = len(units) // 2
            yield from _write(units[:middle], request, job, output)
            yield from _write(units[middle:], request, job, output)
            return
        outcomes = [Written(Status.INVALID_ARGUMENT, 0, str(error))]
    yield from _record(units, outcomes, request, job, output)


def _record(
    units: Sequence[PackedUnit], outcomes: Sequence[Written], request: _Request, job: Job, output: Output
) -> Steps:
    written: list[PackedUnit] = []
    present: list[PackedUnit] = []
    for unit, outcome in zip(units, outcomes, strict=True):
        match outcome.code:
            case Status.OK:
                written.append(unit)
            case Status.ALREADY_EXISTS:
                present.append(unit)
            case Status.INVALID_ARGUMENT:
                _refuse(unit, outcome.text, request, output)
            case _:
                request.unsure.add(unit.path)
                request.failure = "the database cannot take some of the documents now"
    ours = yield from _written_before(
        [unit.path for unit in present if unit.path in request.unsure], job, output
    )
    written += [unit for unit in present if unit.path in ours]
    yield from _settle(written, [unit for unit in present if unit.path not in ours], request, job)


def _written_before(paths: list[str], job: Job, output: Output) -> Generator[Effect, Any, set[str]]:
    """Which of these documents an earlier try of this very flush has written."""
    if not paths:
        return set()
    reading: Reading = yield Read(job.replica, paths)
    return {
        found.path
        for found in reading.found
        if found.document is not None and found.document.fields[BATCH].string_value == output.batch
    }


def _refuse(unit: PackedUnit, text: str, request: _Request, output: Output) -> None:
    """Put smaller documents in the place of one that the database refuses, or give its only event up."""
    del request.waiting[unit.path]
    if len(unit.members) == 1:
        error = EventError(Reason.INVALID, f"the database refuses the event: {text}")
        request.refused.append(Refusal(unit.members[0], error))
        return
    middle = len(unit.members) // 2
    for half in (unit.members[:middle], unit.members[middle:]):
        request.waiting.update((smaller.path, smaller) for smaller in pack(half, output))


def _settle(written: Sequence[PackedUnit], present: Sequence[PackedUnit], request: _Request, job: Job) -> Steps:
    """These are durable, by this flush or by an earlier one: pass them on, then acknowledge."""
    units = [*written, *present]
    if not units:
        return
    members = [held for unit in units for held in unit.members]
    yield from _pass_on(members, job)
    settled: Settled = yield Settle(members, stored=True)
    for unit in units:
        del request.waiting[unit.path]
    ack_ids = settled.own + settled.copies
    yield Acknowledge(ack_ids)
    duplicates = settled.counts + Counter(held.event.type for unit in present for held in unit.members)
    types = Counter(held.event.type for unit in written for held in unit.members)
    yield Observe([Stored(types, duplicates, len(units), len(ack_ids))])


def _pass_on(held: Sequence[HeldEvent], job: Job) -> Steps:
    """Publish the warehouse's copies, trying until Pub/Sub has them all."""
    if job.anonymiser is None:
        return
    messages: list[Message] = [job.anonymiser.copy(event) for event in held]
    attempt = 0
    while messages:
        outcomes = yield PublishEach(messages)
        refused = [CopyRefused(outcome) for outcome in outcomes if isinstance(outcome, Refused)]
        if refused:
            yield Observe(refused)
        messages = [
            message
            for message, outcome in zip(messages, outcomes, strict=True)
            if isinstance(outcome, Transient)
        ]
        if messages:
            attempt += 1
            yield Pause(attempt, next(str(outcome) for outcome in outcomes if isinstance(outcome, Transient)))
