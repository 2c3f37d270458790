"""A document's values as policies see them, and one total order over all of them.

A value is None, bool, int, float, str, bytes, datetime (with its time zone, to the microsecond), `Reference`,
`GeoPoint`, or a list or dict of values. A vector is what Firestore stores it as: a map with `__type__`.

The order is Firestore's own across types and within them, so that a policy's maximum is the document that a
query would sort last: https://firebase.google.com/docs/firestore/manage-data/data-types. Firestore treats some
different values as equal (1, 1.0; 0.0, -0.0), which would leave a choice between them to chance; `sort_key`
distinguishes them, after everything that Firestore compares.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import copysign, isnan
from typing import Any

SortKey = tuple[Any, ...]
"""Opaque: compare it, or use it as a set's member. Equal keys are identical values."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# Firestore's order of types. A value's rank comes first in its key, so that different types never meet.
_NULL, _BOOLEAN, _NAN, _NUMBER, _TIME, _STRING, _BYTES, _REFERENCE, _GEO, _ARRAY, _VECTOR, _MAP = range(12)


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference to a document, by its full resource name (`projects/…/databases/…/documents/…`)."""

    name: str


@dataclass(frozen=True, slots=True)
class GeoPoint:
    """A point on Earth, in degrees."""

    latitude: float
    longitude: float


def sort_key(value: Any) -> SortKey:
    """The value's place in the total order; two keys are equal only if the values are identical.

    Raises TypeError for what Firestore cannot hold, a datetime without a time zone included.
    """
    return (firestore_key(value), _detail(value))


def same(a: Any, b: Any) -> bool:
    """Whether two values are identical: unlike `==`, distinguishes 1, 1.0 and True, and NaN is itself."""
    return sort_key(a) == sort_key(b)


def firestore_key(value: Any) -> SortKey:
    """The value's place in Firestore's order, in which 1 and 1.0 are equal. Raises as `sort_key` does."""
    match value:
        case None:
            return (_NULL,)
        case bool():  # before int, which it is in Python
            return (_BOOLEAN, value)
        case float() if isnan(value):
            return (_NAN,)
        case int() | float():
            # Python compares an int with a float exactly, also above 2**53.
            return (_NUMBER, value)
        case datetime():
            return (_TIME, (value - _EPOCH) // _MICROSECOND)
        case str():
            # Firestore orders strings by their UTF-8 bytes, which is the order of code points: Python's.
            return (_STRING, value)
        case bytes():
            return (_BYTES, value)
        case Reference():
            return (_REFERENCE, *value.name.split("/"))
        case GeoPoint():
            return (_GEO, firestore_key(value.latitude), firestore_key(value.longitude))
        case list():
            return (_ARRAY, *map(firestore_key, value))
        case Mapping():
            return _map_key(value)
        case _:
            raise TypeError(f"Firestore cannot hold a {type(value).__name__}")


def _map_key(value: Mapping[Any, Any]) -> SortKey:
    if value.get("__type__") == "__vector__" and isinstance(value.get("value"), list) and len(value) == 2:
        elements = value["value"]
        return (_VECTOR, len(elements), *map(firestore_key, elements))
    return (_MAP, *((name, firestore_key(value[name])) for name in _names(value)))


def _names(value: Mapping[Any, Any]) -> list[str]:
    for name in value:
        if not isinstance(name, str):
            raise TypeError(f"a field's name must be a string, not {type(name).__name__}: {name!r}")
    return sorted(value)


def _detail(value: Any) -> Any:
    # What Firestore's order leaves open. Only compared between values whose `firestore_key` is equal, and
    # which therefore have the same shape.
    match value:
        case float() if isnan(value):
            return struct.pack(">d", value)  # there are many NaNs; each is stored as it is
        case float():
            return copysign(2, value) if value == 0 else 2
        case int() if not isinstance(value, bool):
            return 1  # below the float of the same value, above -0.0
        case GeoPoint():
            return (_detail(value.latitude), _detail(value.longitude))
        case list():
            return tuple(map(_detail, value))
        case Mapping():
            return tuple(_detail(value[name]) for name in _names(value))
        case _:
            return 0
