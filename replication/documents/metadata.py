"""The `_repl` field: a version kept in the document it describes, sealed.

    clock   map of integers   replica id -> µs
    stamp   integer           µs, place in last-write-wins
    dot     integer           µs, commit time of the winning write
    origin  string            replica of the winning write
    digest  bytes             format byte, then blake2b-128 of the fields without `_repl`; empty in a tombstone
    base    integer           update time (µs) of the document this write replaced; 0 where there was none
    read    integer           the database's read time (µs) of the read this write was decided on
    merged  boolean, if true  this write resolved a conflict
    mixed   boolean, if true  its body was computed from several writes
    seal    bytes             format byte, then blake2b-128 of the path and all of the above

The seal says that the field was written by this system for this document: a document copied onto another
path must not bring a clock that silently beats that path's own writes. Keyed with the fleet's secret, it
cannot be forged by a client either. Golden vectors in the tests pin every byte.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from conflict.version import Version
from replication.documents.references import NEUTRAL, rewrite_references

DIGEST_FORMAT = b"\x01"
SEAL_FORMAT = b"\x01"
HASH_BYTES = 16
CLOCK_ENTRIES_MAX = 100
"""Far above any fleet: a forged clock must not cost more than a real one."""
FLEET_WRITE_US_MAX = 10_000_000
"""This system never writes later than this after the read it decided on: its deadlines ensure it."""

REQUIRED_ENTRIES = 8
"""clock, stamp, dot, origin, digest, base, read, seal."""


class MetadataFault(Exception):
    """A `_repl` that is not to be believed; the text says why."""


class Meta(NamedTuple):
    """What `_repl` says. Times in microseconds."""

    version: Version
    base: int = 0
    read: int = 0
    merged: bool = False


def digest_of(body: bytes) -> bytes:
    """The digest of a body.

    A body is a Document with nothing but its fields, deterministically serialised, references neutral.
    """
    return DIGEST_FORMAT + hashlib.blake2b(body, digest_size=HASH_BYTES).digest()


def path_hash(path: str) -> str:
    """The id under which something about the document at `path` is kept: 32 hexadecimal digits."""
    return hashlib.blake2b(path.encode(), digest_size=HASH_BYTES).hexdigest()


@dataclass(frozen=True, slots=True)
class MetadataCodec:
    """Writes and reads `_repl`.

    `field` is the reserved field's name; `secret` keys the seal where there is one. `drift_limit_us` bounds
    how far a believed time may be ahead of the document's own update time. `prefixes` begin the names of the
    fleet's documents, replica by replica.
    """

    field: str = "_repl"
    secret: bytes = b""
    drift_limit_us: int = 300_000_000
    prefixes: tuple[str, ...] = ()

    @property
    def tombstones(self) -> str:
        """The collection of tombstones."""
        return f"{self.field}_tombstones"

    @property
    def conflicts(self) -> str:
        """The collection of the conflict log."""
        return f"{self.field}_conflicts"

    @property
    def bodies(self) -> str:
        """The collection of logged bodies, below each entry of the conflict log."""
        return f"{self.field}_bodies"

    def digest(self, body: bytes) -> bytes:
        """The digest of a body, the same at every replica that holds it.

        References into any replica of the fleet count as neutral: one that was written at `us` and leads to
        `eu` is foreign there and is left as it is, but at `eu` it looks like one of its own.
        """
        for prefix in self.prefixes:
            body = rewrite_references(body, source=prefix, target=NEUTRAL)
        return digest_of(body)

    def owns(self, path: str) -> bool:
        """Whether a document is this system's own."""
        # Asked of every change, and nearly no path gets past the first look.
        return path.startswith(self.field) and path.startswith((f"{self.tombstones}/", f"{self.conflicts}/"))

    def tombstone_path(self, path: str) -> str:
        """Where the tombstone of the document at `path` is kept."""
        return f"{self.tombstones}/{path_hash(path)}"

    def seal(self, path: str, meta: Meta) -> bytes:
        """The seal of `meta` for the document at `path`."""
        version = meta.version
        # JSON of a list is unambiguous, whatever the path and the ids contain.
        sealed = orjson.dumps(
            [
                path,
                sorted(version.clock.items()),
                version.stamp,
                version.dot,
                version.origin,
                version.digest.hex(),
                meta.base,
                meta.read,
                meta.merged,
                version.mixed,
            ]
        )
        # blake2b takes keys of up to 64 bytes; a longer secret is hashed down to that.
        key = self.secret if len(self.secret) <= 64 else hashlib.blake2b(self.secret).digest()
        return SEAL_FORMAT + hashlib.blake2b(sealed, digest_size=HASH_BYTES, key=key).digest()

    def encode(self, path: str, meta: Meta, into: Any) -> None:
        """Write `meta`, sealed for `path`, into a protobuf `Value`."""
        version = meta.version
        fields = into.map_value.fields
        clock = fields["clock"].map_value.fields
        for replica, dot in version.clock.items():
            clock[replica].integer_value = dot
        if not version.clock:
            fields["clock"].map_value.SetInParent()
        fields["stamp"].integer_value = version.stamp
        fields["dot"].integer_value = version.dot
        fields["origin"].string_value = version.origin
        fields["digest"].bytes_value = version.digest
        fields["base"].integer_value = meta.base
        fields["read"].integer_value = meta.read
        if meta.merged:
            fields["merged"].boolean_value = True
        if version.mixed:
            fields["mixed"].boolean_value = True
        fields["seal"].bytes_value = self.seal(path, meta)

    def decode(self, path: str, value: Any, *, update_time: int, deleted: bool = False) -> Meta:
        """Read `_repl` of the document at `path`, last written at `update_time`.

        Raises `MetadataFault` when it does not parse, its seal is wrong, or it holds a time further ahead of
        `update_time` than the drift limit. Compared with the document's own time and never with a clock: the
        answer must not depend on when it is asked.
        """
        meta, seal = _parse(value, deleted)
        if not hmac.compare_digest(seal, self.seal(path, meta)):
            raise MetadataFault(
                "it is sealed with another secret than this process has, or copied from another document"
            )
        version = meta.version
        latest = max(version.stamp, version.dot, *version.clock.values())
        if latest > update_time + self.drift_limit_us:
            raise MetadataFault(
                f"it holds a time {(latest - update_time) // 1_000_000} s ahead of the document's own"
            )
        return meta


