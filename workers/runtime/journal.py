"""What a worker logs while it works: one line a minute, and each failure to reach something.

One line for all of a process's threads, however many have the same problem. A failure to reach a database or
Pub/Sub is logged at once, once a minute while it lasts, and when it is over. One that fails and recovers again
and again is logged once a minute at most.
"""

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

MINUTE_S = 60.0
_STEP = math.log(1.05)
"""Lags are counted in classes 5 % wide: any number of them, in little memory."""
_LAG_S_MIN = 0.001

_WORDS: Mapping[str, tuple[str, str]] = {
    "applied": ("applied", "applied"),
    "written": ("written", "written"),
    "conflict": ("conflict", "conflicts"),
    "violation": ("violation", "violations"),
    "duplicate": ("duplicate", "duplicates"),
    "dead_letter": ("dead letter", "dead letters"),
    "dead_lettered": ("dead letter", "dead letters"),
}
"""How outcomes are worded, one and many; others by their own name."""


@dataclass(slots=True)
class Lags:
    """A minute's lags in seconds; what it answers is at most 5 % above the exact value."""

    _classes: Counter[int] = field(default_factory=Counter)

    def add(self, seconds: Iterable[float]) -> None:
        """Count some lags; what is below a millisecond counts as one."""
        self._classes.update(math.ceil(math.log(max(one, _LAG_S_MIN)) / _STEP) for one in seconds)

    def quantile(self, share: float) -> float | None:
        """The lag that this share of them does not exceed; None if there are no lags."""
        left = math.ceil(share * self._classes.total())
        for number in sorted(self._classes):
            left -= self._classes[number]
            if left <= 0:
                return math.exp(number * _STEP)
        return None


@dataclass(slots=True)
class _Outage:
    """An outage: since when, its latest cause, and whether it was logged."""

    since: float
    problem: str
    told: bool = False


class Journal:
    """One process's journal; its threads share it. `now` gives monotonic seconds, `wall` those since 1970.

    `unit` is what the worker works on; `always` are the outcomes that every line names, also where there were
    none.
    """

    def __init__(
        self,
        now: Callable[[], float],
        *,
        unit: str = "changes",
        always: Iterable[str] = ("applied", "conflict", "dead_letter"),
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._now = now
        self._wall = wall
        self._unit = unit
        self._always = tuple(always)
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._lags = Lags()
        self._due = now() + MINUTE_S
        self._outages: dict[str, _Outage] = {}
        self._told: dict[str, float] = {}
        self._held_back: Counter[str] = Counter()

    def record(self, counts: Mapping[str, int], lags_s: Iterable[float] = ()) -> None:
        """Count outcomes, and the lags in seconds of what was applied."""
        with self._lock:
            self._counts.update(counts)
            self._lags.add(lags_s)

    def failed(self, end: str, problem: str, *, held: int) -> None:
        """A call to an end failed; `held` is how much waits for it."""
        with self._lock:
            outage = self._outages.setdefault(end, _Outage(self._now(), problem))
            outage.problem = problem
            tell = not outage.told and self._may_tell(end)
            outage.told |= tell
        if tell:
            log.warning(
                "%s cannot be reached (%s held): %s", end, self._amount(held), problem, extra={"end": end}
            )

    def reached(self, end: str, *, held: int) -> None:
        """An end answers again at every thread that had found it failing."""
        with self._lock:
            outage = self._outages.pop(end, None)
        if outage is not None and outage.told:
            log.info(
                "%s reachable again after %s, %s held",
                end,
                span(self._now() - outage.since),
                self._amount(held),
                extra={"end": end, "outage_s": round(self._now() - outage.since, 3)},
            )

    def rarely(self, key: str) -> int | None:
        """Whether to write a line of this kind now, once a minute: None, or how many were left out before."""
        with self._lock:
            if self._may_tell(key):
                return self._held_back.pop(key, 0)
            self._held_back[key] += 1
            return None

    def tick(self, *, held: int, oldest_us: int | None) -> None:
        """Write what is due; call it every few seconds. `oldest_us` is when the oldest held was published."""
        age = span(max(0.0, self._wall() - oldest_us / 1_000_000)) if oldest_us is not None else None
        with self._lock:
            lasting = {end: outage for end, outage in self._outages.items() if self._may_tell(end)}
            for outage in lasting.values():
                outage.told = True
        for end, outage in lasting.items():
            log.warning(
                "%s unreachable for %s (%s held%s): %s",
                end,
                span(self._now() - outage.since),
                self._amount(held),
                f", the oldest {age} old" if age is not None else "",
                outage.problem,
                extra={"end": end},
            )
        self._tell_minute(held)

    def _tell_minute(self, held: int) -> None:
        with self._lock:
            if self._now() < self._due:
                return
            self._due = self._now() + MINUTE_S
            counts, lags = self._counts, self._lags
            self._counts, self._lags = Counter(), Lags()
        if not counts and not held:
            return
        told = dict.fromkeys([*self._always, *sorted(counts)])
        parts = [f"{counts[name]:,} {_word(name, counts[name])}" for name in told]
        extra: dict[str, float] = {**{name: counts[name] for name in told}, "held": held}
        p50, p99 = lags.quantile(0.5), lags.quantile(0.99)
        if p50 is not None and p99 is not None:
            parts.insert(1, f"lag p50 {span(p50)} and p99 {span(p99)}")
            extra |= {"lag_p50_s": round(p50, 3), "lag_p99_s": round(p99, 3)}
        log.info("in the last minute: %s, %d held", ", ".join(parts), held, extra=extra)

    def _may_tell(self, key: str) -> bool:
        """Whether nothing of this kind was logged in the last minute; then it is now."""
        now = self._now()
        if now - self._told.get(key, -math.inf) < MINUTE_S:
            return False
        self._told[key] = now
        return True

    def _amount(self, held: int) -> str:
        return f"{held:,} {self._unit.removesuffix('s') if held == 1 else self._unit}"


def _word(outcome: str, count: int) -> str:
    one, many = _WORDS.get(outcome, (outcome, outcome))
    return one if count == 1 else many


def span(seconds: float) -> str:
    """A length of time in words, with two or three figures."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    for size, name, at_most in ((1, "s", 120), (60, "min", 120), (3_600, "h", 48)):
        if seconds / size < at_most:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds / 86_400:.0f} days"
