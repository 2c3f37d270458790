"""Settling a conflict: one answer at every replica, whoever asks, in whatever order."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conflict.clock import merge as merge_clocks
from conflict.policies import Custom, FieldRules, LastWriteWins, Precedence
from conflict.resolve import Candidate, Fields, OnDelete, Policy, last_write, resolve
from conflict.version import NO_CONTENT, Version, deleted, written
from tests.conflict.folding import POLICIES, merge, sealed, state
from tests.support.strategies import REPLICAS, rivals

policies = st.sampled_from(POLICIES)
LWW = LastWriteWins()


def write(replica: str, time: int, **fields: Any) -> Candidate:
    return sealed(Candidate(written(replica, time, b""), fields))


def gone(replica: str, time: int) -> Candidate:
    return Candidate(deleted(replica, time - 1, time))


@given(rivals(2, deletes=True), policies, st.sampled_from(OnDelete))
def test_resolve_is_commutative(sides: list[Candidate], policy: Policy, on_delete: OnDelete) -> None:
    a, b = map(sealed, sides)
    one = merge(a, b, policy=policy, on_delete=on_delete)
    other = merge(b, a, policy=policy, on_delete=on_delete)
    assert state(one) == state(other)


@given(rivals(1, deletes=True), policies, st.sampled_from(OnDelete))
def test_resolve_is_idempotent(sides: list[Candidate], policy: Policy, on_delete: OnDelete) -> None:
    side = sealed(sides[0])
    assert state(merge(side, side, policy=policy, on_delete=on_delete)) == state(side)
    assert state(merge(side, replace(side), policy=policy, on_delete=on_delete)) == state(side)


@given(rivals(2, deletes=True), policies, st.sampled_from(OnDelete))
def test_the_result_has_seen_both_sides(sides: list[Candidate], policy: Policy, on_delete: OnDelete) -> None:
    """And nothing more; but for its clock, a winner's version is as it was."""
    a, b = map(sealed, sides)
    resolution = resolve(a, b, policy=policy, on_delete=on_delete)
    assert resolution.version.clock == merge_clocks(a.version.clock, b.version.clock)
    assert resolution.failure is None
    assert (resolution.winner is None) != (resolution.fields is None)
    if resolution.winner is not None:
        assert any(resolution.winner is side for side in (a, b))
        assert resolution.version.total == resolution.winner.version.total
    else:
        later = max((a, b), key=lambda side: side.version.order).version
        assert resolution.version.mixed
        assert (resolution.version.stamp, resolution.version.origin, resolution.version.dot) == later.order[:3]
        assert not resolution.version.deleted


def every_fold(sides: list[Candidate], *, policy: Policy, on_delete: OnDelete) -> Iterator[Candidate]:
    def merged(a: Candidate, b: Candidate) -> Candidate:
        return merge(a, b, policy=policy, on_delete=on_delete)

    for a, b, c in permutations(sides):
        both = merged(a, b)
        yield merged(both, c)
        yield merged(c, both)


@given(
    rivals(3, deletes=True),
    st.sampled_from(
        [(LWW, OnDelete.LWW)]
        + [(policy, rule) for policy in POLICIES for rule in (OnDelete.DELETE_WINS, OnDelete.UPDATE_WINS)]
    ),
)
def test_three_sides_with_deletes_settle_to_one_state_in_any_order_and_grouping(
    sides: list[Candidate], rules: tuple[Policy, OnDelete]
) -> None:
    policy, on_delete = rules
    first, *others = every_fold([*map(sealed, sides)], policy=policy, on_delete=on_delete)
    for other in others:
        assert state(other) == state(first)


def test_a_delete_decided_by_time_and_a_policy_that_is_not_can_form_a_circle() -> None:
    """A known limit of `on_delete: lww` beside such a policy: replicas converge, but on one of the answers."""
    policy = Precedence("status", ["pending", "approved"])
    approved, deletion, pending = (
        write("eu", 10, status="approved"),
        gone("us", 20),
        write("apac", 30, status="pending"),
    )
    assert resolve(approved, pending, policy=policy).winner is approved
    assert resolve(pending, deletion, policy=policy).winner is pending
    assert resolve(deletion, approved, policy=policy).winner is deletion


@given(rivals(2), policies)
def test_without_deletes_the_rule_for_deletes_has_no_say(sides: list[Candidate], policy: Policy) -> None:
    a, b = map(sealed, sides)
    states = {str(state(merge(a, b, policy=policy, on_delete=rule))) for rule in OnDelete}
    assert len(states) == 1


@pytest.mark.parametrize("delete_first", [True, False])
@pytest.mark.parametrize(
    ("on_delete", "delete_time", "stays"),
    [
        (OnDelete.LWW, 50, False),
        (OnDelete.LWW, 150, True),
        (OnDelete.DELETE_WINS, 50, True),
        (OnDelete.DELETE_WINS, 150, True),
        (OnDelete.UPDATE_WINS, 50, False),
        (OnDelete.UPDATE_WINS, 150, False),
    ],
)
def test_delete_against_write(on_delete: OnDelete, delete_time: int, stays: bool, delete_first: bool) -> None:
    deletion, update = gone("us", delete_time), write("eu", 100, n=1)
    a, b = (deletion, update) if delete_first else (update, deletion)
    resolution = resolve(a, b, policy=LWW, on_delete=on_delete)
    assert resolution.winner is (deletion if stays else update)
    assert resolution.version.deleted == stays


