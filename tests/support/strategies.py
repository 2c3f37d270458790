"""Hypothesis strategies for what replication handles: plain values, fields, clocks, versions, candidates.

Numbers and names are drawn from small ranges on purpose: equal stamps, equal dots and shared names are where
the faults are.
"""

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from conflict.resolve import Candidate
from conflict.values import GeoPoint, Reference
from conflict.version import NO_CONTENT, Version

REPLICAS = ("apac", "eu", "us")
DOT_MAX = 6
"""Dots are 1 to this, so that a clock can be modelled as the set of all it includes."""

INT64 = st.integers(-(2**63), 2**63 - 1)
NAMES = ("n", "note", "status", "tags")
_ABSENT: Any = object()


def replicas() -> SearchStrategy[str]:
    return st.sampled_from(REPLICAS)


def dots() -> SearchStrategy[int]:
    return st.integers(1, DOT_MAX)


def clocks() -> SearchStrategy[dict[str, int]]:
    return st.tuples(*[st.integers(0, DOT_MAX)] * len(REPLICAS)).map(
        lambda lasts: {replica: last for replica, last in zip(REPLICAS, lasts, strict=True) if last}
    )


def numbers() -> SearchStrategy[int | float]:
    """Numbers of both types, with many that are equal across them and many that a float cannot hold."""
    near = st.sampled_from([0, 1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)])
    return st.one_of(near, near.map(float), st.just(-0.0), INT64, st.floats())


def references() -> SearchStrategy[Reference]:
    segment = st.sampled_from(["a", "a-b", "b", "é"])
    path = st.lists(segment, min_size=2, max_size=4).filter(lambda parts: len(parts) % 2 == 0)
    return path.map(lambda parts: Reference("projects/p/databases/d/documents/" + "/".join(parts)))


def geo_points() -> SearchStrategy[GeoPoint]:
    return st.builds(GeoPoint, st.floats(-90, 90), st.floats(-180, 180))


def times() -> SearchStrategy[datetime]:
    """Firestore's range of timestamps, as UTC."""
    return st.datetimes(min_value=datetime(1, 1, 1), timezones=st.just(UTC))


def vectors() -> SearchStrategy[dict[str, Any]]:
    elements = st.lists(st.floats(allow_nan=False), min_size=1, max_size=3)
    return elements.map(lambda values: {"__type__": "__vector__", "value": values})


def scalars() -> SearchStrategy[Any]:
    """One value of every type that holds no others, vectors included."""
    return st.one_of(
        st.none(),
        st.booleans(),
        numbers(),
        times(),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
        st.binary(max_size=4),
        references(),
        geo_points(),
        vectors(),
    )


def maps(values: SearchStrategy[Any]) -> SearchStrategy[dict[str, Any]]:
    names = st.one_of(st.sampled_from(NAMES), st.text("abéz𝄞.` ", min_size=1, max_size=3))
    return st.dictionaries(names, values, max_size=3)


def values() -> SearchStrategy[Any]:
    """A plain value of any Firestore type; arrays hold no arrays, as in Firestore."""
    elements = st.one_of(scalars(), maps(scalars()))
    return st.one_of(
        scalars(), st.lists(elements, max_size=3), maps(st.one_of(elements, st.lists(elements, max_size=2)))
    )


def bodies() -> SearchStrategy[dict[str, Any]]:
    """A document's fields, of any shape."""
    return maps(values())


def rival_bodies() -> SearchStrategy[dict[str, Any]]:
    """Fields with few names and few values, so that two bodies disagree in some and agree in others."""
    number = [0, 1, 1.0, 2, float("nan"), None]
    element = st.sampled_from(["a", "b", 1, 1.0, True, -0.0])
    per_name = (
        st.sampled_from([_ABSENT, *number]),
        st.sampled_from([_ABSENT, "x", "y"]),
        st.sampled_from([_ABSENT, "pending", "approved", "rejected", "other"]),
        st.sampled_from([_ABSENT, *number]) | st.lists(element, max_size=3),
    )
    return st.tuples(*per_name).map(
        lambda row: {name: value for name, value in zip(NAMES, row, strict=True) if value is not _ABSENT}
    )


def versions(*, mixed: bool | None = None) -> SearchStrategy[Version]:
    """Any version whose clock includes its own dot and whose stamp is not below it."""
    digests = st.sampled_from([NO_CONTENT, b"\1a", b"\1b"])  # none: deleted
    mixtures = st.booleans() if mixed is None else st.just(mixed)
    return st.builds(_version, clocks(), replicas(), dots(), st.integers(0, 3), digests, mixtures)


def _version(clock: dict[str, int], origin: str, dot: int, ahead: int, digest: bytes, mixed: bool) -> Version:
    return Version(
        clock={**clock, origin: max(dot, clock.get(origin, 0))},
        stamp=dot + ahead,
        origin=origin,
        dot=dot,
        digest=digest,
        deleted=digest == NO_CONTENT,
        mixed=mixed,
    )


def rivals(
    count: int,
    *,
    fields: SearchStrategy[dict[str, Any]] | None = None,
    deletes: bool = False,
) -> SearchStrategy[list[Candidate]]:
    """Concurrent writes (and deletes) of one document, no two with the same (stamp, origin, dot).

    Their digests are left empty: what a digest is, the reader of the result decides.
    """
    body = rival_bodies() if fields is None else fields
    side = st.builds(_rival, replicas(), dots(), st.integers(0, 2), body | st.none() if deletes else body)
    return st.lists(side, min_size=count, max_size=count, unique_by=lambda side: side.version.order)


def _rival(origin: str, dot: int, ahead: int, body: dict[str, Any] | None) -> Candidate:
    version = Version({origin: dot}, dot + ahead, origin, dot, deleted=body is None)
    return Candidate(version, body or {})
