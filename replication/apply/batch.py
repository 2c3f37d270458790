"""Apply a batch of messages at one replica: the whole path, as a generator of effects.

    decode -> group by document -> read -> plan -> conflict log, write, messages to others, acknowledge
                                     ^                     |
                                     └── condition failed, or outcome unknown: read and decide again

Order of effects: conflict record, then the write, then messages to others, then the acknowledgement. Each is
idempotent, so a crash between any two repeats from the start.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, assert_never

from replication.apply.effects import (
    Acknowledge,
    Effect,
    Observation,
    Observe,
    Pause,
    Postpone,
    Publish,
    Read,
    Reading,
    Steps,
    patiently,
)
from replication.apply.plan import Local, Outcome, Plan, State, plan
from replication.apply.store import Results, log_conflicts, store
from replication.apply.writes import Target, Unit, push_back, writes_of
from replication.changes.dead_letters import dead_letter, letter_id, path_named
from replication.changes.events import Change, Kind, decode
from replication.configuration.parse import Fleet, Mode, Replica
from replication.documents.stored import Tombstone, take_snapshot, take_tombstone
from replication.documents.wire import DOCUMENT_BYTES_MAX
from replication.errors import EventError, Reason, Transient
from replication.ports import Found, Message, Received

ROUNDS_UNPAUSED = 3
"""A lost race is decided again at once this often; a document that stays hot is then left to cool."""
PRIMARY_ATTEMPTS_MAX = 5
POSTPONED_S = 300
"""A violation whose primary cannot be read waits outside the worker, not in others' way: at this pace Pub/Sub's
100 delivery attempts last eight hours."""
TOO_LARGE_BYTES = DOCUMENT_BYTES_MAX - 64 * 1024
"""A refused write this large was refused for its size: Firestore counts somewhat otherwise than protobuf."""


class _Item(NamedTuple):
    received: Received
    change: Change


@dataclass(slots=True)
class _Document:
    """A document with changes still to be applied.

    `violated`: they are violations, all of them. `deletes`: they may delete it. `alone`: they are applied one
    at a time, because all together were refused. `unsure`: a write of it may have landed. `raced`: a write of
    it failed its condition.
    """

    path: str
    items: list[_Item]
    violated: bool = False
    deletes: bool = False
    alone: bool = False
    unsure: bool = False
    raced: bool = False

    @property
    def due(self) -> list[_Item]:
        return self.items[:1] if self.alone else self.items


class _Dead(NamedTuple):
    """A message that can never be applied; `path` is the document's, where it is known."""

    received: Received
    error: EventError
    path: str


class _Decided(NamedTuple):
    document: _Document
    local: Local
    plan: Plan
    unit: Unit | None


@dataclass(slots=True)
class _Sorted:
    """A batch, by what has to be done with each message."""

    documents: dict[str, _Document]
    violated: dict[str, dict[str, _Document]]
    """By primary: they need its database, and one that is down must hold up nothing else."""
    dead: list["_Dead"]
    misplaced: list[tuple[Received, Change]]
    skipped: list[str]


def apply(batch: Sequence[Received], target: Target) -> Steps:
    """Apply a batch of messages at the target; ends when each is applied, dead-lettered, or not for it.

    Never acknowledges before the outcome is durable. A violation whose primary cannot be read is postponed.
    Repeats for as long as the target's database takes; a driver that has to stop closes the generator, and
    releases what is not yet acknowledged.
    """
    todo = _sort(batch, target)
    yield from _bury(todo.dead, target)
    yield from _forward(todo.misplaced, target)
    if todo.skipped:
        yield Acknowledge(todo.skipped)
    yield from _settle(list(todo.documents.values()), target)
    for violated in todo.violated.values():
        yield from _settle(list(violated.values()), target)


def _settle(waiting: list[_Document], target: Target) -> Steps:
    """Rounds of reading, deciding and writing, until nothing of these documents is left to do."""
    attempt = 0
    while waiting:
        results = Results()
        try:
            decided, read_at = yield from _decide(waiting, target)
        except Transient as error:
            attempt += 1
            if attempt > PRIMARY_ATTEMPTS_MAX:
                yield Postpone(
                    [item.received.ack_id for document in waiting for item in document.items], POSTPONED_S
                )
                return
            yield Pause(attempt, str(error))
            continue
        yield from _write(decided, read_at, results, target)
        yield from _finish(decided, results, target)
        waiting = [document for document in waiting if document.items]
        attempt = attempt + 1 if results.lost or results.unsure else 0
        if results.unsure or attempt > ROUNDS_UNPAUSED:
            yield Pause(attempt, next(iter(results.unsure.values()), "others keep writing the same document"))


def _write(decided: Sequence[_Decided], read_at: float, results: Results, target: Target) -> Steps:
    logged = [(conflict, item.local.read_time) for item in decided for conflict in item.plan.conflicts]
    yield from log_conflicts(logged, target, results)
    units = [
        item.unit for item in decided if item.unit is not None and item.document.path not in results.refused
    ]
    yield from store(units, read_at, results)


