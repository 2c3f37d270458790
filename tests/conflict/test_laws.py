"""The law checker passes lawful policies and names the law that an unlawful one breaks."""

from collections.abc import Iterator
from itertools import count
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conflict.laws import Decide, LawBroken, assert_lawful, candidates, check
from conflict.policies import Custom
from conflict.resolve import Candidate, Fields, last_write
from conflict.values import same, sort_key
from conflict.version import deleted, written
from tests.conflict.folding import POLICIES
from tests.support.strategies import bodies, rival_bodies, rivals

EXAMPLES: list[Fields] = [
    {"n": 1, "status": "pending", "tags": ["b", "a"]},
    {"n": 3.0, "status": "approved", "tags": []},
    {"n": 2, "status": "rejected", "note": "x"},
]


def number(side: Candidate) -> float:
    return float(side.fields.get("n", 0))


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_every_shipped_policy_is_lawful(policy: Decide) -> None:
    assert_lawful(policy, EXAMPLES)


@settings(max_examples=30)  # each checks every three of the versions
@given(rivals(4, fields=bodies()), st.sampled_from(POLICIES))
def test_every_shipped_policy_is_lawful_on_documents_of_any_shape(
    samples: list[Candidate], policy: Decide
) -> None:
    check(policy, samples)


def test_lawful_functions_of_an_application_pass() -> None:
    def longest_note(a: Candidate, b: Candidate) -> Candidate:
        return max(a, b, key=lambda side: (len(side.fields.get("note", "")), side.version.order))

    assert_lawful(longest_note, [{"note": "x"}, {"note": "yy"}, {}])
    assert_lawful(with_larger_number, EXAMPLES)


def with_larger_number(a: Candidate, b: Candidate) -> Fields:
    """What `FieldRules({"n": "max"})` joins, but always as computed fields."""
    numbers = [side.fields["n"] for side in (a, b) if "n" in side.fields]
    fields = dict(last_write(a, b).fields)
    return {**fields, "n": max(numbers, key=sort_key)} if numbers else fields


def add(a: Candidate, b: Candidate) -> Fields:
    return {"n": number(a) + number(b)}


def average(a: Candidate, b: Candidate) -> Candidate | Fields:
    if same(a.fields, b.fields):
        return last_write(a, b)
    return {"n": (number(a) + number(b)) / 2}


def first_argument(a: Candidate, b: Candidate) -> Candidate:
    return a


def stamp_only(a: Candidate, b: Candidate) -> Candidate:
    return a if a.stamp >= b.stamp else b


def nearly_at_once(a: Candidate, b: Candidate) -> Candidate:
    """The larger number if both were written within a minute, else the last write."""
    if abs(a.stamp - b.stamp) < 60_000_000:
        return max(a, b, key=lambda side: (number(side), side.version.order))
    return last_write(a, b)


def right_fields_wrong_stamp(a: Candidate, b: Candidate) -> Candidate | Fields:
    """Answers with the earlier side where its fields are the result."""
    fields = with_larger_number(a, b)
    equal = [side for side in (a, b) if same(side.fields, fields)]
    return min(equal, key=lambda side: side.version.order) if equal else fields


def missing_field(a: Candidate, b: Candidate) -> Candidate:
    return max(a, b, key=lambda side: (side.fields["n"], side.version.order))


def no_answer(a: Candidate, b: Candidate) -> Any:
    return None


def unholdable(a: Candidate, b: Candidate) -> Fields:
    return {"n": {number(a), number(b)}}


def changes_nested(a: Candidate, b: Candidate) -> Candidate:
    a.fields.get("tags", []).append("seen")
    return last_write(a, b)


def changes_fields(a: Candidate, b: Candidate) -> Candidate:
    a.fields["seen"] = True  # type: ignore[index]
    return last_write(a, b)


