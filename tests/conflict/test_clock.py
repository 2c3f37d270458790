"""Clocks are a lattice; beside each function, the same on plain sets of (replica, dot)."""

from hypothesis import given

from conflict.clock import Clock, advance, descends, includes, merge
from tests.support.strategies import clocks, dots, replicas

Seen = set[tuple[str, int]]


def seen(clock: Clock) -> Seen:
    """The model of a clock: every write it includes, one by one."""
    return {(replica, dot) for replica, last in clock.items() for dot in range(1, last + 1)}


@given(clocks(), clocks())
def test_descends_is_inclusion_of_sets(a: Clock, b: Clock) -> None:
    assert descends(a, b) == (seen(a) >= seen(b))


@given(clocks(), clocks(), clocks())
def test_descends_is_a_partial_order(a: Clock, b: Clock, c: Clock) -> None:
    """Reflexive, antisymmetric, transitive."""
    assert descends(a, a)
    if descends(a, b) and descends(b, a):
        assert a == b
    if descends(a, b) and descends(b, c):
        assert descends(a, c)


@given(clocks(), clocks())
def test_merge_is_union_of_sets(a: Clock, b: Clock) -> None:
    assert seen(merge(a, b)) == seen(a) | seen(b)


@given(clocks(), clocks(), clocks())
def test_merge_is_the_least_upper_bound(a: Clock, b: Clock, above: Clock) -> None:
    merged = merge(a, b)
    assert descends(merged, a)
    assert descends(merged, b)
    if descends(above, a) and descends(above, b):
        assert descends(above, merged)


@given(clocks(), clocks(), clocks())
def test_merge_is_commutative_associative_and_idempotent(a: Clock, b: Clock, c: Clock) -> None:
    assert merge(a, b) == merge(b, a)
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(a, a) == a


@given(clocks(), clocks())
def test_merge_leaves_its_arguments_alone(a: Clock, b: Clock) -> None:
    before = dict(a), dict(b)
    merge(a, b)
    assert (a, b) == before


@given(clocks(), replicas(), dots())
def test_includes_is_membership(clock: Clock, replica: str, dot: int) -> None:
    assert includes(clock, replica, dot) == ((replica, dot) in seen(clock))


@given(clocks(), replicas(), dots())
def test_advance_adds_one_write_and_all_before_it(clock: Clock, replica: str, dot: int) -> None:
    assert seen(advance(clock, replica, dot)) == seen(clock) | seen({replica: dot})


def test_an_entry_of_zero_says_no_more_than_none() -> None:
    assert descends({}, {"eu": 0})
    assert not includes({}, "eu", 1)