def addressed(attributes: Mapping[str, str], replica: str) -> bool:
    """Whether a message is for a replica: what its subscription's filter says, which emulators ignore."""
    receiver = attributes.get("to")
    if receiver is not None:
        return receiver == replica
    return attributes.get("replica") != replica or attributes.get("heal") == "1"


def _sort(batch: Sequence[Received], target: Target) -> _Sorted:
    todo = _Sorted({}, {}, [], [], [])
    for received in batch:
        if not addressed(received.message.attributes, target.replica.id):
            todo.skipped.append(received.ack_id)
            continue
        try:
            change = decode(received.message, target.fleet)
            misplaced = _is_misplaced(change, target.fleet)
        except EventError as error:
            todo.dead.append(_Dead(received, error, path_named(received.message.attributes)))
            continue
        if misplaced:
            todo.misplaced.append((received, change))
            continue
        documents, violated = todo.documents, change.kind is Kind.VIOLATION
        if violated:
            documents = todo.violated.setdefault(_primary(change.path, target.fleet), {})
        document = documents.get(change.path)
        if document is None:
            document = documents[change.path] = _Document(change.path, [], violated)
        # What undoes a violation is the primary's state, and that may be a delete.
        document.deletes |= violated or change.version.deleted
        document.items.append(_Item(received, change))
    return todo


def _primary(path: str, fleet: Fleet) -> str:
    primary = fleet.rule_for(path).primary
    assert primary is not None  # noqa: S101  only a single-primary collection has violations
    return primary


def _is_misplaced(change: Change, fleet: Fleet) -> bool:
    """Whether a change was published by a capture whose config gave its collection another mode."""
    rule = fleet.rule_for(change.path)
    match rule.mode:
        case Mode.LOCAL:
            raise EventError(
                Reason.LOCAL_COLLECTION,
                f"{change.path!r} of {change.source!r} is in a local collection, which never leaves its "
                "replica: give capture and the workers the same config",
            )
        case Mode.SINGLE_PRIMARY:
            violates = change.source != rule.primary
            return violates is not (change.kind is Kind.VIOLATION)
        case Mode.MULTI_PRIMARY:
            return change.kind is Kind.VIOLATION
        case _:
            assert_never(rule.mode)


def _bury(dead: Sequence[_Dead], target: Target) -> Steps:
    if not dead:
        return
    replica = target.replica.id
    letters = [dead_letter(one.received, one.error, replica, path=one.path) for one in dead]
    yield from patiently(Publish(letters, dead_letters=True))
    yield Observe(
        [
            Observation(
                Outcome.DEAD_LETTER,
                one.received.id,
                _known(one.received.message.attributes.get("replica", ""), target.fleet),
                one.path,
                reason=one.error.reason,
                text=str(one.error),
                letter=letter_id(one.received, replica),
            )
            for one in dead
        ]
    )
    yield Acknowledge([one.received.ack_id for one in dead])


def _known(replica: str, fleet: Fleet) -> str:
    """A replica's id for the metrics; empty for one that somebody made up, else there were no end of them."""
    return replica if replica in fleet.replicas else ""


def _forward(misplaced: Sequence[tuple[Received, Change]], target: Target) -> Steps:
    """Publish anew, as what it is under this config, what a capture with another config has published."""
    if not misplaced:
        return
    messages = [
        _renamed(received.message, change, target.fleet)
        for received, change in misplaced
        # A merge is this system's own: the primary's state overrules it without being told.
        if change.kind is not Kind.MERGED
    ]
    if messages:
        yield from patiently(Publish(messages))
    yield Acknowledge([received.ack_id for received, _ in misplaced])


def _renamed(message: Message, change: Change, fleet: Fleet) -> Message:
    attributes = {name: text for name, text in message.attributes.items() if name not in ("heal", "to")}
    if fleet.rule_for(change.path).mode is Mode.SINGLE_PRIMARY:
        attributes |= {"kind": Kind.VIOLATION, "to": change.source}
    else:
        attributes |= {"kind": Kind.DELETE if change.version.deleted else Kind.WRITE, "heal": "1"}
    return Message(message.data, attributes)


def _decide(
    documents: Sequence[_Document], target: Target
) -> Generator[Effect, Any, tuple[list[_Decided], float]]:
    replica, fleet = target.replica, target.fleet
    paths = [document.path for document in documents]
    reading: Reading = yield from patiently(Read(replica.id, paths))
    # What is not there has most likely never been: a create takes that for granted, and its guard proves it.
    buried = [
        document.path
        for document, found in zip(documents, reading.found, strict=True)
        if document.deletes or (document.raced and found.document is None)
    ]
    tombstones = yield from _read_tombstones(buried, replica.id, fleet)
    primaries = yield from _read_primaries(documents, fleet)
    decided = []
    for document, found in zip(documents, reading.found, strict=True):
        local = _local(found, tombstones.get(document.path), replica, fleet)
        decision = plan(
            [item.change for item in document.due],
            local,
            replica=replica.id,
            rule=fleet.rule_for(document.path),
            codec=fleet.codec,
            primary=primaries.get(document.path),
        )
        decided.append(_Decided(document, local, decision, writes_of(decision, local, target)))
    return decided, reading.at


