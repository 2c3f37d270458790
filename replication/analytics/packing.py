"""Held events as Firestore documents, in either layout, and events out of documents again.

Format 1 of a packed document, one type and region, at most 500 events and 900 KB of them:

    format     1
    type, region, count, first, last   the events' type and region, how many, their earliest and latest time
    encoding   "zstd" (https://www.rfc-editor.org/rfc/rfc8878) or "json", where compression saves too little
    events     bytes: a JSON array of the events, each byte for byte as it was published
    size       length of that array before compression
    key, window  the type's dedupe key and its window (µs): so that a reader needs no configuration
    sampled    the share these stand for, where a throttle kept only a sample
    batch      the flush that wrote it
    expire_at  for Firestore's TTL policy

A per-event document has `id`, `type`, `region`, `user`, `time`, `payload` and the last three. Its name is its
last identity; a packed document's is a hash of its events' identities. Documents are created, never
overwritten: writing the same one again fails with ALREADY_EXISTS and changes nothing.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import zstandard

from replication.analytics.buffer import HeldEvent
from replication.analytics.schema import (
    PACK_BYTES_MAX,
    KeyRule,
    identity_of_id,
    identity_of_key,
    key_rule,
    parse_time,
)
from replication.configuration.analytics import TypeRules
from replication.documents.plain import fill, to_plain
from replication.documents.requests import REQUEST_DOCUMENTS_MAX
from replication.documents.wire import Document, Write, set_micros, time_text
from replication.errors import EventError, FirefleetError, Reason

FORMAT = 1
PACK_EVENTS_MAX = 500
COMPRESSED_SHARE_MAX = 0.9
"""Compression pays if it saves a tenth; less is not worth a reader's time."""
BATCH = "batch"
_LEVEL = 3  # zstd's default: the next levels cost twice the time for a few percent


class PackError(FirefleetError):
    """This version cannot read a document of the analytics collection; the text names it."""