@pytest.mark.parametrize("on_delete", OnDelete)
def test_of_two_deletes_the_later_stays(on_delete: OnDelete) -> None:
    early, late = gone("us", 50), gone("eu", 60)
    assert resolve(early, late, policy=LWW, on_delete=on_delete).winner is late
    assert resolve(late, early, policy=LWW, on_delete=on_delete).winner is late


def test_a_policy_never_sees_a_delete() -> None:
    def refuse(a: Candidate, b: Candidate) -> Candidate:
        raise AssertionError

    for rule in OnDelete:
        for other in (write("eu", 100, n=1), gone("eu", 100)):
            resolution = resolve(gone("us", 50), other, policy=Custom("refuse", refuse), on_delete=rule)
            assert resolution.failure is None


def test_an_unknown_rule_for_deletes_is_an_error() -> None:
    with pytest.raises(AssertionError):
        resolve(gone("us", 50), write("eu", 100), policy=LWW, on_delete="never")  # type: ignore[arg-type]


@given(rivals(2))
def test_a_policy_that_raises_is_recorded_and_the_last_write_stays(sides: list[Candidate]) -> None:
    a, b = map(sealed, sides)

    def fail(a: Candidate, b: Candidate) -> Candidate:
        raise ZeroDivisionError("no price")

    resolution = resolve(a, b, policy=Custom("fail", fail))
    assert isinstance(resolution.failure, ZeroDivisionError)
    assert resolution.winner is last_write(a, b)
    assert resolution.fields is None
    assert resolution.version == resolve(a, b, policy=LWW).version


@pytest.mark.parametrize("answer", [None, 7, "eu", [1], write("eu", 1, n=1)])
def test_an_answer_that_is_neither_a_side_nor_fields_counts_as_raised(answer: Any) -> None:
    a, b = write("eu", 10, n=1), write("us", 20, n=2)
    resolution = resolve(a, b, policy=Custom("odd", lambda _a, _b: answer))
    assert isinstance(resolution.failure, TypeError)
    assert type(answer).__name__ in str(resolution.failure)
    assert resolution.winner is b


def test_what_stops_the_process_is_no_failure_of_the_policy() -> None:
    def interrupted(a: Candidate, b: Candidate) -> Candidate:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resolve(write("eu", 10), write("us", 20), policy=Custom("interrupted", interrupted))


def test_computed_fields_take_the_place_of_the_later_side() -> None:
    a, b = write("eu", 10, n=1), write("us", 20, n=2)
    resolution = resolve(a, b, policy=Custom("sum", lambda a, b: {"n": 3}))
    assert resolution.winner is None
    assert resolution.fields == {"n": 3}
    assert resolution.version == Version(
        {"eu": 10, "us": 20}, 20, "us", 20, digest=b.version.digest, mixed=True
    )


@given(rivals(2))
def test_the_last_write_is_the_larger_in_the_total_order(sides: list[Candidate]) -> None:
    a, b = map(sealed, sides)
    assert last_write(a, b) is last_write(b, a)
    assert last_write(a, b).version.total == max(a.version.total, b.version.total)


def test_equal_stamps_are_decided_by_replica_and_then_by_dot() -> None:
    assert [*REPLICAS] == sorted(REPLICAS)
    eu, us = write("eu", 10, n=1), write("us", 10, n=2)
    assert last_write(eu, us) is us
    slow = Candidate(eu.version._replace(dot=9), eu.fields)
    assert last_write(eu, slow) is eu


def test_forged_versions_of_equal_order_are_still_told_apart() -> None:
    document = Candidate(Version({"eu": 1, "us": 2}, 5, "eu", 1, NO_CONTENT))
    tombstone = Candidate(Version({"eu": 1, "apac": 2}, 5, "eu", 1, NO_CONTENT, deleted=True))
    assert last_write(document, tombstone) is last_write(tombstone, document) is tombstone


class Undecoded(Mapping[str, Any]):
    """Fields that must not be looked at."""

    def __getitem__(self, name: str) -> Any:
        raise AssertionError(name)

    def __iter__(self) -> Iterator[str]:
        raise AssertionError

    def __len__(self) -> int:
        raise AssertionError


def test_the_last_write_is_found_without_decoding_any_field() -> None:
    fields: Fields = Undecoded()
    a, b = Candidate(written("eu", 1, b"\1a"), fields), Candidate(written("us", 2, b"\1b"), fields)
    assert resolve(a, b, policy=LWW).winner is b
    assert (b.stamp, b.origin, b.deleted) == (2, "us", False)


def test_order_123() -> None:
    """The source designs' example: approved (1005) stays, and the next write dominates both."""
    approved = Candidate(Version({"us-central1": 2}, 1005, "us-central1", 2, b"\1a"), {"status": "approved"})
    rejected = Candidate(
        Version({"us-central1": 1, "us-east1": 1}, 1004, "us-east1", 1, b"\1r"), {"status": "rejected"}
    )
    for a, b in ((approved, rejected), (rejected, approved)):
        settled = resolve(a, b, policy=LWW)
        assert settled.winner is approved
        assert settled.version.clock == {"us-central1": 2, "us-east1": 1}
    by_state = resolve(approved, rejected, policy=Precedence("status", ["pending", "approved", "rejected"]))
    assert by_state.winner is rejected
    assert by_state.version.stamp == 1004
    assert resolve(approved, rejected, policy=FieldRules({"status": "max"})).winner is None
