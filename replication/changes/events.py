"""Events: what Eventarc delivers to capture, and what Pub/Sub delivers to a worker.

The message is Eventarc's `DocumentEventData`, byte for byte as captured, with the CloudEvent's attributes
(CloudEvents' HTTP and Pub/Sub bindings, binary mode) and this system's own: `replica`, `kind`, `heal`, `to`.
Capture decides the kind; the worker computes the version from the bytes and the kind, purely, and never
classifies again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from conflict.version import Version, deleted, written
from replication.configuration.parse import Fleet, Replica
from replication.documents.metadata import MetadataCodec
from replication.documents.stored import read_meta, take_snapshot, take_tombstone
from replication.documents.wire import MICROS, DocumentEventData, is_document_path, micros, split_name
from replication.errors import EventError, Reason
from replication.ports import Message

JSON = "application/json"
TYPE_PREFIX = "google.cloud.firestore.document.v1."
TIME = "ce-time"
CONTENT_TYPE = "ce-datacontenttype"


class Kind(StrEnum):
    """What a message is to its receivers."""

    WRITE = "write"
    DELETE = "delete"
    MERGED = "merged"
    VIOLATION = "violation"


KINDS: Mapping[str, Kind] = {kind.value: kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Event:
    """One change as Eventarc reported it. `time` is the event's, in microseconds.

    `data` is the parsed message, `body` the bytes it came as; `attributes` are the CloudEvent's, named
    `ce-…`.
    """

    body: bytes
    data: Any
    attributes: Mapping[str, str]
    project: str
    database: str
    path: str
    time: int

    @property
    def deleted(self) -> bool:
        """Whether the document is gone after this change."""
        return not self.data.HasField("value")

    @property
    def unchanged(self) -> bool:
        """Whether nothing happened: production sends no such event, the emulator does.

        It reports a write that changed nothing (a guard with an empty mask) with one update time on both
        sides, and a delete of what did not exist (a guard on an absent tombstone) with neither side.
        """
        if not self.data.HasField("value"):
            return not self.data.HasField("old_value")
        before: int = micros(self.data.old_value.update_time)
        return self.data.HasField("old_value") and before == micros(self.data.value.update_time)

    @property
    def by_system(self) -> bool:
        """Whether Firestore itself made the change: its TTL policy deletes as `system`."""
        return self.attributes.get("ce-authtype") == "system"


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


def parse_event(body: bytes, headers: Mapping[str, str]) -> Event:
    """Read one of Eventarc's Firestore events. Raises `EventError` when it is none.

    `headers` are the CloudEvent's attributes by their lower-case names (`ce-id`, …) and `content-type`.
    """
    for name in ("ce-id", "ce-type", TIME):
        if not headers.get(name):
            raise EventError(
                Reason.MISSING_ATTRIBUTE, f"no {name} header: send Eventarc's events in binary content mode"
            )
    if not headers["ce-type"].startswith(TYPE_PREFIX):
        raise EventError(
            Reason.UNKNOWN_KIND,
            f"event type {headers['ce-type']!r} is none of Firestore's: point only triggers of "
            f"{TYPE_PREFIX}written here",
        )
    attributes = {name: value for name, value in headers.items() if name.startswith("ce-")}
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if traceparent := headers.get("traceparent"):
        attributes["traceparent"] = traceparent
    attributes[CONTENT_TYPE] = content_type or attributes.get(CONTENT_TYPE, "application/protobuf")
    data = _parse_data(body, attributes)
    if data.HasField("value") or data.HasField("old_value"):
        project, database, path = _named(data)
    else:
        project, database, path = "", "", ""  # only an event that is `unchanged` names no document
    return Event(body, data, attributes, project, database, path, parse_time(headers[TIME]))


def decode(message: Message, fleet: Fleet) -> Change:
    """Read one message as a change. Raises `EventError` when it can never be applied."""
    attributes = message.attributes
    source = fleet.replicas.get(attributes.get("replica", ""))
    kind = KINDS.get(attributes.get("kind", ""))
    if source is None or kind is None:
        raise _misaddressed(attributes, fleet)
    data = _parse_data(message.data, attributes)
    path = _path_at(source, data)
    if kind is Kind.MERGED:
        return _merged(data, path, source, fleet)
    return _change(data, path, source, kind, attributes, fleet)


def _parse_data(body: bytes, attributes: Mapping[str, str]) -> Any:
    try:
        if attributes.get(CONTENT_TYPE) == JSON:
            return json_format.Parse(body, DocumentEventData())
        return DocumentEventData.FromString(body)
    except (DecodeError, json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise EventError(
            Reason.UNDECODABLE,
            f"the data ({len(body)} bytes) is no DocumentEventData: {str(error)[:200]}",
        ) from error


def _named(data: Any) -> tuple[str, str, str]:
    if data.HasField("value"):
        name = data.value.name
    elif data.HasField("old_value"):
        name = data.old_value.name
    else:
        raise EventError(Reason.UNDECODABLE, "the data holds neither a value nor an old value: no change in it")
    parts = split_name(name)
    if parts is None or not is_document_path(parts[2]):
        raise EventError(Reason.NOT_A_DOCUMENT, f"{name[:300]!r} is no document's name")
    return parts


def _path_at(source: Replica, data: Any) -> str:
    """The relative path of the changed document, which must be the source's."""
    document = data.value if data.HasField("value") else data.old_value
    name: str = document.name
    # Nearly always so, and then nothing else has to be taken apart.
    if name.startswith(source.prefix) and is_document_path(path := name[len(source.prefix) :]):
        return path
    project, database, _ = _named(data)
    raise EventError(
        Reason.FOREIGN_DATABASE,
        f"the document is of projects/{project}/databases/{database}, which is not replica "
        f"{source.id!r}: check the attribute 'replica' and the config",
    )


