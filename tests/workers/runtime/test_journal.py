"""A worker's journal: a line a minute while it works, and each outage told once at a time."""

import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.runtime.journal import Journal, Lags, span
from workers.runtime.progress import Progress

WALL_S = 1_700_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        return WALL_S + self.now - 1000.0


class Desk:
    """A journal, its clock, and the lines it has written since they were last read."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.clock = Clock()
        self.journal = Journal(self.clock, wall=self.clock.wall)
        self.progress = Progress(self.clock, self.journal)
        self._caplog = caplog

    def pass_time(self, seconds: float, *, held: int = 0, oldest_us: int | None = None) -> None:
        """Let time pass as a worker does, which ticks every five seconds."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now = min(end, self.clock.now + 5)
            self.journal.tick(held=held, oldest_us=oldest_us)

    def lines(self) -> list[str]:
        told = [f"{one.levelname} {one.getMessage()}" for one in self._caplog.records]
        self._caplog.clear()
        return told


@pytest.fixture
def desk(caplog: pytest.LogCaptureFixture) -> Iterator[Desk]:
    with caplog.at_level(logging.INFO, logger="workers.runtime.journal"):
        yield Desk(caplog)


def test_a_minute_of_work_is_one_line(desk: Desk) -> None:
    desk.journal.record({"applied": 1_200, "conflict": 1, "stale": 3}, [0.05] * 1_100 + [2.0] * 100)
    desk.journal.record({"applied": 4})
    desk.pass_time(59, held=12)
    assert desk.lines() == []
    desk.pass_time(1, held=12)
    [line] = desk.lines()
    assert line == (
        "INFO in the last minute: 1,204 applied, lag p50 51 ms and p99 2.1 s, 1 conflict, 0 dead letters, "
        "3 stale, 12 held"
    )


def test_each_minute_is_told_by_itself_and_an_idle_one_not_at_all(desk: Desk) -> None:
    desk.journal.record({"applied": 5}, [0.1])
    desk.pass_time(60)
    assert desk.lines()[0].startswith("INFO in the last minute: 5 applied, lag")
    desk.pass_time(600)
    assert desk.lines() == []
    desk.journal.record({"applied": 1})
    desk.pass_time(60)
    assert desk.lines() == ["INFO in the last minute: 1 applied, 0 conflicts, 0 dead letters, 0 held"]


def test_work_that_is_held_is_told_where_nothing_gets_done(desk: Desk) -> None:
    desk.pass_time(60, held=7)
    assert desk.lines() == ["INFO in the last minute: 0 applied, 0 conflicts, 0 dead letters, 7 held"]


def test_an_outage_is_told_at_once_then_once_a_minute_and_when_it_is_over(desk: Desk) -> None:
    oldest_us = int((WALL_S - 14) * 1_000_000)
    desk.progress.hold("puller-1", 20, oldest_us)
    for puller in ("puller-1", "puller-2", "puller-3", "puller-4"):
        desk.progress.trouble(puller, "us", "replica us: reading: UNAVAILABLE")
    assert desk.lines() == ["WARNING us cannot be reached (20 changes held): replica us: reading: UNAVAILABLE"]
    desk.pass_time(59, held=20, oldest_us=oldest_us)
    assert desk.lines() == []
    desk.progress.trouble("puller-1", "us", "replica us: reading: DEADLINE_EXCEEDED")
    desk.pass_time(2, held=20, oldest_us=oldest_us)
    outage = [line for line in desk.lines() if "us unreachable" in line]
    assert outage == [
        "WARNING us unreachable for 61 s (20 changes held, the oldest 75 s old): "
        "replica us: reading: DEADLINE_EXCEEDED"
    ]
    for puller in ("puller-1", "puller-2", "puller-3"):
        desk.progress.trouble(puller, "us", None)
    assert desk.lines() == []
    desk.progress.trouble("puller-4", "us", None)
    assert desk.lines() == ["INFO us reachable again after 61 s, 20 changes held"]
    desk.pass_time(300)
    assert not [line for line in desk.lines() if "us" in line.split()[1]]


def test_an_end_that_comes_and_goes_is_told_once_a_minute(desk: Desk) -> None:
    told = []
    for _ in range(240):
        desk.progress.trouble("puller-1", "Pub/Sub", "UNAVAILABLE")
        desk.clock.now += 0.25
        desk.progress.trouble("puller-1", "Pub/Sub", None)
        desk.clock.now += 0.25
        desk.journal.tick(held=0, oldest_us=None)
        told += desk.lines()
    assert [line.split(" after")[0] for line in told] == [
        "WARNING Pub/Sub cannot be reached (0 changes held): UNAVAILABLE",
        "INFO Pub/Sub reachable again",
        "WARNING Pub/Sub cannot be reached (0 changes held): UNAVAILABLE",
        "INFO Pub/Sub reachable again",
    ]


def test_an_outage_too_soon_after_the_last_is_told_when_it_lasts(desk: Desk) -> None:
    desk.progress.trouble("puller-1", "us", "down")
    desk.progress.trouble("puller-1", "us", None)
    desk.clock.now += 10
    desk.lines()
    desk.progress.trouble("puller-1", "us", "down again")
    assert desk.lines() == []
    desk.pass_time(55)
    assert desk.lines() == ["WARNING us unreachable for 50 s (0 changes held): down again"]
    desk.progress.trouble("puller-1", "us", None)
    assert desk.lines() == ["INFO us reachable again after 55 s, 0 changes held"]


def test_two_ends_are_told_apart(desk: Desk) -> None:
    desk.progress.trouble("puller-1", "us", "down")
    desk.progress.trouble("puller-1", "Pub/Sub", "away")
    desk.lines()
    assert desk.progress.troubled("puller-1")
    desk.progress.trouble("puller-1", "us", None)
    assert desk.lines() == ["INFO us reachable again after 0 ms, 0 changes held"]
    assert desk.progress.unreachable() == "away"
    desk.progress.trouble("puller-1", "Pub/Sub", None)
    assert not desk.progress.troubled("puller-1")


def test_a_kind_of_line_is_written_once_a_minute_and_says_how_many_were_left_out(desk: Desk) -> None:
    assert [desk.journal.rarely("faults of us") for _ in range(4)] == [0, None, None, None]
    assert desk.journal.rarely("faults of eu") == 0
    desk.clock.now += 60
    assert desk.journal.rarely("faults of us") == 3
    desk.clock.now += 60
    assert desk.journal.rarely("faults of us") == 0


@given(st.lists(st.floats(0.002, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_the_exact_one_or_up_to_five_percent_more(values: list[float], share: float) -> None:
    lags = Lags()
    lags.add(values)
    exact = sorted(values)[-int(-share * len(values) // 1) - 1]
    answered = lags.quantile(share)
    assert answered is not None
    assert exact * 0.999 <= answered <= exact * 1.051


def test_no_lags_have_no_quantile_and_a_clock_that_went_back_counts_as_no_lag() -> None:
    lags = Lags()
    assert lags.quantile(0.5) is None
    lags.add([-3.0, 0.0])
    assert span(lags.quantile(0.5) or 9) == "1 ms"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.061, "61 ms"),
        (1.7, "1.7 s"),
        (61, "61 s"),
        (119, "119 s"),
        (600, "10 min"),
        (9_000, "2 h"),
        (864_000, "10 days"),
    ],
)
def test_a_span_is_told_in_the_unit_that_fits(seconds: float, told: str) -> None:
    assert span(seconds) == told
