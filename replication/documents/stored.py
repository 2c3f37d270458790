"""A document as it stands at one replica, taken apart: its body, its digest, and what its `_repl` says.

`version_at` gives the version of what was found, so that a worker sees a local write that is not captured yet,
and does not overwrite it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from conflict.version import Version, written
from replication.documents.metadata import (
    FLEET_WRITE_US_MAX,
    Meta,
    MetadataCodec,
    MetadataFault,
    digest_of,
)
from replication.documents.references import NEUTRAL, NEUTRAL_MARK, may_refer, rewrite_references
from replication.documents.wire import Write, micros, set_micros

BASES_MAX = 16
"""How many deletes of one document a tombstone remembers; an echo of an older one replicates again."""


class Snapshot(NamedTuple):
    """One state of one document.

    `body` is a serialised Document with nothing but the application's fields, references neutral. `meta` is
    what `_repl` says, where it is believed; `fault` says why it is not.
    """

    path: str
    body: bytes
    digest: bytes
    update_time: int
    meta: Meta | None = None
    fault: str | None = None

    @property
    def intact(self) -> bool:
        """Whether `_repl` describes this very content."""
        return self.meta is not None and self.meta.version.digest == self.digest

    @property
    def by_fleet(self) -> bool:
        """Whether this system wrote it: an intact `_repl`, written within the time this system takes."""
        return self.intact and self.update_time <= self.meta.read + FLEET_WRITE_US_MAX  # type: ignore[union-attr]


class Tombstone(NamedTuple):
    """What one replica keeps of a deleted document.

    `update_time` is the tombstone's own, in microseconds, 0 if there is none; `version` is then None, and also
    if its `_repl` is not believed. `bases` are the update times of the documents this system deleted.
    """

    path: str
    update_time: int = 0
    version: Version | None = None
    bases: tuple[int, ...] = ()
    merged: bool = False


def read_meta(document: Any, path: str, codec: MetadataCodec) -> tuple[Meta | None, str | None]:
    """What a Document's `_repl` says, or why it is not believed; (None, None) if it has none."""
    fields = document.fields
    if codec.field not in fields:
        return None, None
    try:
        return codec.decode(path, fields[codec.field], update_time=micros(document.update_time)), None
    except MetadataFault as fault:
        return None, str(fault)


def dismantle(document: Any, *, path: str, prefix: str, codec: MetadataCodec) -> Snapshot:
    """Take a Document of the database at `prefix` apart: destroys it.

    Only the application's fields are left in it, so that one serialisation gives the body and no field is
    copied.
    """
    meta, fault = read_meta(document, path, codec)
    update_time = micros(document.update_time)
    if meta is not None or fault is not None:
        del document.fields[codec.field]
    document.ClearField("name")
    document.ClearField("create_time")
    document.ClearField("update_time")
    body = document.SerializeToString(deterministic=True)
    if not may_refer(body):
        return Snapshot(path, body, digest_of(body), update_time, meta, fault)
    body = rewrite_references(body, source=prefix, target=NEUTRAL)
    return Snapshot(path, body, codec.digest(body), update_time, meta, fault)


def version_at(snapshot: Snapshot, replica: str) -> Version:
    """The version of a document as found at `replica`."""
    meta = snapshot.meta
    if meta is None:
        return written(replica, snapshot.update_time, snapshot.digest)
    if snapshot.by_fleet:
        return meta.version
    return written(replica, snapshot.update_time, snapshot.digest, meta.version)


def read_tombstone(document: Any, *, path: str, codec: MetadataCodec) -> Tombstone:
    """Read the tombstone of the document at `path`; `document` is None where there is none."""
    if document is None:
        return Tombstone(path)
    update_time = micros(document.update_time)
    fields = document.fields
    bases = tuple(base.integer_value for base in fields["bases"].array_value.values)
    try:
        if fields["path"].string_value != path:
            raise MetadataFault("it is another document's")
        meta = codec.decode(path, fields[codec.field], update_time=update_time, deleted=True)
    except MetadataFault:
        # Its deletes are still known by their bases; its version is not believed, as if it were absent.
        return Tombstone(path, update_time, None, bases)
    return Tombstone(path, update_time, meta.version, bases, meta.merged)


def document_write(path: str, body: bytes, meta: Meta, *, prefix: str, codec: MetadataCodec) -> Any:
    """A Write of `body` with `meta` to the document at `path` below `prefix`; without a precondition."""
    write = Write()
    document = write.update
    # Looking for one byte is ten times faster than for two, and few documents hold this one.
    document.MergeFromString(
        rewrite_references(body, source=NEUTRAL, target=prefix) if NEUTRAL_MARK in body else body
    )
    document.name = prefix + path
    codec.encode(path, meta, document.fields[codec.field])
    return write


def tombstone_write(
    path: str,
    meta: Meta,
    bases: Sequence[int],
    *,
    expire_at: int,
    prefix: str,
    codec: MetadataCodec,
) -> Any:
    """A Write of the tombstone of the document at `path`; without a precondition. `expire_at` in µs."""
    write = Write()
    write.update.name = prefix + codec.tombstone_path(path)
    fields = write.update.fields
    fields["path"].string_value = path
    codec.encode(path, meta, fields[codec.field])
    fields["bases"].array_value.SetInParent()
    for base in bases[-BASES_MAX:]:
        fields["bases"].array_value.values.add().integer_value = base
    set_micros(fields["expire_at"].timestamp_value, expire_at)
    return write
