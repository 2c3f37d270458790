"""The conflict log: both bodies of every conflict, written before one of them is overwritten.

    _repl_conflicts/{id}                         path, kind, policy, winner, versions, time, expire_at
    _repl_conflicts/{id}/_repl_bodies/{version}  body (one map: one index exemption covers it), expire_at

`id` is the hash of the path and both versions, so replicas that decide the same conflict write the same id,
and deciding it again changes nothing. A body has its own document, because each may be near Firestore's
limit of 1 MiB; one that would pass a limit by being one level deeper is kept in parts, as serialised bytes.
"""

import hashlib
from typing import Any

import orjson

from conflict.version import Version
from replication.apply.outcomes import Conflict, ConflictKind, State
from replication.documents.metadata import HASH_BYTES, MetadataCodec
from replication.documents.references import NEUTRAL, rewrite_references
from replication.documents.wire import Document, MapValue, Write, set_micros

BODY_BYTES_MAX = 1_000_000
"""A larger body is kept in parts: below the limit by more than a document's name can take."""
BODY_DEPTH_MAX = 18
"""Firestore nests 20 levels; the log adds one, and one is kept in reserve."""
PART_BYTES = 512 * 1024


def version_id(version: Version) -> str:
    """A version's name in the log: where and when its write was made."""
    # The digest distinguishes computed bodies, which may share the write they are named after.
    what = "deleted" if version.deleted else version.digest.hex()[2:10]
    return f"{version.origin}-{version.dot}-{what}"


def conflict_id(conflict: Conflict) -> str:
    """The conflict's id: 32 hexadecimal digits, the same at every replica that decides it."""
    versions = sorted(_identity(side.version) for side in conflict.sides)
    if conflict.kind is ConflictKind.VIOLATION:
        # The primary's version may have moved on when a violation is delivered again; it is still one.
        versions = [_identity(conflict.sides[0].version)]
    named = orjson.dumps([conflict.path, versions])
    return hashlib.blake2b(named, digest_size=HASH_BYTES).hexdigest()


def _identity(version: Version) -> list[Any]:
    return [
        version.origin,
        version.dot,
        version.stamp,
        version.digest.hex(),
        version.deleted,
        sorted(version.clock.items()),
    ]


def conflict_writes(
    conflict: Conflict, *, time: int, expire_at: int, prefix: str, codec: MetadataCodec
) -> list[Any]:
    """The Writes that log `conflict`, bodies first; unconditional and idempotent. Times in µs."""
    path = f"{codec.conflicts}/{conflict_id(conflict)}"
    bodies = f"{path}/{codec.bodies}"
    writes: list[Any] = []
    for side in conflict.sides:
        if side.body is not None:
            writes += _body_writes(f"{bodies}/{version_id(side.version)}", side.body, expire_at, prefix)
    record = Write()
    record.update.name = prefix + path
    _describe(record.update.fields, conflict, time=time, expire_at=expire_at)
    return [*writes, record]


def _describe(fields: Any, conflict: Conflict, *, time: int, expire_at: int) -> None:
    fields["path"].string_value = conflict.path
    fields["kind"].string_value = conflict.kind
    fields["policy"].string_value = conflict.policy
    fields["winner"].string_value = winner_of(conflict)
    if conflict.failure is not None:
        fields["failure"].string_value = conflict.failure[:1000]
    # In the order of the versions and not of arrival, so that every replica writes the same record.
    for side in sorted(conflict.sides, key=lambda side: side.version.order):
        _describe_version(fields["versions"].array_value.values.add(), side)
    set_micros(fields["time"].timestamp_value, time)
    set_micros(fields["expire_at"].timestamp_value, expire_at)


def winner_of(conflict: Conflict) -> str:
    """Which version stays: its name in the log, or `computed` where a policy made a new body."""
    for side in conflict.sides:
        if side.body == conflict.winner.body and side.version.deleted == conflict.winner.version.deleted:
            return version_id(side.version)
    return "computed"


def _describe_version(value: Any, side: State) -> None:
    version = side.version
    fields = value.map_value.fields
    fields["id"].string_value = version_id(version)
    fields["origin"].string_value = version.origin
    fields["stamp"].integer_value = version.stamp
    fields["dot"].integer_value = version.dot
    fields["deleted"].boolean_value = version.deleted
    fields["digest"].bytes_value = version.digest
    fields["clock"].map_value.SetInParent()
    for replica, dot in version.clock.items():
        fields["clock"].map_value.fields[replica].integer_value = dot


def _body_writes(path: str, body: bytes, expire_at: int, prefix: str) -> list[Any]:
    document = Document.FromString(rewrite_references(body, source=NEUTRAL, target=prefix))
    if len(body) <= BODY_BYTES_MAX and _depth(document.fields) <= BODY_DEPTH_MAX:
        whole = _log_write(prefix + path, expire_at)
        whole.update.fields["body"].map_value.MergeFrom(MapValue(fields=document.fields))
        return [whole]
    parts = []
    for number, start in enumerate(range(0, len(body), PART_BYTES)):
        part = _log_write(f"{prefix}{path}.{number}", expire_at)
        part.update.fields["document"].bytes_value = body[start : start + PART_BYTES]
        parts.append(part)
    return parts


def _log_write(name: str, expire_at: int) -> Any:
    write = Write()
    write.update.name = name
    set_micros(write.update.fields["expire_at"].timestamp_value, expire_at)
    return write


def _depth(fields: Any) -> int:
    return 1 + max((_value_depth(value) for value in fields.values()), default=0)


def _value_depth(value: Any) -> int:
    match value.WhichOneof("value_type"):
        case "map_value":
            return _depth(value.map_value.fields)
        case "array_value":
            return 1 + max((_value_depth(inner) for inner in value.array_value.values), default=0)
        case _:
            return 0