def _misaddressed(attributes: Mapping[str, str], fleet: Fleet) -> EventError:
    """Why a message cannot be anybody's change, by its attributes."""
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


def parse_time(text: str) -> int:
    """An RFC 3339 time as microseconds since 1970; finer parts are cut off."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("it has no time zone")
        seconds = moment.timestamp() // 1
    except (ValueError, OverflowError) as error:
        raise EventError(Reason.UNDECODABLE, f"time {text[:60]!r} is not RFC 3339: {error}") from error
    # Not `timestamp() * 10**6`: a float has no room for today's microseconds.
    return int(seconds) * MICROS + moment.microsecond


def _change(
    data: Any,
    path: str,
    source: Replica,
    kind: Kind,
    attributes: Mapping[str, str],
    fleet: Fleet,
) -> Change:
    codec = fleet.codec
    if codec.owns(path):
        raise EventError(Reason.NOT_A_DOCUMENT, f"{path!r} is this system's own document")
    if data.HasField("value"):
        return _write(data, path, source, kind, codec)
    if not attributes.get(TIME):
        raise EventError(Reason.MISSING_ATTRIBUTE, f"a delete without {TIME}: its time is nowhere else")
    return _delete(data, path, source, kind, codec, event_time=parse_time(attributes[TIME]))


def _write(data: Any, path: str, source: Replica, kind: Kind, codec: MetadataCodec) -> Change:
    _, body, digest, update_time, context, fault = take_snapshot(
        data.value, path=path, prefix=source.prefix, codec=codec
    )
    faults = (fault,) if fault else ()
    if context is None and data.HasField("old_value"):
        context, fault = read_meta(data.old_value, path, codec)
        if fault:
            faults = (*faults, fault)
    version = written(source.id, update_time, digest, context.version if context else None)
    return Change(path, kind, source.id, version, body, update_time, faults)


def _delete(
    data: Any, path: str, source: Replica, kind: Kind, codec: MetadataCodec, *, event_time: int
) -> Change:
    last = take_snapshot(data.old_value, path=path, prefix=source.prefix, codec=codec)
    context = last.meta.version if last.meta else None
    version = deleted(source.id, last.update_time, event_time, context)
    # What a violation deleted goes into the conflict log; nobody else needs it.
    body = last.body if kind is Kind.VIOLATION else None
    return Change(path, kind, source.id, version, body, event_time, (last.fault,) if last.fault else ())


def _merged(data: Any, path: str, source: Replica, fleet: Fleet) -> Change:
    """A document or tombstone whose `_repl` carries its version: what another replica merged."""
    codec = fleet.codec
    if not data.HasField("value"):
        raise EventError(Reason.INVALID_METADATA, f"merged {path!r} without a value")
    commit_time = micros(data.value.update_time)
    if codec.owns(path):
        return _merged_tombstone(data.value, path, source, codec)
    snapshot = take_snapshot(data.value, path=path, prefix=source.prefix, codec=codec)
    if snapshot.meta is None or not snapshot.intact:
        fault = snapshot.fault or "its _repl is missing or does not match its content"
        raise EventError(Reason.INVALID_METADATA, f"merged {path!r} of {source.id!r}: {fault}")
    return Change(path, Kind.MERGED, source.id, snapshot.meta.version, snapshot.body, commit_time)


def _merged_tombstone(document: Any, path: str, source: Replica, codec: MetadataCodec) -> Change:
    deleted_path = document.fields["path"].string_value
    tombstone = take_tombstone(document, path=deleted_path, codec=codec)
    if (
        tombstone.version is None
        or codec.tombstone_path(deleted_path) != path
        or not is_document_path(deleted_path)
    ):
        raise EventError(Reason.INVALID_METADATA, f"merged {path!r} of {source.id!r} is no valid tombstone")
    return Change(deleted_path, Kind.MERGED, source.id, tombstone.version, None, tombstone.update_time)
