"""What becomes of one document: the protocol's table, row by row, and changes in a batch one after another."""

from dataclasses import replace
from typing import Any

import pytest

from conflict.policies import Custom
from conflict.version import NO_CONTENT, Version
from replication.apply.outcomes import Outcome, State
from replication.apply.plan import Local, Plan, plan
from replication.changes.decode import Change
from replication.changes.envelope import Kind
from replication.documents.metadata import Meta, digest_of
from replication.documents.stored import Snapshot, Tombstone
from replication.documents.wire import Document
from tests.support.fleets import NOW, fleet, text

FLEET = fleet()


def body(**fields: str) -> bytes:
    made = Document()
    for name, value in fields.items():
        made.fields[name].CopyFrom(text(value))
    return bytes(made.SerializeToString(deterministic=True))


def version(clock: dict[str, int], origin: str, content: bytes | None, *, stamp: int = 0) -> Version:
    dot = clock[origin]
    digest = NO_CONTENT if content is None else digest_of(content)
    return Version(clock, stamp or dot, origin, dot, digest, deleted=content is None)


def change(
    clock: dict[str, int], origin: str, content: bytes | None, *, path: str = "docs/1", **kwargs: Any
) -> Change:
    kind = kwargs.pop("kind", Kind.DELETE if content is None else Kind.WRITE)
    source = kwargs.pop("source", origin)
    made = version(clock, origin, content, **kwargs)
    return Change(path, kind, source, made, content, clock[origin])


def here(clock: dict[str, int], origin: str, content: bytes | None, *, path: str = "docs/1") -> Local:
    """The document at `apac` as this system wrote it there."""
    made = version(clock, origin, content)
    if content is None:
        return Local(path, None, Tombstone(path, NOW, made), NOW)
    meta = Meta(made, base=1, read=NOW)
    return Local(path, Snapshot(path, content, digest_of(content), NOW, meta), None, NOW)


NOTHING = Local("docs/1", None, Tombstone("docs/1"), NOW)


def planned(local: Local, *changes: Change, **kwargs: Any) -> Plan:
    path = changes[0].path
    return plan(changes, local, replica="apac", rule=FLEET.rule_for(path), codec=FLEET.codec, **kwargs)


A, B, C = body(x="a"), body(x="b"), body(x="c")


def test_nothing_here_takes_what_comes() -> None:
    for content in (A, None):
        made = planned(NOTHING, change({"eu": 5}, "eu", content))
        assert made.writes
        assert not made.merged
        assert made.state == State(version({"eu": 5}, "eu", content), content)
        assert made.outcomes == (Outcome.APPLIED,)


def test_a_descendant_is_a_fast_forward() -> None:
    made = planned(here({"eu": 5}, "eu", A), change({"eu": 6}, "eu", B))
    assert (made.writes, made.merged, made.outcomes) == (True, False, (Outcome.APPLIED,))


def test_the_same_again_writes_nothing() -> None:
    made = planned(here({"eu": 5}, "eu", A), change({"eu": 5}, "eu", A))
    assert (made.writes, made.outcomes) == (False, (Outcome.DUPLICATE,))


@pytest.mark.parametrize(("kind", "behind"), [(Kind.WRITE, frozenset()), (Kind.MERGED, frozenset({"us"}))])
def test_an_ancestor_is_stale_and_its_merger_is_told(kind: Kind, behind: frozenset[str]) -> None:
    made = planned(here({"eu": 9, "us": 3}, "eu", A), change({"eu": 5}, "eu", B, kind=kind, source="us"))
    assert (made.writes, made.outcomes, made.behind) == (False, (Outcome.STALE,), behind)


def test_nobody_tells_itself() -> None:
    made = planned(here({"eu": 9}, "eu", A), change({"eu": 5}, "eu", B, kind=Kind.MERGED, source="apac"))
    assert made.behind == frozenset()


def test_equal_clocks_keep_the_larger_in_the_total_order() -> None:
    clock = {"eu": 5, "us": 6}
    up = planned(here(clock, "eu", A), change(clock, "us", B))
    down = planned(here(clock, "us", B), change(clock, "eu", A))
    assert (up.writes, up.merged) == (True, True)
    assert (down.writes, down.outcomes) == (False, (Outcome.STALE,))


def test_a_re_creation_that_lost_its_clock_supersedes_the_delete() -> None:
    made = planned(here({"eu": 6, "us": 3}, "eu", None), change({"eu": 8}, "eu", B))
    assert made.state == State(version({"eu": 8, "us": 3}, "eu", B), B)
    assert (made.merged, made.conflicts) == (True, ())


def test_what_was_superseded_leaves_its_clock_only() -> None:
    made = planned(here({"eu": 8}, "eu", B), change({"eu": 6, "us": 3}, "eu", None))
    assert made.state == State(version({"eu": 8, "us": 3}, "eu", B), B)
    assert (made.writes, made.merged, made.outcomes) == (True, True, (Outcome.STALE,))


def test_concurrent_writes_of_the_same_are_no_conflict() -> None:
    made = planned(here({"eu": 5}, "eu", A), change({"us": 6}, "us", A))
    assert (made.writes, made.merged, made.conflicts) == (True, True, ())
    assert made.state is not None
    assert made.state.version.origin == "us"


def test_a_conflict_is_settled_logged_and_merged() -> None:
    made = planned(here({"eu": 5}, "eu", A), change({"us": 6}, "us", B))
    assert made.outcomes == (Outcome.CONFLICT,)
    assert (made.writes, made.merged) == (True, True)
    assert made.state == State(version({"eu": 5, "us": 6}, "us", B), B)
    (conflict,) = made.conflicts
    assert {side.body for side in conflict.sides} == {A, B}


