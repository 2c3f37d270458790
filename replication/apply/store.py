"""Carry out the writes of one round in few requests, and say what became of each document.

Overwrites go in BatchWrites, where each document has its own outcome. Creates and deletes go in Commits with
their guards; one that fails is split until the documents that cannot be written stand alone, unless it rests on
tombstones that no one has looked at: then looking is cheaper. A request that Firestore refuses as a whole is
split in the same way.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from replication.apply.conflict_log import conflict_writes
from replication.apply.effects import Steps
from replication.apply.outcomes import Conflict
from replication.apply.writes import Unit
from replication.documents.requests import REQUEST_DOCUMENTS_MAX, chunks
from replication.effects import BatchWrite, Commit, Expired, Pause, patiently
from replication.errors import ConditionFailed, Refused, Transient
from replication.fleet.model import Target
from replication.ports import Status, Written

COMMIT_DOCUMENTS_MAX = 50
"""A Commit fails as a whole and is then split: a large one costs more to split than it saves."""


@dataclass(slots=True)
class Results:
    """What became of the documents of one round, by path.

    `written` has commit times in microseconds. `raced`: a condition failed. `unsure`: the outcome is unknown,
    or the database cannot take it now. `refused`: it never will; the text says why.
    """

    written: dict[str, int] = field(default_factory=dict)
    raced: set[str] = field(default_factory=set)
    unsure: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def store(units: Sequence[Unit], read_at: float, results: Results) -> Steps:
    """Write the documents decided on by the read at `read_at`, conditionally."""
    overwrites = [unit for unit in units if unit.alone]
    guarded = [unit for unit in units if not unit.alone]
    for chunk in chunks(overwrites, REQUEST_DOCUMENTS_MAX):
        yield from _overwrite(chunk, read_at, results)
    for chunk in chunks(guarded, COMMIT_DOCUMENTS_MAX):
        yield from _commit(chunk, read_at, results)


def _overwrite(units: list[Unit], read_at: float, results: Results) -> Steps:
    try:
        written = yield BatchWrite([unit.writes[0] for unit in units], read_at)
    except (Transient, Expired, Refused) as error:
        yield from _failed(units, error, results, again=lambda part: _overwrite(part, read_at, results))
        return
    for unit, result in zip(units, written, strict=True):
        _record(unit.path, result, results)


def _record(path: str, result: Written, results: Results) -> None:
    match result.code:
        case Status.OK:
            results.written[path] = result.commit_time
        case Status.NOT_FOUND | Status.ALREADY_EXISTS | Status.FAILED_PRECONDITION:
            results.raced.add(path)
        case Status.INVALID_ARGUMENT:
            results.refused[path] = result.text
        case _:
            results.unsure[path] = f"status {result.code}: {result.text}"


def _commit(units: list[Unit], read_at: float, results: Results) -> Steps:
    try:
        time = yield Commit([write for unit in units for write in unit.writes], read_at)
    except (Transient, Expired, Refused, ConditionFailed) as error:
        yield from _failed(units, error, results, again=lambda part: _commit(part, read_at, results))
        return
    results.written.update((unit.path, time) for unit in units)


def _failed(
    units: list[Unit],
    error: Transient | Expired | Refused | ConditionFailed,
    results: Results,
    *,
    again: Callable[[list[Unit]], Steps],
) -> Steps:
    if isinstance(error, Transient):
        results.unsure.update((unit.path, str(error)) for unit in units)
    elif isinstance(error, Expired) or _assumed_no_tombstone(units, error):
        results.raced.update(unit.path for unit in units)
    elif len(units) > 1:
        middle = len(units) // 2
        yield from again(units[:middle])
        yield from again(units[middle:])
    elif isinstance(error, Refused):
        results.refused[units[0].path] = str(error)
    else:
        results.raced.add(units[0].path)


def _assumed_no_tombstone(units: list[Unit], error: Exception) -> bool:
    return isinstance(error, ConditionFailed) and any(unit.assumes_no_tombstone for unit in units)


def log_conflicts(conflicts: Iterable[tuple[Conflict, int]], target: Target, results: Results) -> Steps:
    """Write the records of a round's conflicts, before its writes; each with the time (µs) of its read.

    A document whose record is refused is refused too: its loser must not be overwritten without a trace.
    """
    fleet = target.fleet
    # By name, because two changes in one batch may be the same conflict, and Firestore takes no document
    # twice in one request.
    units = {
        write.update.name: Unit(conflict.path, (write,), write.ByteSize())
        for conflict, time in conflicts
        for write in conflict_writes(
            conflict,
            time=time,
            expire_at=time + fleet.conflict_retention_us,
            prefix=target.replica.prefix,
            codec=fleet.codec,
        )
    }
    for chunk in chunks(units.values(), REQUEST_DOCUMENTS_MAX):
        yield from _log(chunk, results)


def _log(units: list[Unit], results: Results) -> Steps:
    attempt = 0
    while units:
        try:
            written = yield from patiently(BatchWrite([unit.writes[0] for unit in units], None))
        except Refused as error:
            yield from _failed(units, error, results, again=lambda part: _log(part, results))
            return
        left: list[Unit] = []
        for unit, result in zip(units, written, strict=True):
            if result.code == Status.INVALID_ARGUMENT:
                results.refused[unit.path] = f"its conflict record: {result.text}"
            elif result.code != Status.OK:
                left.append(unit)
                cause = result.text
        units = left
        if units:
            attempt += 1
            yield Pause(attempt, f"the conflict log: {cause}")
