"""One total order over every value, which is Firestore's wherever Firestore has one."""

import math
import struct
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from conflict.values import GeoPoint, Reference, firestore_key, same, sort_key
from tests.support.strategies import numbers, times, values

DOCUMENTS = "projects/p/databases/d/documents/"

LOWEST_FIRST: list[Any] = [
    None,
    False,
    True,
    math.nan,
    -math.inf,
    -(2**63),
    -1,
    -0.0,
    0,
    0.0,
    2**53,
    2.0**53,
    2**53 + 1,
    2**63 - 1,
    2.0**63,
    math.inf,
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(2024, 1, 1, tzinfo=UTC),
    datetime(2024, 1, 1, microsecond=1, tzinfo=UTC),
    "",
    "Z",
    "a",
    "aa",
    "é",
    "\uffff",
    "\U00010000",  # UTF-16 would put it below the one above
    b"",
    b"\0",
    b"\xff",
    Reference(DOCUMENTS + "a/1"),
    Reference(DOCUMENTS + "a/1/b/1"),
    Reference(DOCUMENTS + "a-b/1"),  # by segments: as one string it would be below the two above
    GeoPoint(-1.0, 9.0),
    GeoPoint(0.0, -1.0),
    GeoPoint(0.0, 1.0),
    [],
    [None],
    [1, 5],
    [1.0, 5],
    [1, 6],  # 1 and 1.0 are told apart after everything else
    [[]],
    {"__type__": "__vector__", "value": [9.0]},
    {"__type__": "__vector__", "value": [0.0, 0.0]},
    {"__type__": "__vector__", "value": [0.0, 1.0]},
    {},
    {"__type__": "__vector__"},
    {"__type__": "__vector__", "value": [0.0], "more": 1},
    {"a": 1},
    {"a": 1, "b": 0},
    {"a": 1.0, "b": 0},
    {"a": 1, "c": 0},
    {"a": 2},
    {"b": 0},
]


def identical(a: Any, b: Any) -> bool:
    """The model of identity: the same type and the same content, bit by bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack(">d", a) == struct.pack(">d", b)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(identical, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(identical(a[name], b[name]) for name in a)
    if isinstance(a, GeoPoint):
        return identical(a.latitude, b.latitude) and identical(a.longitude, b.longitude)
    return bool(a == b)


def test_the_golden_order() -> None:
    keys = [sort_key(value) for value in LOWEST_FIRST]
    for below, above in pairwise(keys):
        assert below < above


@given(st.permutations(LOWEST_FIRST))
def test_sorting_has_one_result(shuffled: list[Any]) -> None:
    assert [sort_key(value) for value in sorted(shuffled, key=sort_key)] == [*map(sort_key, LOWEST_FIRST)]


@given(values(), values())
def test_any_two_values_compare_and_only_identical_ones_are_equal(a: Any, b: Any) -> None:
    mine, theirs = sort_key(a), sort_key(b)
    assert [mine < theirs, mine == theirs, mine > theirs].count(True) == 1
    assert (mine == theirs) == identical(a, b)
    assert same(a, b) == identical(a, b)
    if mine == theirs:
        assert hash(mine) == hash(theirs)


@given(values())
def test_a_key_depends_on_the_content_alone(value: Any) -> None:
    assert sort_key(value) == sort_key(deepcopy(value))
    assert same(value, value)
    hash(sort_key(value))


@given(numbers(), numbers())
def test_numbers_of_both_types_compare_exactly(a: float, b: float) -> None:
    assume(math.isfinite(a) and math.isfinite(b))
    if Fraction(a) != Fraction(b):
        assert (sort_key(a) < sort_key(b)) == (Fraction(a) < Fraction(b))
    else:
        assert firestore_key(a) == firestore_key(b)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), st.text("aé\uffff𝄞", max_size=3))
def test_strings_compare_by_their_utf8_bytes(a: str, b: str) -> None:
    assert (sort_key(a) < sort_key(b)) == (a.encode() < b.encode())


@given(times(), times())
def test_times_compare_to_the_microsecond(a: datetime, b: datetime) -> None:
    assert (sort_key(a) < sort_key(b)) == (a < b)
    assume(a < datetime(9999, 12, 31, tzinfo=UTC))
    assert sort_key(a) < sort_key(a + timedelta(microseconds=1))


def test_one_is_not_true_and_not_one_point_zero() -> None:
    assert len({sort_key(value) for value in (1, 1.0, True)}) == 3
    assert firestore_key(1) == firestore_key(1.0) != firestore_key(True)


def test_nans_of_different_bits_are_different_values() -> None:
    (odd,) = struct.unpack(">d", bytes.fromhex("7ff8000000000001"))
    assert math.isnan(odd)
    assert not same(math.nan, odd)
    assert same([odd], [odd])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({1, 2}, "set"),
        (1 + 2j, "complex"),
        ([object()], "object"),
        ({"a": (1,)}, "tuple"),
        ({1: "a"}, "name must be a string, not int"),
        (datetime(2024, 1, 1), "offset-naive"),
    ],
)
def test_what_firestore_cannot_hold_has_no_place_in_the_order(value: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        sort_key(value)