def _read_tombstones(
    paths: Sequence[str], replica: str, fleet: Fleet
) -> Generator[Effect, Any, dict[str, Tombstone]]:
    if not paths:
        return {}
    reading: Reading = yield from patiently(Read(replica, [fleet.codec.tombstone_path(path) for path in paths]))
    return _tombstones(paths, reading, fleet)


def _tombstones(paths: Sequence[str], reading: Reading, fleet: Fleet) -> dict[str, Tombstone]:
    return {
        path: take_tombstone(found.document, path=path, codec=fleet.codec)
        for path, found in zip(paths, reading.found, strict=True)
    }


def _local(found: Found, tombstone: Tombstone | None, replica: Replica, fleet: Fleet) -> Local:
    snapshot = None
    if found.document is not None:
        snapshot = take_snapshot(found.document, path=found.path, prefix=replica.prefix, codec=fleet.codec)
    return Local(found.path, snapshot, tombstone, found.read_time)


def _read_primaries(documents: Sequence[_Document], fleet: Fleet) -> Generator[Effect, Any, dict[str, State]]:
    """The primary's states of what was written elsewhere; read after the local ones, so never older.

    Raises `Transient` when the primary cannot be read.
    """
    paths = [document.path for document in documents if document.violated]
    if not paths:
        return {}
    primary = _primary(paths[0], fleet)
    reading: Reading = yield Read(primary, paths)
    tombstones = {}
    if buried := [found.path for found in reading.found if found.document is None]:
        graves: Reading = yield Read(primary, [fleet.codec.tombstone_path(path) for path in buried])
        tombstones = _tombstones(buried, graves, fleet)
    states: dict[str, State] = {}
    for found in reading.found:
        local = _local(found, tombstones.get(found.path), fleet.replica(primary), fleet)
        if (state := local.state(primary)) is not None:
            states[found.path] = state
    return states


def _finish(decided: Sequence[_Decided], results: Results, target: Target) -> Steps:
    """Settle what has a durable outcome; leave the rest to the next round."""
    messages: list[Message] = []
    observations: list[Observation] = []
    ack_ids: list[str] = []
    dead: list[_Dead] = []
    for item in decided:
        document = item.document
        if document.path in results.refused:
            dead += _refuse(item, results.refused[document.path], target)
        elif document.path in results.unsure:
            document.unsure = True
        elif document.path in results.lost:
            document.raced = True
        else:
            commit_time = results.written.get(document.path)
            if item.plan.behind:
                messages += _push_backs(item, commit_time, target)
            observations += _observe(item, commit_time)
            due = document.due
            ack_ids += [done.received.ack_id for done in due]
            document.items = document.items[len(due) :]
    if messages:
        yield from patiently(Publish(messages))
    if ack_ids:
        yield Observe(observations)
        yield Acknowledge(ack_ids)
    yield from _bury(dead, target)


def _refuse(item: _Decided, text: str, target: Target) -> list[_Dead]:
    document = item.document
    if len(document.due) > 1:
        # One of several changes is at fault: apply them one at a time, so that the others land.
        document.alone = True
        return []
    large = item.unit is not None and item.unit.bytes > TOO_LARGE_BYTES
    error = EventError(
        Reason.TOO_LARGE if large else Reason.INVALID,
        f"{document.path!r} cannot be written at {target.replica.id!r}"
        f"{f' (about {item.unit.bytes} bytes with its metadata)' if item.unit else ''}: {text}",
    )
    received = document.items.pop(0).received
    return [_Dead(received, error, document.path)]


def _push_backs(item: _Decided, commit_time: int | None, target: Target) -> list[Message]:
    local = item.local
    stands = commit_time or local.update_time or (local.tombstone.update_time if local.tombstone else 0)
    return [
        push_back(item.plan, local, target, receiver=receiver, commit_time=stands)
        for receiver in sorted(item.plan.behind)
    ]


def _observe(item: _Decided, commit_time: int | None) -> list[Observation]:
    local = item.local
    fault = (local.document.fault,) if local.document and local.document.fault else ()
    conflicts = iter(item.plan.conflicts)
    observations = []
    for done, outcome in zip(item.document.due, item.plan.outcomes, strict=True):
        change, landed = done.change, commit_time
        if item.document.unsure and outcome is Outcome.DUPLICATE:
            # An earlier write of unknown outcome had landed.
            outcome, landed = Outcome.APPLIED, landed or local.update_time  # noqa: PLW2901
        counts = outcome in (Outcome.APPLIED, Outcome.CONFLICT) and landed is not None
        observations.append(
            Observation(
                outcome,
                done.received.id,
                change.source,
                change.path,
                change.commit_time,
                lag_us=landed - change.commit_time if counts and landed else None,
                conflict=next(conflicts) if outcome in (Outcome.CONFLICT, Outcome.VIOLATION) else None,
                faults=change.faults + fault,
            )
        )
    return observations
