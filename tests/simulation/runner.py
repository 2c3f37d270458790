"""Run histories: one seed, or many on all cores, and what to say about those that fail."""

import gc
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.history import History
from tests.simulation.knobs import draw_knobs
from tests.simulation.oracles import judge
from tests.simulation.world import World

CHUNK = 25
FAILURES_MAX = 20
"""More failing seeds than this are not told one by one."""

REACHED = (
    "captured: delete",
    "captured: merged",
    "captured: violation",
    "capture retried",
    "computed body",
    "copy",
    "crash after BatchWrite",
    "crash after Commit",
    "crash before Acknowledge",
    "crash before BatchWrite",
    "crash before Commit",
    "database down",
    "dead for ever",
    "dead letter",
    "duplicate delivery",
    "duplicate event",
    "failed precondition",
    "forged, from the future",
    "guard failed",
    "half a batch landed",
    "heal: delete",
    "heal: write",
    "late capture",
    "late write landed",
    "late write refused",
    "metadata not believed",
    "misplaced write sent back",
    "outage",
    "outcome: applied",
    "outcome: conflict",
    "outcome: duplicate",
    "outcome: stale",
    "outcome: violation",
    "pause",
    "policy failed",
    "publish failed",
    "push-back",
    "read too old",
    "redelivery",
    "refused write",
    "replay while live",
    "status aborted",
    "time jump",
    "tombstone read",
    "tombstone read by capture",
    "undelete",
    "unknown, landed",
    "unknown, not landed",
    "write-back",
)
"""What must have happened over the seeds, else the run proves nothing."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A seed whose history breaks an oracle."""

    seed: int
    oracle: str
    what: str

    def __str__(self) -> str:
        return f"seed {self.seed}, {self.oracle}: {self.what}\n  replay: {command(self.seed)}"


@dataclass(slots=True)
class Summary:
    """What a run of many seeds found and reached."""

    histories: int = 0
    writes: int = 0
    published: int = 0
    seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    sometimes: Counter[str] = field(default_factory=Counter)

    @property
    def unreached(self) -> list[str]:
        """What should have happened at least once, and did not."""
        return [what for what in REACHED if not self.sometimes[what]]

    def add(self, other: "Summary") -> None:
        """Take in the summary of other seeds."""
        self.histories += other.histories
        self.writes += other.writes
        self.published += other.published
        self.failures += other.failures[: max(0, FAILURES_MAX - len(self.failures))]
        self.sometimes += other.sometimes


def command(seed: int, steps: Sequence[int] | None = None) -> str:
    """The command that shows a seed's history."""
    kept = f" --steps {ranges(steps)}" if steps is not None else ""
    return f"python -m tests.simulation replay {seed}{kept}"


def live(
    seed: int,
    *,
    forced: Mapping[str, Any] | None = None,
    steps: Iterable[int] | None = None,
    trace: list[str] | None = None,
) -> History:
    """The history of a seed."""
    return World(seed, draw_knobs(seed, forced), trace).run(steps)


def run_seeds(seeds: Iterable[int], forced: Mapping[str, Any] | None = None) -> Summary:
    """Live and judge the histories of some seeds, in this process."""
    summary = Summary()
    for seed in seeds:
        history = live(seed, forced=forced)
        summary.histories += 1
        summary.writes += len(history.writes)
        summary.published += history.published
        summary.sometimes += history.sometimes
        wrong = judge(history)
        if wrong:
            oracle, what = wrong[0]
            summary.failures.append(Failure(seed, oracle, what))
    return summary


def run_many(
    start: int, count: int, *, jobs: int | None = None, progress: Callable[[Summary], None] | None = None
) -> Summary:
    """Live and judge `count` seeds from `start`, in `jobs` processes (default: one a core)."""
    chunks = [range(first, min(first + CHUNK, start + count)) for first in range(start, start + count, CHUNK)]
    total, began = Summary(), time.monotonic()
    for part in _parts(chunks, jobs or os.cpu_count() or 1):
        total.add(part)
        total.seconds = time.monotonic() - began
        if progress is not None:
            progress(total)
    return total


def _parts(chunks: Sequence[range], jobs: int) -> Iterator[Summary]:
    if jobs == 1:
        yield from map(run_seeds, chunks)
        return
    # Spawned and not forked: the parent may have threads (pytest's timeout, the progress bar).
    context = multiprocessing.get_context("spawn")
    # What was imported lives as long as the process: the collector need not look at it again.
    with context.Pool(jobs, initializer=gc.freeze) as pool:
        yield from pool.imap_unordered(run_seeds, chunks)


def ranges(steps: Sequence[int]) -> str:
    """Numbers as text: 0-3,7."""
    parts: list[str] = []
    first = last = None
    for step in [*steps, None]:
        if last is not None and step == last + 1:
            last = step
            continue
        if first is not None:
            parts.append(str(first) if first == last else f"{first}-{last}")
        first = last = step
    return ",".join(parts) or "none"


def parse_ranges(text: str) -> list[int]:
    """The numbers of a text such as 0-3,7."""
    steps: list[int] = []
    for part in text.split(",") if text != "none" else ():
        first, _, last = part.partition("-")
        steps += range(int(first), int(last or first) + 1)
    return steps
