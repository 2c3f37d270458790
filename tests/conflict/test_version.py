"""What a write and a delete make of what their writer had seen."""

from hypothesis import assume, given
from hypothesis import strategies as st

from conflict.clock import descends, includes, merge
from conflict.reconcile import Relation, reconcile
from conflict.version import NO_CONTENT, Version, deleted, supersedes, with_clock_of, written
from tests.support.strategies import DOT_MAX, dots, replicas, versions

contexts = st.none() | versions()
late = st.integers(1, 2 * DOT_MAX)


@given(replicas(), late, contexts)
def test_a_write_includes_its_own_dot_and_all_its_writer_had_seen(
    replica: str, time: int, context: Version | None
) -> None:
    version = written(replica, time, b"\1x", context)
    assert (version.origin, version.dot, version.digest) == (replica, time, b"\1x")
    assert includes(version.clock, replica, time)
    assert not version.deleted
    assert not version.mixed
    if context is None:
        assert version.clock == {replica: time}
    else:
        assert version.clock == merge(context.clock, {replica: time})


@given(replicas(), late, versions())
def test_a_write_is_later_than_what_its_writer_had_seen(replica: str, time: int, context: Version) -> None:
    """However slow its clock is: the stamp is the largest that is forced, and no larger."""
    stamp = written(replica, time, b"\1x", context).stamp
    assert stamp > context.stamp
    assert stamp >= time
    assert stamp in (time, context.stamp + 1)


@given(replicas(), late)
def test_a_write_without_context_is_as_late_as_its_commit(replica: str, time: int) -> None:
    assert written(replica, time, b"\1x").stamp == time


@given(replicas(), late, versions())
def test_a_new_write_descends_from_its_context(replica: str, time: int, context: Version) -> None:
    assume(time > context.clock.get(replica, 0))
    assert reconcile(written(replica, time, b"\1x", context), context) is Relation.DESCENDS


@given(replicas(), dots(), late, contexts)
def test_a_delete_includes_the_write_it_deleted(
    replica: str, update: int, event: int, context: Version | None
) -> None:
    version = deleted(replica, update, event, context)
    assert version.deleted
    assert version.digest == NO_CONTENT
    assert version.dot == update + 1
    assert includes(version.clock, replica, version.dot)
    assert version.stamp >= max(event, version.dot)
    if context is None:
        assert version.stamp == max(event, version.dot)
    else:
        assert version.clock == merge(context.clock, {replica: version.dot})
        assert version.stamp > context.stamp


@given(replicas(), dots(), late, contexts, st.integers(2, 5), st.none() | versions(mixed=False))
def test_any_recreation_supersedes_the_delete(
    replica: str, update: int, event: int, context: Version | None, later: int, other: Version | None
) -> None:
    """Whatever its own context, and though the delete's event time may be after it."""
    # What was deleted had been written at this replica by `update` at the latest.
    assume(context is None or context.clock.get(replica, 0) <= update)
    gone = deleted(replica, update, event, context)
    recreated = written(replica, update + later, b"\1x", other)
    assert supersedes(recreated, gone)
    assert reconcile(recreated, gone) in (Relation.DESCENDS, Relation.SUPERSEDES)


@given(versions(), versions())
def test_supersedes_is_one_sided_and_never_of_mixed_versions(a: Version, b: Version) -> None:
    assert not (supersedes(a, b) and supersedes(b, a))
    assert not supersedes(a, a)
    if a.mixed or b.mixed:
        assert not supersedes(a, b)


@given(versions(), versions())
def test_taking_over_a_clock_changes_nothing_else(winner: Version, other: Version) -> None:
    merged = with_clock_of(winner, other)
    assert merged.clock == merge(winner.clock, other.clock)
    assert descends(merged.clock, other.clock)
    assert merged.total == winner.total
    assert merged.same_content(winner)


@given(versions(), versions())
def test_the_total_order_refines_the_order_and_tells_contents_apart(a: Version, b: Version) -> None:
    assert a.total[: len(a.order)] == a.order
    if a.total == b.total:
        assert a.same_content(b)
        assert a.mixed == b.mixed


def test_two_deletes_have_the_same_content() -> None:
    assert deleted("eu", 4, 5).same_content(deleted("us", 7, 9))
    assert not deleted("eu", 4, 5).same_content(written("eu", 9, b"\1x"))