@dataclass(frozen=True, slots=True)
class PackedUnit:
    """One document to create, and the events it stores. `bytes` is its size in a request."""

    path: str
    write: Any
    members: tuple[HeldEvent, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class Output:
    """Where documents go, and how many in a request. `batch` names the flush, `prefix` is the database's."""

    prefix: str
    collection: str
    types: dict[str, TypeRules]
    batch: str
    documents_max: int = REQUEST_DOCUMENTS_MAX


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it was stored: `body` has id, type, region, user, time, payload, and `sampled` below 1."""

    body: dict[str, Any]
    identities: tuple[bytes, ...]


def pack(held: Sequence[HeldEvent], output: Output) -> Iterator[PackedUnit]:
    """Packed documents of these events, in the order given."""
    groups: dict[tuple[str, str, float], list[HeldEvent]] = {}
    for one in held:
        groups.setdefault((one.event.type, one.event.region, one.sampled), []).append(one)
    for group in groups.values():
        for members in _cut(group):
            yield _packed(members, output)


def _cut(group: Sequence[HeldEvent]) -> Iterator[list[HeldEvent]]:
    members: list[HeldEvent] = []
    size = 1
    for held in group:
        grown = len(held.received.message.data) + 1
        if members and (len(members) == PACK_EVENTS_MAX or size + grown > PACK_BYTES_MAX):
            yield members
            members, size = [], 1
        members.append(held)
        size += grown
    yield members


def _packed(members: Sequence[HeldEvent], output: Output) -> PackedUnit:
    first = members[0].event
    raw = b"[" + b",".join(held.received.message.data for held in members) + b"]"
    compressed = zstandard.ZstdCompressor(level=_LEVEL).compress(raw)
    pays = len(compressed) <= len(raw) * COMPRESSED_SHARE_MAX
    times = [held.event.time for held in members]
    fields: dict[str, Any] = {
        "format": FORMAT,
        "type": first.type,
        "region": first.region,
        "count": len(members),
        "encoding": "zstd" if pays else "json",
        "events": compressed if pays else raw,
        "size": len(raw),
    }
    rule = key_rule(output.types[first.type])
    if rule is not None:
        fields |= {"key": rule.fields, "window": rule.window}
    # Sorted, because a redelivered set of events comes in another order.
    name = hashlib.blake2b(b"".join(sorted(held.event.identities[0] for held in members)), digest_size=16)
    return _unit(name.hexdigest(), fields, {"first": min(times), "last": max(times)}, members, output)


def single(held: HeldEvent, output: Output) -> PackedUnit:
    """The document of one event; `EventError` if Firestore cannot hold its values."""
    event = held.event
    payload = orjson.loads(held.received.message.data)["payload"]
    fields = {
        "id": event.id,
        "type": event.type,
        "region": event.region,
        "user": event.user,
        "payload": payload,
    }
    try:
        return _unit(event.identities[-1].hex(), fields, {"time": event.time}, (held,), output)
    except (ValueError, TypeError) as error:
        raise EventError(Reason.INVALID, f"Firestore cannot hold the payload: {error}") from error


def _unit(
    name: str, fields: dict[str, Any], times: dict[str, int], members: Sequence[HeldEvent], output: Output
) -> PackedUnit:
    path = f"{output.collection}/{name}"
    write = Write(update=Document(name=output.prefix + path))
    write.current_document.exists = False
    into = write.update.fields
    fields[BATCH] = output.batch
    if members[0].sampled < 1:
        fields["sampled"] = members[0].sampled
    for field, value in fields.items():
        fill(into[field], value)
    rules = output.types[members[0].event.type]
    if rules.ttl is not None:
        # By the publish time: every delivery has the same, and a client's clock cannot outlive the policy.
        times = times | {"expire_at": max(held.received.publish_time for held in members) + rules.ttl}
    for field, micros in times.items():
        set_micros(into[field].timestamp_value, micros)
    return PackedUnit(path, write, tuple(members), write.ByteSize())


def events_in(document: Any) -> Iterator[StoredEvent]:
    """The events of one stored document of either layout, in the order stored; raises `PackError`."""
    fields = document.fields
    if "format" not in fields:
        yield _single_event(document)
        return
    if fields["format"].integer_value != FORMAT:
        raise PackError(
            f"{document.name}: format {to_plain(fields['format'])} is not {FORMAT}; update firefleet"
        )
    region, sampled = fields["region"].string_value, _share(fields)
    rule = None
    if "key" in fields:
        rule = KeyRule(tuple(to_plain(fields["key"])), fields["window"].integer_value)
    for body in _bodies(document):
        identities: tuple[bytes, ...] = (identity_of_id(body["id"]),)
        if rule is not None:
            identities += (
                identity_of_key(
                    rule,
                    body["type"],
                    time=parse_time(body["time"]),
                    user=body["user"],
                    payload=body["payload"],
                ),
            )
        yield StoredEvent(_body({**body, "region": region}, sampled), identities)


def _bodies(document: Any) -> list[Any]:
    fields = document.fields
    raw = fields["events"].bytes_value
    try:
        if fields["encoding"].string_value == "zstd":
            # The frame says how long it gets; a forged one must not fill the memory.
            if not 0 <= zstandard.frame_content_size(raw) <= PACK_BYTES_MAX:
                raise PackError(f"{document.name}: its events are larger than any that this version writes")
            raw = zstandard.ZstdDecompressor().decompress(raw)
        bodies: list[Any] = orjson.loads(raw)
    except (zstandard.ZstdError, orjson.JSONDecodeError) as error:
        raise PackError(f"{document.name}: its events cannot be read: {error}; restore or delete it") from error
    return bodies


def _single_event(document: Any) -> StoredEvent:
    fields = document.fields
    missing = [name for name in ("id", "type", "region", "user", "time", "payload") if name not in fields]
    if missing:
        raise PackError(
            f"{document.name}: not an analytics event, because it has no {missing[0]}; name another collection"
        )
    body = {name: to_plain(fields[name]) for name in ("id", "type", "region", "user", "payload")}
    stamp = fields["time"].timestamp_value
    body["time"] = time_text(stamp.seconds * 1_000_000 + stamp.nanos // 1_000)
    identities = (identity_of_id(body["id"]), document.name.rsplit("/", 1)[-1].encode())
    return StoredEvent(_body(body, _share(fields)), identities)


def _share(fields: Any) -> float:
    return float(fields["sampled"].double_value) if "sampled" in fields else 1.0


def _body(body: dict[str, Any], sampled: float) -> dict[str, Any]:
    return body if sampled >= 1 else {**body, "sampled": sampled}
