"""What Firestore does to one document, without a server: its checks, its field masks, its measure of size.

Pure functions over protobuf messages, used by the memory adapter. The rules are Firestore's documented limits
(https://firebase.google.com/docs/firestore/quotas, https://firebase.google.com/docs/firestore/storage-size);
where the documentation is silent they were read off the emulator, and the contract suite holds both to the
same answers. `Refused` here voids the whole request, as it does there.
"""

import math
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from replication.documents.wire import is_document_path, split_name
from replication.errors import Refused
from replication.limits import VALUE_BYTES_MAX

DEPTH_MAX = 20
"""Maps and arrays inside one another, in one field."""
NAME_BYTES_MAX = 1_500
"""One field name, or one segment of a document's path."""
STORED_PER_SERIALISED = 4
"""A stored document is at most this many times its serialised bytes: a geo point at zero takes 4 and 16."""

_RESERVED = re.compile(r"__.+__", re.DOTALL)
_IMPORTED_ID = re.compile(r"__id-?\d+__")  # what Datastore's numeric ids become; allowed where it is reserved
_FIELD_NAME = r"[a-zA-Z_][a-zA-Z_0-9]*|`(?:[^`\\]|\\.)+`"
_FIELD_PATH = re.compile(rf"(?:{_FIELD_NAME})(?:\.(?:{_FIELD_NAME}))*", re.DOTALL)
_FIRST_SECONDS, _LAST_SECONDS = -62_135_596_800, 253_402_300_799  # years 1 to 9999
_NANOS = 1_000_000_000
_DEGREES = {"latitude": 90.0, "longitude": 180.0}

Path = tuple[str, ...]


@lru_cache(maxsize=65_536)
def check_path(path: str) -> None:
    """Raise `Refused` unless a relative path can name a document."""
    if not is_document_path(path):
        raise Refused(f"{path!r} is not the path of a document: it has an odd or empty segment")
    for segment in path.split("/"):
        if segment in {".", ".."} or len(segment.encode()) > NAME_BYTES_MAX:
            raise Refused(f"{path!r}: {segment!r} cannot be an id (`.`, `..` or over {NAME_BYTES_MAX} bytes)")
        if _RESERVED.fullmatch(segment) and not _IMPORTED_ID.fullmatch(segment):
            raise Refused(f"{path!r}: the id {segment!r} is reserved")


@lru_cache(maxsize=4_096)
def field_path(text: str) -> Path:
    r"""The names along a field path as masks write it: `` a.`b.c`.`d\`e` `` is ``("a", "b.c", "d`e")``."""
    if not _FIELD_PATH.fullmatch(text):
        raise Refused(f"{text!r} is not a field path: put backticks around names that are not plain")
    names = tuple(
        re.sub(r"\\(.)", r"\1", name[1:-1], flags=re.DOTALL) if name[0] == "`" else name
        for name in re.findall(_FIELD_NAME, text, flags=re.DOTALL)
    )
    for name in names:
        _check_field_name(name)
    return names


@lru_cache(maxsize=4_096)
def _check_field_name(name: str) -> None:
    if not name or len(name.encode()) > NAME_BYTES_MAX:
        raise Refused(f"a field name is empty or over {NAME_BYTES_MAX} bytes: {name[:40]!r}")
    if _RESERVED.fullmatch(name):
        raise Refused(f"the field name {name!r} is reserved")


def normalise(fields: Any) -> None:
    """Check a document's fields and bring them, in place, into the form Firestore keeps.

    Timestamps lose what is finer than a microsecond, every NaN becomes the usual one. Raises `Refused`.
    """
    for name in fields:
        _check_field_name(name)
        _normalise_value(fields[name], depth=1)


def _normalise_value(value: Any, *, depth: int) -> None:
    match value.WhichOneof("value_type"):
        case "null_value" | "boolean_value" | "integer_value" | "string_value" | "bytes_value":
            pass
        case "map_value":
            _normalise_map(value.map_value.fields, depth=depth)
        case "array_value":
            _normalise_array(value.array_value.values, depth=depth)
        case "double_value":
            if math.isnan(value.double_value):
                value.double_value = math.nan
        case "timestamp_value":
            _normalise_timestamp(value.timestamp_value)
        case "reference_value":
            _check_reference(value.reference_value)
        case "geo_point_value":
            _check_geo_point(value.geo_point_value)
        case other:
            raise Refused(f"a value of type {other or 'unset'} cannot be stored")


