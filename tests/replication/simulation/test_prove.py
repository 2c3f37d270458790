"""A team's own policy, proved with one import: lawful ones pass, each kind of harm is found and shown."""

from typing import Any

import pytest

from conflict.laws import LawBroken
from conflict.policies import FieldRules, LastWriteWins, Precedence
from conflict.resolve import Candidate, OnDelete
from replication.simulation import Unsafe, prove, simulate

STATES = ["open", "paid", "sent"]
EXAMPLES: list[dict[str, Any]] = [
    {"status": "open", "views": 1, "tags": ["a"]},
    {"status": "paid", "views": 7},
    {"status": "sent", "views": 3, "tags": ["b", "c"]},
]


def most_viewed(a: Candidate, b: Candidate) -> Any:
    def rank(side: Candidate) -> Any:
        return (side.fields.get("views", 0), side.version.total)

    return a if rank(a) > rank(b) else b


@pytest.mark.parametrize(
    "policy",
    [
        LastWriteWins(),
        Precedence("status", STATES),
        FieldRules({"views": "max", "tags": "union"}),
        most_viewed,
    ],
    ids=["last-write-wins", "precedence", "field-rules", "custom"],
)
def test_a_lawful_policy_is_safe_in_every_order(policy: Any) -> None:
    prove(policy, EXAMPLES, histories=10)


@pytest.mark.parametrize("on_delete", [OnDelete.DELETE_WINS, OnDelete.UPDATE_WINS])
def test_deletes_end_equal_whatever_wins(on_delete: OnDelete) -> None:
    simulate(most_viewed, EXAMPLES, on_delete=on_delete, histories=10)


def test_simulated_histories_contain_conflicts() -> None:
    assert simulate(most_viewed, EXAMPLES, histories=5) > 20


def test_a_policy_that_breaks_a_law_is_told_by_the_law() -> None:
    with pytest.raises(LawBroken, match="not commutative"):
        prove(lambda a, _: a, EXAMPLES)


def test_with_a_timer_a_slow_policy_breaks_a_law() -> None:
    seconds = iter(range(1_000_000))
    with pytest.raises(LawBroken, match="not quick"):
        prove(most_viewed, EXAMPLES, timer=lambda: next(seconds))


def test_a_policy_that_depends_on_the_order_keeps_one_document_or_the_other() -> None:
    with pytest.raises(Unsafe, match=r"the order of delivery decides what is kept of documents/\d"):
        simulate(lambda a, _: a, EXAMPLES)


def test_a_policy_that_fails_is_shown_with_both_sides() -> None:
    def fragile(a: Candidate, b: Candidate) -> Any:
        return a if a.fields["tags"] > b.fields["tags"] else b

    with pytest.raises(Unsafe, match=r"it fails \(seed \d+\): KeyError\('tags'\)\n  \{.*\}\n  \{"):
        simulate(fragile, EXAMPLES)


def test_an_answer_that_no_database_takes_is_told_and_not_only_buried() -> None:
    told = r"what it answers cannot be stored \(seed \d+\): 'documents/\d' cannot be written"
    with pytest.raises(Unsafe, match=told):
        simulate(lambda *_: {"all": "x" * 1_048_480}, EXAMPLES)


def test_a_large_document_does_not_fill_the_screen() -> None:
    with pytest.raises(Unsafe, match="order of delivery") as caught:
        simulate(lambda a, _: {**a.fields, "all": "x" * 10_000}, EXAMPLES)
    assert len(str(caught.value)) < 1_000


def test_the_same_seed_gives_the_same_histories() -> None:
    assert simulate(most_viewed, EXAMPLES, histories=3) == simulate(most_viewed, EXAMPLES, histories=3)
