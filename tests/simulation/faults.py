"""The deliberate faults: each leaves out or breaks one rule of the core, for as long as it is planted.

They replace functions of the core, here and nowhere else. A fault that makes the core raise proves nothing:
it must go on working, wrongly.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from unittest.mock import patch

from conflict.reconcile import Relation
from conflict.version import Version
from replication.apply.outcomes import Outcome, State
from replication.documents.metadata import MetadataCodec
from replication.documents.stored import Snapshot, Tombstone
from replication.effects import Acknowledge
from replication.errors import Transient
from replication.fleet.model import Mode
from tests.simulation.world import Clock

Plant = Callable[[], AbstractContextManager[None]]

# By name, because what is replaced is what each module itself looks up.
ADMISSION: Any = import_module("replication.apply.admission")
APPLY: Any = import_module("replication.apply.batch")
FINISH: Any = import_module("replication.apply.finish")
CAPTURE: Any = import_module("replication.changes.capture")
DECODE: Any = import_module("replication.changes.decode")
PLAN: Any = import_module("replication.apply.plan")
RECONCILE: Any = import_module("conflict.reconcile")
SNAPSHOT: Any = import_module("replication.documents.stored")
STORE: Any = import_module("replication.apply.store")
DRIVER: Any = import_module("replication.simulation.driver")
WORKER: Any = import_module("tests.simulation.worker")
WRITES: Any = import_module("replication.apply.writes")


# ── how to plant ──────────────────────────────────────────────────────────────────────────────────────────────


def _with(thing: Any, **changes: Any) -> Any:
    """`thing` with some fields changed, whatever kind of record it is."""
    return thing._replace(**changes) if hasattr(thing, "_replace") else dataclasses.replace(thing, **changes)


@contextmanager
def _planted(*replacements: tuple[Any, str, Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for owner, name, new in replacements:
            stack.enter_context(patch.object(owner, name, new))
        yield


def together(*plants: Plant) -> Plant:
    @contextmanager
    def all_of_them() -> Iterator[None]:
        with ExitStack() as stack:
            for plant in plants:
                stack.enter_context(plant())
            yield

    return all_of_them


# ── versions and their order ──────────────────────────────────────────────────────────────────────────────────


def raw_clock() -> AbstractContextManager[None]:
    written, deleted = DECODE.written, DECODE.deleted

    def raw_written(replica: str, time: int, digest: bytes, context: Version | None = None) -> Any:
        return _with(written(replica, time, digest, context), stamp=time)

    def raw_deleted(replica: str, last: int, time: int, context: Version | None = None) -> Any:
        return _with(deleted(replica, last, time, context), stamp=time)

    return _planted(
        (DECODE, "written", raw_written),
        (SNAPSHOT, "written", raw_written),
        (DECODE, "deleted", raw_deleted),
    )


def no_dot_in_the_order() -> AbstractContextManager[None]:
    return _planted(
        (Version, "order", property(lambda self: (self.stamp, self.origin))),
        (Version, "total", property(lambda self: (self.stamp, self.origin))),
    )


def no_order_for_equal_clocks() -> AbstractContextManager[None]:
    return _planted((RECONCILE, "_break_tie", lambda _incoming, _local: Relation.SAME))


def event_time_as_a_deletes_dot() -> AbstractContextManager[None]:
    deleted = DECODE.deleted

    def late(replica: str, last: int, time: int, context: Version | None = None) -> Any:
        version = deleted(replica, last, time, context)
        later = max(time + 2_000_000, version.dot)
        return _with(
            version, dot=later, clock={**version.clock, replica: later}, stamp=max(later, version.stamp)
        )

    return _planted((DECODE, "deleted", late))


def never_supersedes() -> AbstractContextManager[None]:
    return _planted((RECONCILE, "supersedes", lambda _a, _b: False))


def uncaptured_writes_unseen() -> AbstractContextManager[None]:
    def believing(snapshot: Snapshot, replica: str) -> Any:
        if snapshot.meta is not None:
            return snapshot.meta.version
        return version_at(snapshot, replica)

    version_at = SNAPSHOT.version_at
    return _planted((PLAN, "version_at", believing))


# ── metadata ──────────────────────────────────────────────────────────────────────────────────────────────────


def no_digest() -> AbstractContextManager[None]:
    return _planted((Snapshot, "intact", property(lambda self: self.meta is not None)))


def no_seal() -> AbstractContextManager[None]:
    return _planted((MetadataCodec, "seal", lambda _self, _path, _meta: b"\x01" + bytes(16)))


def seal_without_the_path() -> AbstractContextManager[None]:
    seal = MetadataCodec.seal
    return _planted((MetadataCodec, "seal", lambda self, _path, meta: seal(self, "", meta)))


def drift_by_the_readers_clock() -> AbstractContextManager[None]:
    decode = MetadataCodec.decode

    def by_clock(self: MetadataCodec, path: str, value: Any, *, update_time: int, deleted: bool = False) -> Any:
        now = Clock.latest.now
        codec = _with(self, drift_limit_us=self.drift_limit_us // 3)
        return decode(codec, path, value, update_time=now, deleted=deleted)

    return _planted((MetadataCodec, "decode", by_clock))


def no_base() -> AbstractContextManager[None]:
    return _planted((CAPTURE, "is_echo", lambda snapshot, _replaced: snapshot.by_fleet))


def no_time_limit_for_echoes() -> AbstractContextManager[None]:
    return _planted((Snapshot, "by_fleet", property(lambda self: self.intact)))


# ── capture ───────────────────────────────────────────────────────────────────────────────────────────────────


def echoes_published() -> AbstractContextManager[None]:
    return _planted((CAPTURE, "is_echo", lambda _snapshot, _replaced: False))


def bases_forgotten() -> AbstractContextManager[None]:
    write = WRITES.tombstone_write

    def without(path: str, meta: Any, _bases: Any, **more: Any) -> Any:
        return write(path, meta, (), **more)

    return _planted((WRITES, "tombstone_write", without))


def no_heal() -> AbstractContextManager[None]:
    return _planted((CAPTURE, "_lost_its_clock", lambda *_: False))


def tombstone_not_sent_to_its_origin() -> AbstractContextManager[None]:
    message = CAPTURE._message

    def elsewhere(event: Any, replica: Any, kind: Any, *, heal: bool = False, to: str | None = None) -> Any:
        return message(event, replica, kind, heal=heal and not event.deleted, to=to)

    return _planted((CAPTURE, "_message", elsewhere))


def merges_not_published() -> AbstractContextManager[None]:
    meta = WRITES._meta
    return _planted((WRITES, "_meta", lambda plan, local: _with(meta(plan, local), merged=False)))


def no_push_back() -> AbstractContextManager[None]:
    return _planted((FINISH, "_push_backs", lambda *_: []))


# ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────


def no_tombstone() -> AbstractContextManager[None]:
    delete = WRITES._delete

    def bare(meta: Any, local: Any, target: Any) -> Any:
        return delete(meta, local, target)[:1]

    def none(path: str, _document: Any) -> Tombstone:
        return Tombstone(path)

    return _planted(
        (WRITES, "_delete", bare),
        (APPLY, "read_tombstone", lambda document, *, path, codec: none(path, document)),
    )


def no_create_guard() -> AbstractContextManager[None]:
    create = WRITES._create
    return _planted((WRITES, "_create", lambda *given: create(*given)[:1]))


def unconditional_overwrites() -> AbstractContextManager[None]:
    overwrite = WRITES._overwrite

    def anyway(*given: Any) -> Any:
        [write] = overwrite(*given)
        write.ClearField("current_document")
        return (write,)

    return _planted((WRITES, "_overwrite", anyway))


def failed_precondition_ignored() -> AbstractContextManager[None]:
    record = STORE._record

    def ignoring(path: str, result: Any, results: Any) -> None:
        record(path, result._replace(code=0) if result.code == 9 else result, results)

    return _planted((STORE, "_record", ignoring))


def aborted_ignored() -> AbstractContextManager[None]:
    record = STORE._record

    def ignoring(path: str, result: Any, results: Any) -> None:
        record(path, result._replace(code=0) if result.code == 10 else result, results)

    return _planted((STORE, "_record", ignoring))


def unknown_taken_for_landed() -> AbstractContextManager[None]:
    failed = STORE._failed

    def landed(units: Any, error: Any, results: Any, *, again: Any) -> Any:
        if isinstance(error, Transient):
            return
        yield from failed(units, error, results, again=again)

    return _planted((STORE, "_failed", landed))


def writes_after_the_deadline() -> AbstractContextManager[None]:
    return _planted(
        (WORKER, "SENT_UNTIL_US", 10**12),
        (WORKER, "LANDS_UNTIL_US", 10**12),
    )


@dataclass(frozen=True, slots=True)
class _Folded:
    """A change in the place of the local state."""

    folded: State

    def state(self, _replica: str) -> State:
        return self.folded


def _unlogged(outcome: Outcome) -> Outcome:
    return Outcome.STALE if outcome is Outcome.CONFLICT else outcome


def folded_by_resolve() -> AbstractContextManager[None]:
    """Changes of one batch are merged with each other before the local state is looked at.

    What such a fold settles among the changes never meets the local state, so nobody logs it.
    """
    plan = APPLY.plan

    def folding(changes: Any, local: Any, **given: Any) -> Any:
        if len(changes) < 2 or given["rule"].mode is Mode.SINGLE_PRIMARY:
            return plan(changes, local, **given)
        first, *others = changes
        folded = plan(others, _Folded(State(first.version, first.body)), **given)
        decided = plan([_with(first, version=folded.state.version, body=folded.state.body)], local, **given)
        return _with(
            decided,
            merged=folded.merged or decided.merged,
            outcomes=tuple(_unlogged(one) for one in folded.outcomes) + decided.outcomes,
            conflicts=decided.conflicts,
        )

    return _planted((APPLY, "plan", folding))


# ── order of effects ──────────────────────────────────────────────────────────────────────────────────────────


def acknowledged_before_written() -> AbstractContextManager[None]:
    apply = DRIVER.apply

    def early(batch: Any, target: Any) -> Any:
        yield Acknowledge([item.ack_id for item in batch])
        steps = apply(batch, target)
        answer: Any = None
        error: Exception | None = None
        while True:
            try:
                effect = steps.send(answer) if error is None else steps.throw(error)
            except StopIteration:
                return
            answer = error = None
            if isinstance(effect, Acknowledge):
                continue
            try:
                answer = yield effect
            except Exception as raised:  # noqa: BLE001  handed on to the core as it is
                error = raised

    return _planted((DRIVER, "apply", early))


def conflicts_logged_after_the_write() -> AbstractContextManager[None]:
    store, log = APPLY.store, APPLY.log_conflicts
    waiting: list[Any] = []

    def later(*given: Any) -> Any:
        waiting.append(given)
        return
        yield

    def storing(*given: Any) -> Any:
        mine, waiting[:] = list(waiting), []
        yield from store(*given)
        for one in mine:
            yield from log(*one)

    return _planted((APPLY, "log_conflicts", later), (APPLY, "store", storing))


def conflicts_not_logged() -> AbstractContextManager[None]:
    def silent(*_given: Any) -> Any:
        return
        yield

    return _planted((APPLY, "log_conflicts", silent))


def poison_dropped() -> AbstractContextManager[None]:
    def dropping(dead: Any, _target: Any) -> Any:
        if dead:
            yield Acknowledge([refusal.received.ack_id for refusal in dead])

    return _planted((APPLY, "send_to_dead_letters", dropping), (FINISH, "send_to_dead_letters", dropping))


def lag_by_the_wrong_clock() -> AbstractContextManager[None]:
    observe = FINISH._observations

    def by_worker(item: Any, commit_time: Any) -> Any:
        return observe(item, commit_time and Clock.latest.now)

    return _planted((FINISH, "_observations", by_worker))


# ── one primary ───────────────────────────────────────────────────────────────────────────────────────────────


def violations_stand() -> AbstractContextManager[None]:
    return _planted((PLAN, "_stands", lambda *_: True))


def violations_wait_in_the_worker() -> AbstractContextManager[None]:
    return _planted((APPLY, "PRIMARY_ATTEMPTS_MAX", 10**9))


def misplaced_writes_applied() -> AbstractContextManager[None]:
    return _planted((ADMISSION, "GATES", ()))