def _normalise_map(fields: Any, *, depth: int) -> None:
    _check_depth(depth)
    if _is_vector(fields):
        return
    for name in fields:
        _check_field_name(name)
        _normalise_value(fields[name], depth=depth + 1)


def _normalise_array(values: Any, *, depth: int) -> None:
    _check_depth(depth)
    for value in values:
        if value.HasField("array_value"):
            raise Refused("an array cannot hold an array")
        _normalise_value(value, depth=depth + 1)


def _check_depth(depth: int) -> None:
    if depth > DEPTH_MAX:
        raise Refused(f"maps and arrays are nested over {DEPTH_MAX} deep")


def _is_vector(fields: Any) -> bool:
    """Whether a map is how the API writes a vector embedding: the one use of a reserved field name."""
    if "__type__" not in fields or fields["__type__"].string_value != "__vector__":
        return False
    numbers = fields["value"].array_value.values if "value" in fields else ()
    return len(fields) == 2 and all(number.HasField("double_value") for number in numbers)


def _normalise_timestamp(timestamp: Any) -> None:
    if not (_FIRST_SECONDS <= timestamp.seconds <= _LAST_SECONDS and 0 <= timestamp.nanos < _NANOS):
        raise Refused(f"timestamp {timestamp.seconds} s {timestamp.nanos} ns is outside the years 1 to 9999")
    if finer := timestamp.nanos % 1000:
        timestamp.nanos -= finer


def _check_reference(name: str) -> None:
    parts = split_name(name)
    if parts is None:
        raise Refused(f"the reference {name!r} names no document")
    check_path(parts[2])


def _check_geo_point(point: Any) -> None:
    for name, limit in _DEGREES.items():
        if not -limit <= getattr(point, name) <= limit:
            raise Refused(f"{name} {getattr(point, name)} is outside {-limit} to {limit}")


def overlay(fields: Any, new: Any, mask: Iterable[Path]) -> None:
    """Copy into `fields` what `mask` names of `new`; what it names and `new` lacks is removed."""
    for path in mask:
        value = _lookup(new, path)
        if value is None:
            _remove(fields, path)
        else:
            place(fields, path, value)


def _lookup(fields: Any, path: Path) -> Any | None:
    *parents, last = path
    for name in parents:
        if name not in fields or not fields[name].HasField("map_value"):
            return None
        fields = fields[name].map_value.fields
    return fields.get(last)


def place(fields: Any, path: Path, value: Any) -> None:
    """Set one field; a parent that is missing, or no map, becomes a map."""
    *parents, last = path
    for name in parents:
        fields = fields[name].map_value.fields
    fields[last].CopyFrom(value)


def _remove(fields: Any, path: Path) -> None:
    *parents, last = path
    for name in parents:
        if name not in fields or not fields[name].HasField("map_value"):
            return
        fields = fields[name].map_value.fields
    if last in fields:
        del fields[last]


def stored_size(path: str, fields: Any) -> int:
    """A document's size in bytes as Firestore counts it against its limit of 1 MiB. Exact.

    Raises `Refused` for a single value over its own limit.
    """
    return _path_size(path) + _fields_size(fields) + 32


def _path_size(path: str) -> int:
    return sum(_text_size(segment) for segment in path.split("/")) + 16


def _fields_size(fields: Any) -> int:
    return sum(_text_size(name) + _value_size(fields[name]) for name in fields)


def _text_size(text: str) -> int:
    return len(text.encode()) + 1


def _value_size(value: Any) -> int:
    match value.WhichOneof("value_type"):
        case "map_value":
            return _fields_size(value.map_value.fields)
        case "array_value":
            return sum(_value_size(one) for one in value.array_value.values)
        case "string_value":
            return _bounded(len(value.string_value.encode())) + 1
        case "bytes_value":
            return _bounded(len(value.bytes_value))
        case "reference_value":
            return _path_size(value.reference_value.split("/", 5)[-1])
        case "geo_point_value":
            return 16
        case "null_value" | "boolean_value":
            return 1
        case _:  # integers, doubles and timestamps
            return 8


def _bounded(size: int) -> int:
    if size > VALUE_BYTES_MAX:
        raise Refused(f"a value of {size} bytes is over the limit of {VALUE_BYTES_MAX}")
    return size