@pytest.mark.parametrize(
    ("policy", "law"),
    [
        (missing_field, "total"),
        (no_answer, "total"),
        (unholdable, "total"),
        (changes_fields, "total"),
        (changes_nested, "pure"),
        (first_argument, "commutative"),
        (stamp_only, "commutative"),
        (add, "idempotent"),
        (average, "associative"),
        (nearly_at_once, "associative"),
        (right_fields_wrong_stamp, "associative"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
@pytest.mark.parametrize("seed", range(3))
def test_an_unlawful_policy_is_caught_by_its_law(policy: Decide, law: str, seed: int) -> None:
    with pytest.raises(LawBroken, match=f"the policy is not {law}: ") as caught:
        assert_lawful(policy, EXAMPLES, seed=seed)
    assert caught.value.law == law


def test_a_random_policy_is_caught() -> None:
    random = Random(1)
    with pytest.raises(LawBroken, match="not deterministic"):
        assert_lawful(lambda a, b: random.choice([a, b]), EXAMPLES)


def test_a_policy_that_remembers_is_caught() -> None:
    calls = count()

    def changes_its_mind(a: Candidate, b: Candidate) -> Candidate:
        return last_write(a, b) if next(calls) < 100 else min(a, b, key=lambda side: side.version.order)

    with pytest.raises(LawBroken, match="not deterministic"):
        assert_lawful(changes_its_mind, EXAMPLES)


def test_a_policy_that_fails_only_on_its_own_answers_is_caught() -> None:
    def brittle(a: Candidate, b: Candidate) -> Fields:
        if a.version.mixed or b.version.mixed:
            raise ValueError("mixed")
        return with_larger_number(a, b)

    with pytest.raises(LawBroken, match="not total: it fails: ValueError") as caught:
        check(brittle, candidates([{"n": 1.0}]))
    assert isinstance(caught.value.__cause__, ValueError)


def ticking(*, seconds: float) -> Iterator[float]:
    return (tick * seconds for tick in count())


def test_a_slow_policy_is_caught() -> None:
    ticks = ticking(seconds=0.25)
    with pytest.raises(LawBroken, match=r"not quick: a call takes 0\.250000 s; at most 0\.1 s are allowed"):
        assert_lawful(POLICIES[0], EXAMPLES, timer=lambda: next(ticks), seconds_per_call=0.1)


def test_one_slow_call_is_the_machines_and_not_the_policys() -> None:
    spent = iter([0.0, 9.0])  # what the first call seems to take
    ticks = ticking(seconds=0.0001)
    assert_lawful(POLICIES[0], EXAMPLES, timer=lambda: next(spent, 9.0) + next(ticks))


def test_the_counterexample_is_readable() -> None:
    with pytest.raises(LawBroken) as caught:
        assert_lawful(average, [{"n": 1.0, "long": "x" * 5000}, {"n": 3.0}])
    text = str(caught.value)
    assert "which two are merged first" in text
    for shown in ("\n  a = {'n': ", "\n  b = ", "\n  c = ", "\n  answer: {'n': ", "stamp 17", "origin r", "…"):
        assert shown in text
    assert len(text) < 5000


def test_what_is_checked_is_a_copy() -> None:
    tags = ["a"]
    with pytest.raises(LawBroken, match="not pure"):
        assert_lawful(changes_nested, [{"tags": tags}])
    assert tags == ["a"]


@given(st.lists(rival_bodies(), min_size=1, max_size=4), st.integers(0, 2**32), st.integers(0, 12))
def test_candidates_are_deterministic_concurrent_and_hold_every_example(
    examples: list[Fields], seed: int, count: int
) -> None:
    made = candidates(examples, count=count, seed=seed)
    again = candidates(examples, count=count, seed=seed)
    assert len(made) == max(count, len(examples) + 1)
    assert [side.version for side in made] == [side.version for side in again]
    assert len({side.origin for side in made}) == len(made)
    assert all(side.version.dot <= side.stamp for side in made)
    for example, side in zip(examples, made, strict=False):
        assert same(example, side.fields)
    known = [field for example in examples for field in example.items()]
    for side in made:
        for name, value in side.fields.items():
            assert any(name == known_name and value is known_value for known_name, known_value in known)


def test_candidates_have_equal_stamps_and_stamps_as_far_apart_as_asked() -> None:
    stamps = [side.stamp for side in candidates(EXAMPLES, apart=60)]
    low, middle, high = sorted(set(stamps))
    assert (middle - low, high - middle) == (60, 60)
    assert len(stamps) >= 2 * 3


def test_a_check_that_would_prove_nothing_is_refused() -> None:
    write = Candidate(written("eu", 1, b""), {"n": 1})
    with pytest.raises(ValueError, match="two versions at least, not 1"):
        check(POLICIES[0], [write])
    with pytest.raises(ValueError, match="not deleted"):
        check(POLICIES[0], [write, Candidate(deleted("us", 1, 2))])
    with pytest.raises(ValueError, match="no examples"):
        assert_lawful(POLICIES[0], [])


def test_a_named_policy_and_its_function_are_checked_alike() -> None:
    for policy in (add, Custom("add", add)):
        with pytest.raises(LawBroken, match="not idempotent"):
            assert_lawful(policy, EXAMPLES)
