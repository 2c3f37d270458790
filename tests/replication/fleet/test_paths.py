"""Patterns of document paths: which documents they match, and which pattern covers which."""

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replication.fleet.paths import EVERY_DOCUMENT, PatternError, parse_pattern


def matches(pattern: str, path: str) -> bool:
    return re.compile(parse_pattern(pattern).regex, re.DOTALL).fullmatch(path) is not None


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("carts/{cart}", "carts/7", True),
        ("carts/{cart}", "carts/7/items/1", False),
        ("carts/{cart}", "Carts/7", False),
        ("carts/{cart}/items/{item}", "carts/7/items/1", True),
        ("carts/main", "carts/main", True),
        ("carts/main", "carts/other", False),
        ("{collection}/{document}", "anything/1", True),
        ("carts/{rest=**}", "carts/7", True),
        ("carts/{rest=**}", "carts/7/items/1", True),
        ("carts/{rest=**}", "cartsX/7", False),
        ("carts/{cart}/{rest=**}", "carts/7", True),
        ("{document=**}", "a/b/c/d/e/f", True),
        ("a.b/{x}", "a.b/1", True),
        ("a.b/{x}", "aXb/1", False),
        ("über maß/{x}", "über maß/new\nline", True),
    ],
)
def test_a_pattern_matches_as_in_firestores_rules(pattern: str, path: str, expected: bool) -> None:
    assert matches(pattern, path) is expected


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("/carts/{cart}", "begins or ends with '/'; write it as 'carts/{cart}'"),
        ("carts/{cart}/", "begins or ends with '/'"),
        ("carts", "is a collection, not its documents; write 'carts/{document}'"),
        ("carts/{cart}/items", "write 'carts/{cart}/items/{document}'"),
        ("carts//items", "has an empty segment"),
        ("", "has an empty segment"),
        ("carts/{cart", "'{cart' in 'carts/{cart' is not a segment"),
        ("carts/cart}", "is not a segment"),
        ("carts/{}", "is not a segment"),
        ("carts/*", "is not a segment"),
        ("carts/{cart=*}", "write a plain id, {name}, or {name=**}"),
        ("carts/pre{cart}", "is not a segment"),
        ("{rest=**}/items/{item}", "'{rest=**}' is not at the end"),
    ],
)
def test_what_is_no_pattern_is_refused_with_the_remedy(pattern: str, message: str) -> None:
    with pytest.raises(PatternError, match=re.escape(message)):
        parse_pattern(pattern)


def test_patterns_that_differ_in_names_only_are_equal() -> None:
    assert parse_pattern("carts/{a}") == parse_pattern("carts/{b}")
    assert parse_pattern("{anything=**}") == EVERY_DOCUMENT


SEGMENTS = st.sampled_from(["a", "b", "{x}"])
PATTERNS = st.builds(
    lambda fixed, rest: "/".join([*fixed, "{r=**}"] if rest or not fixed or len(fixed) % 2 else fixed),
    st.lists(SEGMENTS, max_size=4),
    st.booleans(),
)
# Every document down to three levels whose ids are the ones patterns spell out, or another.
PATHS = ["/".join(path) for depth in (2, 4, 6) for path in product("abc", repeat=depth)]


@given(PATTERNS, PATTERNS)
def test_covers_is_what_comparing_all_small_paths_says(one: str, other: str) -> None:
    """A model beside the witnesses: pattern A covers B when no small path matches B alone."""
    ours, theirs = (re.compile(parse_pattern(text).regex).fullmatch for text in (one, other))
    expected = all(ours(path) for path in PATHS if theirs(path))
    assert parse_pattern(one).covers(parse_pattern(other)) is expected
