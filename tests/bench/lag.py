"""Lag, commit to commit, under a steady load of real commits at the source.

The bench commits at the source's database, builds each event from what the commit answered, and publishes it at
once, as capture would; no trigger is registered, because the emulator sends only some 450 a second. Lag is the
target's commit time minus the source's, both from the database, of every tenth batch: reading all of them would
be a load of its own.
"""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from replication.documents.wire import MICROS, Write, micros, set_micros
from tests.bench.stage import Scene, resources
from tests.bench.workload import COLLECTION, SOURCE, change, plain
from workers.local.process import Process

DOCUMENTS = 20_000
"""Written again and again, so that the load is one of later versions, and the database's memory bounded."""
TICK_S = 0.05
SAMPLED = 10
SETTLED_S = 3.0
"""A sampled batch is looked at this long after its commit; what is not there by then counts as this late."""


@dataclass(frozen=True, slots=True)
class Lag:
    """`peak_mib` and `grown_mib` are the worker's memory: the most, and how much more of it at the end."""

    rate: float
    samples: int
    p50_ms: float
    p99_ms: float
    peak_mib: float
    grown_mib: float


@dataclass(frozen=True, slots=True)
class _Sample:
    """Documents committed at the source at `commit_time` (µs), to be looked at when `due` comes."""

    due: float
    commit_time: int
    paths: list[str]


def measure(scene: Scene, worker: Process, *, rate: float, seconds: float) -> Lag:
    """Load the fleet with `rate` commits a second, and measure how far the target is behind."""
    waiting: deque[_Sample] = deque()
    lags: list[float] = []
    sent = 0
    began = time.monotonic()
    settled_mib = 0.0
    tick = 0
    while (elapsed := time.monotonic() - began) < seconds:
        count = min(500, int(elapsed * rate) - sent)
        if count > 0:
            sample = _commit(scene, sent, count)
            sent += count
            tick += 1
            if tick % SAMPLED == 0:
                waiting.append(sample)
        while waiting and waiting[0].due < time.monotonic():
            lags += _lags(scene, waiting.popleft())
        if not settled_mib and elapsed > seconds / 4:
            settled_mib = resources(worker.pid).peak_mib
        time.sleep(max(0.0, TICK_S - (time.monotonic() - began - elapsed)))
    rate_reached = sent / (time.monotonic() - began)
    for sample in waiting:
        time.sleep(max(0.0, sample.due - time.monotonic()))
        lags += _lags(scene, sample)
    peak = resources(worker.pid).peak_mib
    ranked = sorted(lags)
    return Lag(
        rate=rate_reached,
        samples=len(ranked),
        p50_ms=ranked[len(ranked) // 2] * 1000,
        p99_ms=ranked[len(ranked) * 99 // 100] * 1000,
        peak_mib=peak,
        grown_mib=peak - settled_mib,
    )


def _commit(scene: Scene, first: int, count: int) -> _Sample:
    """Commit documents at the source, and publish the events of these commits."""
    replica = scene.fleet.replica(SOURCE)
    numbers = range(first, first + count)
    paths = [f"{COLLECTION}/{number % DOCUMENTS:08}" for number in numbers]
    documents = [
        plain(replica, path, 1_000, at=0, mark=f"{number} ")
        for path, number in zip(paths, numbers, strict=True)
    ]
    for document in documents:
        document.ClearField("create_time")
        document.ClearField("update_time")
    answer = scene.databases[SOURCE].write([Write(update=document) for document in documents])
    times = [micros(result.update_time) for result in answer.write_results]
    scene.publish(_events(documents, times, first))
    return _Sample(time.monotonic() + SETTLED_S, max(times), paths)


def _events(documents: Sequence[Any], times: Sequence[int], first: int) -> list[Any]:
    events = []
    for number, (document, at) in enumerate(zip(documents, times, strict=True), start=first):
        set_micros(document.create_time, at)
        set_micros(document.update_time, at)
        events.append(change(document, None, number=number, at=at))
    return events


def _lags(scene: Scene, sample: _Sample) -> list[float]:
    """How many seconds after the source's commit the target had each document."""
    times = scene.commits(sample.paths, after=sample.commit_time)
    late = [SETTLED_S] * (len(sample.paths) - len(times))
    return [(at - sample.commit_time) / MICROS for at in times] + late
