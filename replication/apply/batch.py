"""Apply a batch of messages at one replica: the whole path, as a generator of effects.

    sort -> read -> plan -> conflict log, write, messages to others, acknowledge
             ^                     |
             └── condition failed, or outcome unknown: read and decide again

Order of effects: conflict record, then the write, then messages to others, then the acknowledgement. Each is
idempotent, so a crash between any two repeats from the start.
"""

from collections.abc import Generator, Sequence
from typing import Any

from replication.apply.effects import Effect, Steps
from replication.apply.finish import Decided, finish, send_to_dead_letters
from replication.apply.outcomes import State
from replication.apply.plan import Local, plan
from replication.apply.sorting import Sorted, Waiting, sort_batch
from replication.apply.store import Results, log_conflicts, store
from replication.apply.writes import writes_of
from replication.documents.stored import Tombstone, dismantle, read_tombstone
from replication.effects import Acknowledge, Pause, Postpone, Publish, Read, Reading, patiently
from replication.errors import Transient
from replication.fleet.model import Fleet, Replica, Target
from replication.ports import Found, Received

ROUNDS_UNPAUSED = 3
"""A lost race is decided again at once this often; a document that stays hot then has to wait."""
PRIMARY_ATTEMPTS_MAX = 5
POSTPONED_S = 300
"""A violation whose primary cannot be read waits outside the worker and delays no others: at this pace
Pub/Sub's 100 delivery attempts last eight hours."""


def apply(batch: Sequence[Received], target: Target) -> Steps:
    """Apply a batch of messages at the target; ends when each is applied, dead-lettered, or not for it.

    Never acknowledges before the outcome is durable. A violation whose primary cannot be read is postponed.
    Repeats for as long as the target's database takes; a driver that has to stop closes the generator, and
    releases what is not yet acknowledged.
    """
    found = sort_batch(batch, target)
    yield from send_to_dead_letters(found.refused, target)
    yield from _redirect(found)
    if found.skipped:
        yield Acknowledge(found.skipped)
    for seconds, held in found.held.items():
        yield Postpone([received.ack_id for received in held], seconds)
    yield from _rounds(list(found.documents.values()), target)
    for violated in found.by_primary():
        yield from _rounds(violated, target)


def _redirect(found: Sorted) -> Steps:
    if not found.redirected:
        return
    messages = [message for _, message in found.redirected if message is not None]
    if messages:
        yield from patiently(Publish(messages))
    yield Acknowledge([received.ack_id for received, _ in found.redirected])


def _rounds(waiting: list[Waiting], target: Target) -> Steps:
    """Read, decide and write, again and again, until nothing of these documents is left to do."""
    attempt = 0
    while waiting:
        results = Results()
        try:
            decided, read_at = yield from _decide(waiting, target)
        except Transient as error:
            attempt += 1
            if attempt > PRIMARY_ATTEMPTS_MAX:
                held = [arrival.received.ack_id for document in waiting for arrival in document.arrivals]
                yield Postpone(held, POSTPONED_S)
                return
            yield Pause(attempt, str(error))
            continue
        yield from _write(decided, read_at, results, target)
        yield from finish(decided, results, target)
        waiting = [document for document in waiting if document.arrivals]
        attempt = attempt + 1 if results.raced or results.unsure else 0
        if results.unsure or attempt > ROUNDS_UNPAUSED:
            yield Pause(attempt, next(iter(results.unsure.values()), "others keep writing the same document"))


def _write(decided: Sequence[Decided], read_at: float, results: Results, target: Target) -> Steps:
    logged = [(conflict, item.local.read_time) for item in decided for conflict in item.plan.conflicts]
    yield from log_conflicts(logged, target, results)
    units = [
        item.unit for item in decided if item.unit is not None and item.document.path not in results.refused
    ]
    yield from store(units, read_at, results)


def _decide(
    documents: Sequence[Waiting], target: Target
) -> Generator[Effect, Any, tuple[list[Decided], float]]:
    replica, fleet = target.replica, target.fleet
    reading: Reading = yield from patiently(Read(replica.id, [document.path for document in documents]))
    # A missing document has most likely never existed: a create assumes that, and its guard proves it.
    missing = [
        document.path
        for document, found in zip(documents, reading.found, strict=True)
        if document.deletes or (document.raced and found.document is None)
    ]
    tombstones = yield from _read_tombstones(missing, replica.id, fleet)
    primaries = yield from _read_primaries(documents, fleet)
    decided = []
    for document, found in zip(documents, reading.found, strict=True):
        local = _local(found, tombstones.get(document.path), replica, fleet)
        decision = plan(
            [arrival.change for arrival in document.due],
            local,
            replica=replica.id,
            rule=document.rule,
            codec=fleet.codec,
            primary=primaries.get(document.path),
        )
        decided.append(Decided(document, local, decision, writes_of(decision, local, target)))
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
        path: read_tombstone(found.document, path=path, codec=fleet.codec)
        for path, found in zip(paths, reading.found, strict=True)
    }


def _local(found: Found, tombstone: Tombstone | None, replica: Replica, fleet: Fleet) -> Local:
    snapshot = None
    if found.document is not None:
        snapshot = dismantle(found.document, path=found.path, prefix=replica.prefix, codec=fleet.codec)
    return Local(found.path, snapshot, tombstone, found.read_time)


def _read_primaries(documents: Sequence[Waiting], fleet: Fleet) -> Generator[Effect, Any, dict[str, State]]:
    """The primary's states of what was written elsewhere; read after the local ones, so never older.

    Raises `Transient` when the primary cannot be read.
    """
    paths = [document.path for document in documents if document.violated]
    if not paths:
        return {}
    primary = next(document.primary for document in documents if document.violated)
    reading: Reading = yield Read(primary, paths)
    tombstones = {}
    if missing := [found.path for found in reading.found if found.document is None]:
        deleted: Reading = yield Read(primary, [fleet.codec.tombstone_path(path) for path in missing])
        tombstones = _tombstones(missing, deleted, fleet)
    states: dict[str, State] = {}
    for found in reading.found:
        local = _local(found, tombstones.get(found.path), fleet.replica(primary), fleet)
        if (state := local.state(primary)) is not None:
            states[found.path] = state
    return states