def test_a_conflict_that_local_wins_is_still_written_for_its_clock() -> None:
    made = planned(here({"eu": 9}, "eu", A), change({"us": 6}, "us", B))
    assert made.writes
    assert made.state == State(version({"eu": 9, "us": 6}, "eu", A), A)


def test_the_application_s_policy_decides() -> None:
    approved, edited = body(status="approved"), body(status="pending")
    made = planned(
        here({"eu": 5}, "eu", approved, path="orders/1"), change({"us": 6}, "us", edited, path="orders/1")
    )
    assert made.state is not None
    assert made.state.body == approved


def test_a_computed_body_is_mixed_and_takes_the_larger_stamp() -> None:
    left, right = Document(), Document()
    left.fields["count"].integer_value, left.fields["x"].string_value = 9, "old"
    right.fields["count"].integer_value, right.fields["x"].string_value = 3, "new"
    one, other = (bytes(it.SerializeToString(deterministic=True)) for it in (left, right))
    made = planned(
        here({"eu": 5}, "eu", one, path="counters/1"), change({"us": 6}, "us", other, path="counters/1")
    )
    assert made.state is not None
    assert made.state.body is not None
    fields = Document.FromString(made.state.body).fields
    assert (fields["count"].integer_value, fields["x"].string_value) == (9, "new")
    assert made.state.version == version({"eu": 5, "us": 6}, "us", made.state.body)._replace(mixed=True)


@pytest.mark.parametrize(
    "answer",
    [{"x": object()}, {"_repl": 1}, {1: "x"}, {"x": 2**70}, {"x": "\ud800"}],
    ids=["no value", "the metadata's field", "no name", "too large", "no text"],
)
def test_a_policy_that_answers_nonsense_leaves_the_last_write_and_says_so(answer: Any) -> None:
    rule = replace(FLEET.rule_for("docs/1"), policy=Custom(name="mine", decide=lambda a, b: answer))
    made = plan(
        [change({"us": 6}, "us", B)], here({"eu": 5}, "eu", A), replica="apac", rule=rule, codec=FLEET.codec
    )
    assert made.state == State(version({"eu": 5, "us": 6}, "us", B), B)
    assert made.conflicts[0].failure


def test_changes_of_one_batch_are_applied_one_after_the_other_and_written_once() -> None:
    """The second has seen the first: folded with each other first, the conflict with local would be lost."""
    made = planned(
        here({"us": 6}, "us", C), change({"eu": 5}, "eu", A), change({"eu": 5, "us": 6, "apac": 9}, "apac", B)
    )
    assert made.outcomes == (Outcome.CONFLICT, Outcome.APPLIED)
    assert made.merged
    assert len(made.conflicts) == 1
    assert made.state == State(version({"eu": 5, "us": 6, "apac": 9}, "apac", B), B)


def wallet(clock: dict[str, int], origin: str, content: bytes | None, **kwargs: Any) -> Change:
    return change(clock, origin, content, path="wallets/1", **kwargs)


def test_only_the_primary_s_component_counts() -> None:
    local = here({"eu": 5, "us": 99}, "us", B, path="wallets/1")
    assert planned(local, wallet({"eu": 6}, "eu", A)).state == State(version({"eu": 6}, "eu", A), A)
    assert planned(local, wallet({"eu": 4}, "eu", A)).outcomes == (Outcome.STALE,)
    assert planned(local, wallet({"eu": 5}, "eu", A)).writes, "the local copy was altered"
    same = here({"eu": 5}, "eu", A, path="wallets/1")
    assert planned(same, wallet({"eu": 5}, "eu", A)).outcomes == (Outcome.DUPLICATE,)


def violation(content: bytes | None) -> Change:
    return wallet({"apac": 9, "eu": 5}, "apac", content, kind=Kind.VIOLATION)


def test_a_violation_is_undone_from_the_primary_and_logged_with_its_body() -> None:
    right = State(version({"eu": 5}, "eu", A), A)
    made = planned(here({"apac": 9, "eu": 5}, "apac", B, path="wallets/1"), violation(B), primary=right)
    assert (made.state, made.outcomes) == (right, (Outcome.VIOLATION,))
    assert made.conflicts[0].sides[0].body == B
    assert made.conflicts[0].winner == right


def test_a_violating_create_is_deleted_where_the_primary_has_nothing() -> None:
    made = planned(here({"apac": 9}, "apac", B, path="wallets/1"), violation(B))
    assert made.state is not None
    assert made.state.body is None
    assert made.writes


def test_a_violation_already_undone_writes_nothing_again() -> None:
    right = State(version({"eu": 5}, "eu", A), A)
    assert not planned(here({"eu": 5}, "eu", A, path="wallets/1"), violation(B), primary=right).writes
    newer = here({"eu": 7}, "eu", C, path="wallets/1")
    assert not planned(newer, violation(B), primary=right).writes, "local is newer than what was read"


def test_a_violation_with_the_primarys_own_content_still_gets_the_primarys_dot_back() -> None:
    right = State(version({"eu": 5}, "eu", A), A)
    blind = here({"apac": 9}, "apac", A, path="wallets/1")
    restored = planned(blind, violation(A), primary=right)
    assert (restored.state, restored.writes) == (right, True)
    older = wallet({"eu": 4}, "eu", B)
    assert planned(here({"eu": 5}, "eu", A, path="wallets/1"), older).outcomes == (Outcome.STALE,)