def _parse(value: Any, deleted: bool) -> tuple[Meta, bytes]:
    # The hot path: it reads each entry once and asks no entry for its type. One of another type reads as zero
    # or empty, and then the seal does not fit.
    fields = value.map_value.fields
    has_merged, has_mixed = "merged" in fields, "mixed" in fields
    entries = REQUIRED_ENTRIES + has_merged + has_mixed
    if len(fields) != entries:
        raise MetadataFault("it is not a map of firefleet's keys")
    # Not by `items()`, which protobuf's maps inherit from `Mapping`: four calls an entry.
    dots = fields["clock"].map_value.fields
    clock = {name: dots[name].integer_value for name in dots}
    stamp, dot = fields["stamp"].integer_value, fields["dot"].integer_value
    base, read = fields["base"].integer_value, fields["read"].integer_value
    version = Version(
        clock,
        stamp,
        fields["origin"].string_value,
        dot,
        fields["digest"].bytes_value,
        deleted,
        has_mixed and fields["mixed"].boolean_value,
    )
    meta = Meta(version, base, read, has_merged and fields["merged"].boolean_value)
    seal = fields["seal"].bytes_value
    # Reading a missing entry creates it: a larger map therefore held an entry that is not ours.
    if len(fields) != entries:
        raise MetadataFault("it is not a map of firefleet's keys")
    if len(clock) > CLOCK_ENTRIES_MAX:
        raise MetadataFault(f"its clock has more than {CLOCK_ENTRIES_MAX} entries")
    if stamp < 0 or dot < 0 or base < 0 or read < 0 or (clock and min(clock.values()) < 1):
        raise MetadataFault("it holds an invalid time")
    return meta, seal
