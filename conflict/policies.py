"""The policies that come with the product: the last write, an order of states, a rule per field.

Each is a join: there is an order of bodies in which the answer is the least that is above both sides. So it
does not matter in which order, grouping or number replicas merge. `LastWriteWins` and `Precedence` choose a
side, the largest in a total order; `FieldRules` joins field by field (a product of semilattices: Shapiro et
al. 2011, "Conflict-free replicated data types", https://doi.org/10.1007/978-3-642-24550-3_29).

A bad parameter raises ValueError when the policy is made, never when a conflict is decided.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from conflict.resolve import Candidate, Fields, last_write
from conflict.values import SortKey, firestore_key, same, sort_key


@dataclass(frozen=True, slots=True)
class LastWriteWins:
    """The side with the larger stamp stays, whole."""

    name: str = dataclasses.field(default="last-write-wins", init=False)

    def __call__(self, a: Candidate, b: Candidate, /) -> Candidate:
        return last_write(a, b)


@dataclass(frozen=True, slots=True)
class Precedence:
    """The side whose `field` is further along `order` stays, whole; of equals, the last write.

    For states that only move forward: with `[pending, approved, refunded]`, an approval is never reverted by a
    later edit of someone who still saw it pending. A missing field, or a state that is not in `order`, ranks
    below all that are. States compare as in a query: 1 and 1.0 are one state.
    """

    field: str
    order: Sequence[Any]
    name: str = dataclasses.field(default="precedence", init=False)
    _ranks: Mapping[SortKey, int] = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_name(self.field)
        ranks = _ranks(self.field, self.order)
        # The way a frozen dataclass sets what it derives.
        object.__setattr__(self, "order", tuple(self.order))
        object.__setattr__(self, "_ranks", ranks)

    def __call__(self, a: Candidate, b: Candidate, /) -> Candidate:
        ours, theirs = self._rank(a), self._rank(b)
        if ours == theirs:
            return last_write(a, b)
        return a if ours > theirs else b

    def _rank(self, side: Candidate) -> int:
        if self.field not in side.fields:
            return -1
        return self._ranks.get(firestore_key(side.fields[self.field]), -1)


class FieldRule(StrEnum):
    """How `FieldRules` joins one field."""

    LWW = "lww"
    MAX = "max"
    MIN = "min"
    UNION = "union"


@dataclass(frozen=True, slots=True)
class FieldRules:
    """Joins the two sides field by field; a field without a rule is the last writer's, present or not.

    `max`, `min`: the larger or smaller value in the order of `sort_key`; a present value beats an absent one.
    `union`: the elements of both arrays, each once, in that order; an array that is the same on both sides
    keeps its own. An array beats any other value, of two others the larger stays. So under these three a
    conflict removes no field and no element.

    Answers with the last writer's side where that is the result already, else with a mapping of fields.
    `fields` names top-level fields; what is inside a map goes with its map.
    """

    fields: Mapping[str, str] = dataclasses.field(hash=False)
    name: str = dataclasses.field(default="field-rules", init=False)

    def __post_init__(self) -> None:
        if not self.fields:
            raise ValueError("field-rules without any rule; name a field, or use last-write-wins")
        for name in self.fields:
            _check_name(name)
        rules = {name: _rule(name, rule) for name, rule in self.fields.items()}
        object.__setattr__(self, "fields", rules)

    def __call__(self, a: Candidate, b: Candidate, /) -> Candidate | Fields:
        last = last_write(a, b)
        later, earlier = last.fields, (b if last is a else a).fields
        changed = {}
        for name, rule in self.fields.items():
            if name not in earlier or rule == FieldRule.LWW:
                continue
            if name not in later:
                changed[name] = earlier[name]
                continue
            value = later[name]
            joined = _JOINS[rule](value, earlier[name])
            if joined is not value:
                changed[name] = joined
        # Never the earlier side itself, even where it equals the result: its stamp would take the last
        # writer's fields back to an earlier time, and a third write in between would win or lose by grouping.
        return {**later, **changed} if changed else last


@dataclass(frozen=True, slots=True)
class Custom:
    """An application's own function as a policy; `conflict.laws` checks that it is a lawful one."""

    name: str
    decide: Callable[[Candidate, Candidate], Candidate | Fields]

    def __call__(self, a: Candidate, b: Candidate, /) -> Candidate | Fields:
        return self.decide(a, b)


def _larger(later: Any, earlier: Any) -> Any:
    return earlier if sort_key(earlier) > sort_key(later) else later


def _smaller(later: Any, earlier: Any) -> Any:
    return earlier if sort_key(earlier) < sort_key(later) else later


def _union(later: Any, earlier: Any) -> Any:
    if not (isinstance(later, list) and isinstance(earlier, list)):
        # The larger of two other values, and not the last: the result takes the last writer's stamp, so a
        # value that came from the other side would carry a time that is not its own into the next merge.
        return max(later, earlier, key=_arrays_last)
    if same(later, earlier):
        return later
    members = {sort_key(element): element for element in (*earlier, *later)}
    union = [members[key] for key in sorted(members)]
    for side in (later, earlier):
        if same(side, union):
            return side
    return union


def _arrays_last(value: Any) -> tuple[bool, SortKey]:
    return (isinstance(value, list), sort_key(value))


_JOINS: Mapping[str, Callable[[Any, Any], Any]] = {
    FieldRule.MAX: _larger,
    FieldRule.MIN: _smaller,
    FieldRule.UNION: _union,
}


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name:
        raise ValueError(f"a field's name must be a non-empty string, not {name!r}")
    if "." in name:
        raise ValueError(f"field {name!r} is inside a map; name the top-level field {name.split('.')[0]!r}")


def _rule(name: str, rule: str) -> FieldRule:
    try:
        return FieldRule(rule)
    except ValueError:
        raise ValueError(f"field {name!r}: no rule {rule!r}; use one of {', '.join(FieldRule)}") from None


def _ranks(name: str, order: Sequence[Any]) -> Mapping[SortKey, int]:
    if isinstance(order, str) or not order:
        raise ValueError(f"the order of {name!r} must list its states, lowest first; it is {order!r}")
    try:
        ranks = {firestore_key(state): rank for rank, state in enumerate(order)}
    except TypeError as error:
        raise ValueError(f"the order of {name!r} has a state that no field can hold: {error}") from error
    if len(ranks) < len(order):
        raise ValueError(f"the order of {name!r} names a state twice: {list(order)}")
    return ranks
