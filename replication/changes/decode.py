"""Decode a message into the change that a worker applies.

Capture has decided the kind. The version follows from the bytes and the kind alone; nothing is decided again
here.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from conflict.version import Version, deleted, written
from replication.changes.envelope import KINDS, TIME, Kind
from replication.changes.events import Sides, parse_data, parse_name, parse_time
from replication.documents.metadata import MetadataCodec
from replication.documents.stored import Snapshot, dismantle, read_meta, read_tombstone
from replication.documents.wire import is_document_path
from replication.errors import EventError, Reason
from replication.fleet.model import Fleet, Replica
from replication.ports import Message


class Change(NamedTuple):
    """One change as a worker applies it.

    `source` is the replica it was captured at, or whose worker published it; `commit_time` its commit there,
    in microseconds. `body` is what the document holds since; None when it was deleted, but in a violation
    what was deleted. `faults` says what was not believed of the metadata it carried.
    """

    path: str
    kind: Kind
    source: str
    version: Version
    body: bytes | None
    commit_time: int
    faults: tuple[str, ...] = ()


class _Origin(NamedTuple):
    """Where a change was made, and as what it was captured."""

    replica: Replica
    path: str
    kind: Kind
    codec: MetadataCodec

    def dismantle(self, document: Any) -> Snapshot:
        return dismantle(document, path=self.path, prefix=self.replica.prefix, codec=self.codec)


def decode(message: Message, fleet: Fleet) -> Change:
    """Read one message as a change. Raises `EventError` when it can never be applied."""
    attributes = message.attributes
    replica = fleet.replicas.get(attributes.get("replica", ""))
    kind = KINDS.get(attributes.get("kind", ""))
    if replica is None or kind is None:
        raise _misaddressed(attributes, fleet)
    sides = parse_data(message.data, attributes)
    origin = _Origin(replica, _path_at(replica, sides), kind, fleet.codec)
    owned = fleet.codec.owns(origin.path)
    if kind is Kind.MERGED:
        return _merged_tombstone(sides, origin) if owned else _merged_document(sides, origin)
    if owned:
        raise EventError(Reason.NOT_A_DOCUMENT, f"{origin.path!r} is firefleet's own document")
    if sides.value is not None:
        return _change_of_write(sides, origin)
    return _change_of_delete(sides, origin, attributes)


def _path_at(replica: Replica, sides: Sides) -> str:
    """The relative path of the changed document, which must be the replica's."""
    document = sides.old if sides.value is None else sides.value
    if document is None:
        raise EventError(Reason.UNDECODABLE, "the data holds neither a value nor an old value: no change in it")
    name: str = document.name
    # Nearly always so, and then nothing else has to be taken apart.
    if name.startswith(replica.prefix) and is_document_path(path := name[len(replica.prefix) :]):
        return path
    project, database, _ = parse_name(name)
    raise EventError(
        Reason.FOREIGN_DATABASE,
        f"the document is of projects/{project}/databases/{database}, which is not replica "
        f"{replica.id!r}: check the attribute 'replica' and the config",
    )


def _misaddressed(attributes: Mapping[str, str], fleet: Fleet) -> EventError:
    """Why a message cannot be a change of any replica, by its attributes."""
    for name in ("replica", "kind"):
        if not attributes.get(name):
            text = f"no attribute {name!r}: publish events through capture"
            return EventError(Reason.MISSING_ATTRIBUTE, text)
    if attributes["replica"] not in fleet.replicas:
        return EventError(
            Reason.UNKNOWN_REPLICA,
            f"replica {attributes['replica'][:100]!r} is not in the config, which has "
            f"{', '.join(fleet.replicas)}: add it, or stop its capture",
        )
    return EventError(Reason.UNKNOWN_KIND, f"kind {attributes['kind']!r} is none of {', '.join(KINDS)}")


def _change_of_write(sides: Sides, origin: _Origin) -> Change:
    path, kind, source = origin.path, origin.kind, origin.replica.id
    _, body, digest, update_time, context, fault = origin.dismantle(sides.value)
    faults = (fault,) if fault else ()
    if context is None and sides.old is not None:
        context, fault = read_meta(sides.old, path, origin.codec)
        if fault:
            faults = (*faults, fault)
    version = written(source, update_time, digest, context.version if context else None)
    return Change(path, kind, source, version, body, update_time, faults)


def _change_of_delete(sides: Sides, origin: _Origin, attributes: Mapping[str, str]) -> Change:
    if not attributes.get(TIME):
        raise EventError(Reason.MISSING_ATTRIBUTE, f"a delete without {TIME}, which alone holds its time")
    event_time = parse_time(attributes[TIME])
    last = origin.dismantle(sides.old)
    context = last.meta.version if last.meta else None
    version = deleted(origin.replica.id, last.update_time, event_time, context)
    # Only the conflict log needs what was deleted, and only of a violation.
    body = last.body if origin.kind is Kind.VIOLATION else None
    faults = (last.fault,) if last.fault else ()
    return Change(origin.path, origin.kind, origin.replica.id, version, body, event_time, faults)


def _merged_document(sides: Sides, origin: _Origin) -> Change:
    """A document whose `_repl` carries its version: another replica merged it."""
    snapshot = origin.dismantle(_merged_value(sides, origin))
    if snapshot.meta is None or not snapshot.intact:
        fault = snapshot.fault or "its _repl is missing or does not match its content"
        raise EventError(Reason.INVALID_METADATA, f"merged {origin.path!r} of {origin.replica.id!r}: {fault}")
    version, commit_time = snapshot.meta.version, snapshot.update_time
    return Change(origin.path, Kind.MERGED, origin.replica.id, version, snapshot.body, commit_time)


def _merged_tombstone(sides: Sides, origin: _Origin) -> Change:
    """A tombstone whose `_repl` carries its version: another replica merged the delete of its document."""
    document = _merged_value(sides, origin)
    path, codec, source = document.fields["path"].string_value, origin.codec, origin.replica.id
    tombstone = read_tombstone(document, path=path, codec=codec)
    if tombstone.version is None or codec.tombstone_path(path) != origin.path or not is_document_path(path):
        raise EventError(
            Reason.INVALID_METADATA, f"merged {origin.path!r} of {source!r} is not a valid tombstone"
        )
    return Change(path, Kind.MERGED, source, tombstone.version, None, tombstone.update_time)


def _merged_value(sides: Sides, origin: _Origin) -> Any:
    if sides.value is None:
        raise EventError(Reason.INVALID_METADATA, f"merged {origin.path!r} without a value")
    return sides.value
