"""Protobuf values as plain Python ones, and back: only for policies, and only in a conflict.

Lossless both ways as long as no one compares with `==` (1 == 1.0 == True): integers are `int`, doubles
`float`, a vector is the map that Firestore stores. A value that a policy takes over unchanged is passed on as
the very protobuf message it came as.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from conflict.values import GeoPoint, Reference
from replication.documents.wire import Document, micros, set_micros

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


Documents = Mapping[str, Mapping[str, Any]]
"""A database's documents by relative path, this system's own included.

Values are plain ones (`conflict.values`); a reference into the database itself begins with `~/`.
"""


class BodyFields(Mapping[str, Any]):
    """The fields of a body as a read-only mapping, decoded when they are first looked at."""

    def __init__(self, body: bytes | None) -> None:
        self._body = body
        self._stored: dict[str, Any] | None = None
        self._plain: dict[str, Any] = {}

    @property
    def stored(self) -> Mapping[str, Any]:
        """The protobuf values by field name, in the names' order: a protobuf map has none."""
        if self._stored is None:
            fields = Document.FromString(self._body).fields if self._body is not None else {}
            self._stored = {name: fields[name] for name in sorted(fields)}
        return self._stored

    def __getitem__(self, name: str) -> Any:
        if name not in self._plain:
            self._plain[name] = to_plain(self.stored[name])
        return self._plain[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)

    def taken(self, name: str, value: Any) -> Any | None:
        """The protobuf value that the plain `value` was decoded from, if it is this very object."""
        return self.stored[name] if self._plain.get(name, _ABSENT) is value else None


_ABSENT = object()


def body_of(fields: Mapping[str, Any], *sides: BodyFields, reserved: str) -> bytes:
    """The body that holds `fields`; what was taken over from one of `sides` keeps its stored form.

    Raises TypeError or ValueError for what Firestore cannot hold, and for the field `reserved`.
    """
    if reserved in fields:
        raise ValueError(f"field {reserved!r} is firefleet's own")
    document = Document()
    for name, value in fields.items():
        if not isinstance(name, str):
            raise TypeError(f"field name {name!r} is not a string")
        stored = next((found for side in sides if (found := side.taken(name, value)) is not None), None)
        if stored is not None:
            document.fields[name].CopyFrom(stored)
        else:
            fill(document.fields[name], value)
    return bytes(document.SerializeToString(deterministic=True))


def to_plain(value: Any) -> Any:
    """A protobuf Value as a plain one."""
    kind = value.WhichOneof("value_type")
    match kind:
        case "null_value" | None:
            return None
        case "timestamp_value":
            return _EPOCH + timedelta(microseconds=micros(value.timestamp_value))
        case "reference_value":
            return Reference(value.reference_value)
        case "geo_point_value":
            return GeoPoint(value.geo_point_value.latitude, value.geo_point_value.longitude)
        case "array_value":
            return [to_plain(inner) for inner in value.array_value.values]
        case "map_value":
            fields = value.map_value.fields
            return {name: to_plain(fields[name]) for name in sorted(fields)}
        case _:
            return getattr(value, kind)


def fill(into: Any, value: Any) -> None:
    """Write a plain value into a protobuf Value. Raises TypeError or ValueError if it cannot be one."""
    match value:
        case None:
            into.null_value = 0
        case bool():
            into.boolean_value = value
        case int():
            into.integer_value = value
        case float():
            into.double_value = value
        case str():
            into.string_value = value
        case bytes():
            into.bytes_value = value
        case datetime():
            set_micros(into.timestamp_value, (value - _EPOCH) // _MICROSECOND)
        case Reference():
            into.reference_value = value.name
        case GeoPoint():
            into.geo_point_value.latitude = value.latitude
            into.geo_point_value.longitude = value.longitude
        case list() | tuple():
            into.array_value.SetInParent()
            for inner in value:
                fill(into.array_value.values.add(), inner)
        case Mapping():
            into.map_value.SetInParent()
            for name, inner in value.items():
                fill(into.map_value.fields[name], inner)
        case _:
            raise TypeError(f"Firestore cannot hold a {type(value).__name__}")
