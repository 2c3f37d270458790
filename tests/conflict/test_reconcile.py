"""Comparing two histories: exactly one relation, the mirror of the other way round."""

from hypothesis import given
from hypothesis import strategies as st

from conflict.clock import merge
from conflict.reconcile import Relation, reconcile
from conflict.version import NO_CONTENT, Version, with_clock_of, written
from tests.support.strategies import versions

MIRROR = {
    Relation.DESCENDS: Relation.ANCESTOR,
    Relation.TIED_ABOVE: Relation.TIED_BELOW,
    Relation.SUPERSEDES: Relation.SUPERSEDED,
    Relation.SAME: Relation.SAME,
    Relation.CONCURRENT: Relation.CONCURRENT,
}
MIRROR |= {mirrored: relation for relation, mirrored in MIRROR.items()}


def relation_of_sets(incoming: Version, local: Version) -> Relation:
    """The model: a version is the set of the writes it includes, and the writer of one of them."""
    ours, theirs = (
        {(r, d) for r, last in v.clock.items() for d in range(1, last + 1)} for v in (incoming, local)
    )
    if ours == theirs:
        ranks = [(v.stamp, v.origin, v.dot, v.digest, v.deleted, v.mixed) for v in (incoming, local)]
        if ranks[0] == ranks[1]:
            return Relation.SAME
        return Relation.TIED_ABOVE if ranks[0] > ranks[1] else Relation.TIED_BELOW
    if ours > theirs:
        return Relation.DESCENDS
    if ours < theirs:
        return Relation.ANCESTOR
    saw_local = (local.origin, local.dot) in ours
    saw_incoming = (incoming.origin, incoming.dot) in theirs
    if saw_local == saw_incoming or incoming.mixed or local.mixed:
        return Relation.CONCURRENT
    return Relation.SUPERSEDES if saw_local else Relation.SUPERSEDED


def with_equal_clocks(pair: tuple[Version, Version]) -> tuple[Version, Version]:
    a, b = pair
    return with_clock_of(a, b), with_clock_of(b, a)


pairs = st.tuples(versions(), versions())
any_pairs = pairs | pairs.map(with_equal_clocks)


@given(any_pairs)
def test_reconcile_agrees_with_sets(pair: tuple[Version, Version]) -> None:
    incoming, local = pair
    assert reconcile(incoming, local) is relation_of_sets(incoming, local)


@given(any_pairs)
def test_reconcile_is_the_mirror_of_itself_the_other_way_round(pair: tuple[Version, Version]) -> None:
    a, b = pair
    assert reconcile(a, b) is MIRROR[reconcile(b, a)]


@given(versions())
def test_a_version_is_the_same_as_itself(version: Version) -> None:
    assert reconcile(version, version) is Relation.SAME


@given(pairs)
def test_a_settled_conflict_descends_from_both_sides(pair: tuple[Version, Version]) -> None:
    a, b = pair
    merged = with_clock_of(a, b)
    for side in (a, b):
        relation = reconcile(merged, side)
        assert relation is Relation.DESCENDS or side.clock == merge(a.clock, b.clock)


def test_each_relation_by_an_example() -> None:
    first = written("eu", 10, b"\1a")
    later = written("us", 20, b"\1b", first)
    blind = written("eu", 15, b"\1c")  # its context was lost, but eu had written `first` before
    cousin = written("us", 12, b"\1d")
    merged = with_clock_of(later, blind)
    other_merge = with_clock_of(blind, later)
    found = {
        "later over first": reconcile(later, first),
        "first over later": reconcile(first, later),
        "first twice": reconcile(first, first),
        "blind over what had seen first": reconcile(blind, with_clock_of(first, cousin)),
        "what had seen first over blind": reconcile(with_clock_of(first, cousin), blind),
        "first and cousin": reconcile(first, cousin),
        "merged one way and the other": reconcile(merged, other_merge),
        "merged the other way and one": reconcile(other_merge, merged),
    }
    assert found == {
        "later over first": Relation.DESCENDS,
        "first over later": Relation.ANCESTOR,
        "first twice": Relation.SAME,
        "blind over what had seen first": Relation.SUPERSEDES,
        "what had seen first over blind": Relation.SUPERSEDED,
        "first and cousin": Relation.CONCURRENT,
        "merged one way and the other": Relation.TIED_ABOVE,
        "merged the other way and one": Relation.TIED_BELOW,
    }
    assert set(found.values()) == set(Relation)


def test_order_123_is_concurrent_and_the_next_write_dominates_both() -> None:
    """The source designs' example: neither [2,0,0] nor [1,1,0] descends from the other."""
    approved = Version({"us-central1": 2}, 1005, "us-central1", 2, b"\1approved")
    rejected = Version({"us-central1": 1, "us-east1": 1}, 1004, "us-east1", 1, b"\1rejected")
    assert reconcile(approved, rejected) is Relation.CONCURRENT
    settled = with_clock_of(approved, rejected)
    assert settled.clock == {"us-central1": 2, "us-east1": 1}
    following = written("europe-west1", 1006, b"\1refunded", settled)
    assert reconcile(following, approved) is Relation.DESCENDS
    assert reconcile(following, rejected) is Relation.DESCENDS


def test_forged_metadata_cannot_make_a_delete_equal_to_a_document() -> None:
    document = Version({"eu": 1}, 1, "eu", 1, NO_CONTENT)
    tombstone = Version({"eu": 1}, 1, "eu", 1, NO_CONTENT, deleted=True)
    assert reconcile(tombstone, document) is Relation.TIED_ABOVE
    assert reconcile(document, tombstone) is Relation.TIED_BELOW
