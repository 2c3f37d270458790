"""Driving a generator of effects: answers and known errors go in, everything else closes it."""

from collections.abc import Generator
from typing import Any

import pytest

from replication.effects import Acknowledge, Expired, Pause, drive, patiently
from replication.errors import ConditionFailed, Refused, Transient

Steps = Generator[Any, Any, Any]


def test_answers_go_in_and_what_is_returned_comes_out() -> None:
    def steps() -> Steps:
        first = yield 1
        second = yield 2
        return [first, second]

    assert drive(steps(), lambda effect: effect * 10) == [10, 20]


@pytest.mark.parametrize("error", [Transient, ConditionFailed, Refused, Expired])
def test_an_error_the_engine_knows_is_raised_where_the_effect_was_yielded(error: type[Exception]) -> None:
    def steps() -> Steps:
        try:
            yield "fail"
        except error as caught:
            return (yield str(caught))

    def perform(effect: str) -> str:
        if effect == "fail":
            raise error("no")
        return effect.upper()

    assert drive(steps(), perform) == "NO"


@pytest.mark.parametrize("fault", [ValueError, StopIteration, KeyboardInterrupt])
def test_any_other_error_closes_the_steps_and_is_raised(fault: type[BaseException]) -> None:
    """`StopIteration` too: it must not pass for the end of the steps."""
    closed: list[bool] = []

    def steps() -> Steps:
        try:
            yield 1
        except GeneratorExit:
            closed.append(True)
            raise

    def perform(_: int) -> None:
        raise fault("a bug")

    with pytest.raises(fault):
        drive(steps(), perform)
    assert closed == [True]


def test_an_effect_is_repeated_patiently_until_it_succeeds() -> None:
    seen: list[Any] = []

    def perform(effect: Any) -> str:
        seen.append(effect)
        if len(seen) < 4:
            if isinstance(effect, Acknowledge):
                raise Transient("down")
            return ""
        return "done"

    again = Acknowledge(["a"])
    assert drive(patiently(again), perform) == "done"
    assert seen == [again, Pause(1, "down"), again, Pause(2, "down"), again]
