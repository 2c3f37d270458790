"""Each policy is a join of the sides it is given, and does what its rule says."""

from itertools import permutations
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conflict.policies import Custom, FieldRules, LastWriteWins, Precedence
from conflict.resolve import Candidate, Policy, last_write
from conflict.values import GeoPoint, Reference, same, sort_key
from conflict.version import Version, written
from tests.conflict.folding import POLICIES, merge, sealed, state
from tests.support.strategies import bodies, rivals, values

policies = st.sampled_from(POLICIES)
some_rules = st.dictionaries(
    st.sampled_from(["n", "note", "status", "tags"]),
    st.sampled_from(["max", "min", "union", "lww"]),
    min_size=1,
).map(FieldRules)
NUMBER, TAGS = FieldRules({"n": "max"}), FieldRules({"tags": "union"})


def sides(earlier: dict[str, Any], later: dict[str, Any]) -> tuple[Candidate, Candidate]:
    return (
        Candidate(written("eu", 10, repr(earlier).encode()), MappingProxyType(earlier)),
        Candidate(written("us", 20, repr(later).encode()), MappingProxyType(later)),
    )


def joined(policy: Policy, earlier: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """The fields that stay, which must not depend on the order of the arguments."""
    a, b = sides(earlier, later)
    results = [policy(a, b), policy(b, a)]
    fields = [dict(result.fields if isinstance(result, Candidate) else result) for result in results]
    assert same(*fields)
    return fields[0]


@given(rivals(3), policies | some_rules)
def test_three_sides_become_one_state_in_any_order_and_grouping(drawn: list[Candidate], policy: Policy) -> None:
    """Associative through computed bodies too: the same fields, order, clock and `mixed`."""
    expected = None
    for a, b, c in permutations(map(sealed, drawn)):
        both = merge(a, b, policy=policy)
        for result in (merge(both, c, policy=policy), merge(c, both, policy=policy)):
            expected = expected or state(result)
            assert state(result) == expected


@given(rivals(2), policies | some_rules)
def test_a_side_that_comes_again_changes_nothing(drawn: list[Candidate], policy: Policy) -> None:
    a, b = map(sealed, drawn)
    both = merge(a, b, policy=policy)
    for side in (a, b, both):
        assert state(merge(both, side, policy=policy)) == state(both)


@given(rivals(2, fields=bodies()), policies | some_rules)
def test_policies_answer_for_documents_of_any_shape(drawn: list[Candidate], policy: Policy) -> None:
    a, b = map(sealed, drawn)
    assert state(merge(a, b, policy=policy)) == state(merge(b, a, policy=policy))


@given(values(), values(), values(), st.sampled_from(["max", "min", "union"]))
def test_every_rule_joins_values_of_any_type(x: Any, y: Any, z: Any, rule: str) -> None:
    """Commutative, associative and idempotent by itself, whoever wrote last."""
    policy = FieldRules({"f": rule})

    def join(a: Any, b: Any) -> Any:
        return joined(policy, {"f": a}, {"f": b})["f"]

    assert same(join(x, x), x)
    assert same(join(x, y), join(y, x))
    assert same(join(join(x, y), z), join(x, join(y, z)))


@given(rivals(2), some_rules)
def test_a_value_taken_from_a_side_is_that_sides_object(drawn: list[Candidate], policy: FieldRules) -> None:
    """So that the caller can pass through the exact form it was stored in."""
    a, b = map(sealed, drawn)
    answer = policy(a, b)
    if isinstance(answer, Candidate):
        assert answer is last_write(a, b)
        return
    for name, value in answer.items():
        taken = [side.fields[name] for side in (a, b) if name in side.fields and same(side.fields[name], value)]
        assert not taken or any(value is theirs for theirs in taken)


@given(rivals(2), some_rules)
def test_fields_are_computed_only_where_the_last_writers_are_not_the_result(
    drawn: list[Candidate], policy: FieldRules
) -> None:
    a, b = map(sealed, drawn)
    answer = policy(a, b)
    if not isinstance(answer, Candidate):
        assert not same(dict(answer), last_write(a, b).fields)


@given(rivals(2), st.sampled_from(["status", "n"]))
def test_precedence_keeps_a_side_of_the_highest_rank(drawn: list[Candidate], field: str) -> None:
    order = ["pending", "approved", "rejected"] if field == "status" else [0, 1, 2]
    a, b = map(sealed, drawn)

    def rank(side: Candidate) -> int:
        return order.index(side.fields[field]) if side.fields.get(field) in order else -1

    winner = Precedence(field, order)(a, b)
    assert winner is (last_write(a, b) if rank(a) == rank(b) else max((a, b), key=rank))


def test_precedence_ranks_unknown_and_missing_states_below_all() -> None:
    policy = Precedence("status", ["pending", "approved"])
    for lower in ({}, {"status": "lost"}, {"status": None}, {"status": ["approved"]}):
        assert joined(policy, {"status": "pending"}, lower) == {"status": "pending"}
    assert joined(policy, {"status": "lost"}, {}) == {}


def test_precedence_takes_numbers_for_equal_that_a_query_would() -> None:
    policy = Precedence("level", [1, 2, True])
    assert joined(policy, {"level": 2.0}, {"level": 1}) == {"level": 2.0}
    assert joined(policy, {"level": True}, {"level": 2}) == {"level": True}


@pytest.mark.parametrize(
    ("earlier", "later", "result"),
    [
        ({"n": 3}, {"n": 2}, {"n": 3}),
        ({"n": 2}, {"n": 3}, {"n": 3}),
        ({"n": 2}, {}, {"n": 2}),
        ({}, {"n": 2}, {"n": 2}),
        ({"n": None}, {}, {"n": None}),
        ({"n": 2**53 + 1}, {"n": 2.0**53}, {"n": 2**53 + 1}),
        ({"n": 1}, {"n": 1.0}, {"n": 1.0}),
        ({"n": float("nan")}, {"n": -1}, {"n": -1}),
        ({"n": 5}, {"n": "a string ranks above"}, {"n": "a string ranks above"}),
        ({"n": 5, "note": "x"}, {"n": 1}, {"n": 5}),  # the last writer removed the note
        ({"n": 5}, {"n": 1, "note": "y"}, {"n": 5, "note": "y"}),
    ],
)
def test_max(earlier: dict[str, Any], later: dict[str, Any], result: dict[str, Any]) -> None:
    assert same(joined(NUMBER, earlier, later), result)


def test_min() -> None:
    policy = FieldRules({"n": "min"})
    assert joined(policy, {"n": 2}, {"n": 3}) == {"n": 2}
    assert joined(policy, {"n": 3}, {"n": 2}) == {"n": 2}
    assert joined(policy, {"n": 3}, {}) == {"n": 3}


EU, US = Reference("projects/p/databases/d/documents/a/1"), GeoPoint(1.0, 2.0)


@pytest.mark.parametrize(
    ("earlier", "later", "result"),
    [
        (["b", "a"], ["c"], ["a", "b", "c"]),
        (["b", "a"], ["b", "a"], ["b", "a"]),  # nothing to join: the order stays
        (["b", "a"], ["a", "b"], ["a", "b"]),
        (["a", "a"], ["a"], ["a"]),
        ([], ["a"], ["a"]),
        ([1, True], [1.0, -0.0, 0], [True, -0.0, 0, 1, 1.0]),
        ([{"x": 1}, EU], [US, {"x": 1}], [EU, US, {"x": 1}]),
        (["a"], "no array", ["a"]),
        ("no array", [], []),
        (["a"], None, ["a"]),
        ("b", "a", "b"),
        ({"a": 1}, ["a"], ["a"]),  # though a map ranks above an array
    ],
)
def test_union(earlier: Any, later: Any, result: Any) -> None:
    assert same(joined(TAGS, {"tags": earlier}, {"tags": later}), {"tags": result})


def test_union_with_an_absent_field_keeps_the_array_as_it_is() -> None:
    tags = ["b", "a", "b"]
    assert joined(TAGS, {"tags": tags}, {})["tags"] is tags
    assert joined(TAGS, {}, {"tags": tags})["tags"] is tags


def test_a_union_that_equals_one_side_is_that_sides_array() -> None:
    full = ["a", "b"]
    assert joined(TAGS, {"tags": full}, {"tags": ["b"]})["tags"] is full
    a, b = sides({"tags": ["b"]}, {"tags": full})
    assert TAGS(a, b) is b


def test_the_elements_of_a_union_are_in_the_order_of_values() -> None:
    union = joined(TAGS, {"tags": [2, "a", None]}, {"tags": [1.5, b"x"]})["tags"]
    assert [sort_key(element) for element in union] == sorted(map(sort_key, union))


def test_the_earlier_side_is_never_the_answer_even_where_it_equals_the_result() -> None:
    """Its stamp would take `note`, the last writer's, back in time: a write in between would win."""
    eu, us = sides({"n": 5, "note": "x"}, {"n": 1, "note": "x"})
    between = Candidate(Version({"apac": 15}, 15, "apac", 15, b"\1"), {"n": 0, "note": "z"})
    first = merge(eu, us, policy=NUMBER)
    assert first.version.order[:3] == us.version.order[:3]
    assert merge(first, between, policy=NUMBER).fields == {"n": 5, "note": "x"}
    assert merge(eu, merge(us, between, policy=NUMBER), policy=NUMBER).fields == {"n": 5, "note": "x"}


def test_a_custom_policy_is_its_function_under_a_name() -> None:
    a, b = sides({"n": 1}, {"n": 2})
    policy = Custom("smallest", lambda a, b: min(a, b, key=lambda side: side.fields["n"]))
    assert policy.name == "smallest"
    assert policy(a, b) is policy(b, a) is a


def test_policies_are_values() -> None:
    """Equal by their parameters, usable in sets, and safe from changes to what they were made of."""
    order, rules = ["pending", "approved"], {"n": "max"}
    precedence, field_rules = Precedence("status", order), FieldRules(rules)
    order.clear()
    rules.clear()
    assert precedence == Precedence("status", ("pending", "approved"))
    assert field_rules == FieldRules({"n": "max"})
    assert {precedence, field_rules, LastWriteWins(), LastWriteWins()} == {
        precedence,
        field_rules,
        LastWriteWins(),
    }
    assert [LastWriteWins().name, precedence.name, field_rules.name] == [
        "last-write-wins",
        "precedence",
        "field-rules",
    ]


@pytest.mark.parametrize(
    ("field", "order", "text"),
    [
        ("", ["a"], "non-empty string, not ''"),
        (7, ["a"], "non-empty string, not 7"),
        ("order.status", ["a"], "'order.status' is inside a map; name the top-level field 'order'"),
        ("status", [], "'status' must list its states"),
        ("status", "pending", "'status' must list its states, lowest first; it is 'pending'"),
        ("status", ["a", "b", "a"], "names a state twice"),
        ("status", [1, 1.0], "names a state twice"),
        ("status", [{1}], "'status' has a state that no field can hold: Firestore cannot hold a set"),
    ],
)
def test_a_bad_precedence_says_what_is_wrong(field: Any, order: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Precedence(field, order)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "without any rule"),
        ({"": "max"}, "non-empty string"),
        ({"stats.level": "max"}, "name the top-level field 'stats'"),
        ({"n": "sum"}, "field 'n': no rule 'sum'; use one of lww, max, min, union"),
        ({"n": None}, "field 'n': no rule None"),
    ],
)
def test_bad_field_rules_say_what_is_wrong(fields: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        FieldRules(fields)
