"""The writes that carry out a plan, each conditional on everything it was decided on.

An overwrite rests on the document's update time. A create rests on there being no document **and** on the
very tombstone that was read, or on there being none where none was read, in one Commit: otherwise a slow create
passes a faster tombstone, and a deleted document is back for good. A delete and its tombstone are one Commit,
both conditional.
"""

from typing import Any, NamedTuple

from replication.apply.outcomes import State
from replication.apply.plan import Local, Plan
from replication.changes.envelope import Kind, cloud_event, message_attributes
from replication.documents.metadata import Meta, path_hash
from replication.documents.stored import document_write, tombstone_write
from replication.documents.wire import DocumentEventData, Write, set_micros, time_text
from replication.fleet.model import Target
from replication.ports import Message

METADATA_BYTES = 1_024
"""About what a document's name, metadata and preconditions take in a request; protobuf's exact count is one of
the most expensive calls of all, and only requests of many documents are measured by it."""


class Unit(NamedTuple):
    """The writes of one document: its own, and for a create or delete its guard or tombstone.

    `bytes` is about what they take in a request. `assumes_no_tombstone`: a create that rests on a
    tombstone's absence which no one has looked at.
    """

    path: str
    writes: tuple[Any, ...]
    bytes: int
    assumes_no_tombstone: bool = False

    @property
    def alone(self) -> bool:
        """Whether the document's own write is all there is: an overwrite."""
        return len(self.writes) == 1


def writes_of(decision: Plan, local: Local, target: Target) -> Unit | None:
    """What to write for a plan; None where nothing is."""
    if not decision.writes or decision.state is None:
        return None
    meta = _meta(decision, local)
    body = decision.state.body
    assumes = False
    if body is None:
        writes = _delete(meta, local, target)
    elif local.document is not None:
        writes = _overwrite(body, meta, local, target)
    else:
        writes = _create(body, meta, local, target)
        assumes = local.tombstone is None
    return Unit(local.path, writes, len(body or b"") + METADATA_BYTES, assumes)


def _meta(decision: Plan, local: Local) -> Meta:
    assert decision.state is not None  # noqa: S101  a plan that writes has a state
    return Meta(decision.state.version, base=local.update_time, read=local.read_time, merged=decision.merged)


def _overwrite(body: bytes, meta: Meta, local: Local, target: Target) -> tuple[Any, ...]:
    write = document_write(local.path, body, meta, prefix=target.replica.prefix, codec=target.fleet.codec)
    set_micros(write.current_document.update_time, local.update_time)
    return (write,)


def _create(body: bytes, meta: Meta, local: Local, target: Target) -> tuple[Any, ...]:
    write = document_write(local.path, body, meta, prefix=target.replica.prefix, codec=target.fleet.codec)
    write.current_document.exists = False
    return (write, _tombstone_guard(local, target))


def _tombstone_guard(local: Local, target: Target) -> Any:
    """A Write that changes nothing, and fails if the tombstone has changed since it was read."""
    guard = Write()
    name = target.replica.prefix + target.fleet.codec.tombstone_path(local.path)
    if local.tombstone is None or not local.tombstone.update_time:
        guard.delete = name
        guard.current_document.exists = False
    else:
        guard.update.name = name
        guard.update_mask.SetInParent()
        set_micros(guard.current_document.update_time, local.tombstone.update_time)
    return guard


def _delete(meta: Meta, local: Local, target: Target) -> tuple[Any, ...]:
    remove = Write(delete=target.replica.prefix + local.path)
    tombstone = local.tombstone
    bases = tombstone.bases if tombstone else ()
    if local.document is None:
        remove.current_document.exists = False
    else:
        set_micros(remove.current_document.update_time, local.update_time)
        bases = (*bases, local.update_time)
    tombstone_left = tombstone_write(
        local.path,
        meta,
        bases,
        expire_at=local.read_time + target.fleet.tombstone_retention_us,
        prefix=target.replica.prefix,
        codec=target.fleet.codec,
    )
    if tombstone is None or not tombstone.update_time:
        tombstone_left.current_document.exists = False
    else:
        set_micros(tombstone_left.current_document.update_time, tombstone.update_time)
    return (remove, tombstone_left)


def push_back(decision: Plan, local: Local, target: Target, *, receiver: str, commit_time: int) -> Message:
    """A message to a replica that is behind, with the state here, committed at `commit_time` (µs)."""
    state: State | None = decision.state
    assert state is not None  # noqa: S101  no one is behind nothing
    meta, prefix, codec = _meta(decision, local), target.replica.prefix, target.fleet.codec
    if state.body is None:
        bases = local.tombstone.bases if local.tombstone else ()
        write = tombstone_write(local.path, meta, bases, expire_at=commit_time, prefix=prefix, codec=codec)
    else:
        write = document_write(local.path, state.body, meta, prefix=prefix, codec=codec)
    set_micros(write.update.update_time, commit_time)
    source = target.replica
    event = cloud_event(
        project=source.project,
        database=source.database,
        event_id=f"{path_hash(local.path)}-{source.id}-{commit_time}",
        time=time_text(commit_time),
    )
    attributes = message_attributes(event, replica=source.id, kind=Kind.MERGED, to=receiver)
    return Message(DocumentEventData(value=write.update).SerializeToString(), attributes)
