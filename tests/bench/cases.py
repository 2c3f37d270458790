"""The measurements of one run, interleaved: each round takes every case once, so that a busy minute of the
machine falls on all of them; each result is the median of the rounds.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from replication.documents.wire import MICROS
from tests.bench import capture, core, lag
from tests.bench.stage import FIREFLEET, NotDone, Scene, Stage, drain, resources
from tests.bench.workload import TARGET, Spec, build
from workers.local.emulators import free_port
from workers.local.process import Process

Values = Mapping[str, float]
OURS = ("worker", "ceiling")
"""What must finish, or nothing was measured."""
_REQUESTS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """A contender working off a backlog, in one or more processes."""

    name: str
    about: str
    contender: str = "worker"
    spec: Spec = field(default_factory=Spec)
    processes: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """How long a run is: rounds, messages of a full backlog, seconds of the lag's and capture's load."""

    rounds: int
    changes: int
    lag_s: float
    capture_s: float


FULL = Length(rounds=3, changes=20_000, lag_s=60, capture_s=5)
QUICK = Length(rounds=1, changes=2_000, lag_s=5, capture_s=2)


def backlogs(length: Length) -> list[Backlog]:
    """Every backlog of a run; the slow contenders get fewer messages, being slow."""
    full = length.changes
    return [
        Backlog(
            name="ceiling",
            about="the same calls, nothing decided",
            contender="ceiling",
            spec=Spec(changes=full),
        ),
        Backlog(name="worker", about="firefleet replicate", spec=Spec(changes=full)),
        Backlog(
            name="transaction",
            about="subscribe() + a transaction per message",
            contender="transaction",
            spec=Spec(changes=full // 20),
        ),
        Backlog(
            name="batched",
            about="subscribe() + batched commits, unchecked",
            contender="batched",
            spec=Spec(changes=full // 2),
        ),
        Backlog(
            name="bulkwriter",
            about="subscribe() + BulkWriter, unchecked",
            contender="bulkwriter",
            spec=Spec(changes=full // 8),
        ),
        Backlog(name="worker x2", about="two worker processes", spec=Spec(changes=full), processes=2),
        Backlog(name="worker 10 KB", about="documents of 10 KB", spec=Spec(changes=full // 5, bytes=10_000)),
        Backlog(
            name="worker 100 KB", about="documents of 100 KB", spec=Spec(changes=full // 50, bytes=100_000)
        ),
        Backlog(
            name="worker 1 % conflicts", about="1 % conflicts", spec=Spec(changes=full // 2, conflicts=0.01)
        ),
        Backlog(
            name="worker 10 % conflicts", about="10 % conflicts", spec=Spec(changes=full // 2, conflicts=0.1)
        ),
    ]


def names(length: Length) -> list[str]:
    """What can be measured alone."""
    return [*(case.name for case in backlogs(length)), "core", "lag", "capture"]


def run(length: Length, *, only: Sequence[str], say: Callable[[str], None]) -> dict[str, Any]:
    """Measure; for each case its median `values` and the `rounds` they come from."""
    chosen = [case for case in backlogs(length) if not only or case.name in only]
    rounds: dict[str, list[Values]] = {}
    unfinished: dict[str, list[str]] = {}
    with Stage() as stage:
        _warm_up(stage, length)
        for number in range(1, length.rounds + 1):
            for case in chosen:
                say(f"round {number} of {length.rounds}: {case.name}")
                try:
                    rounds.setdefault(case.name, []).append(_backlog(stage, case))
                except NotDone as error:
                    if case.contender in OURS:
                        raise
                    # A rival that loses writes is a result, too.
                    unfinished.setdefault(case.name, []).append(str(error))
                    say(str(error))
            if not only or "core" in only:
                say(f"round {number} of {length.rounds}: core")
                rounds.setdefault("core", []).append(_core(stage, length))
            if not only or "capture" in only:
                say(f"round {number} of {length.rounds}: capture")
                rounds.setdefault("capture", []).append(captured(stage, length))
        results: dict[str, Any] = {
            name: {
                "values": _medians(values),
                "rounds": values,
                "unfinished": unfinished.get(name, []),
            }
            for name, values in rounds.items()
            if values
        }
        if "worker" in results and (not only or "lag" in only):
            rate = results["worker"]["values"]["per_second"] / 2
            say(f"lag: {length.lag_s:.0f} s of {rate:,.0f} commits a second")
            measured = [_lag(stage, length, rate)]
            results["lag"] = {"values": measured[0], "rounds": measured}
    return results


def _warm_up(stage: Stage, length: Length) -> None:
    """The emulators compile their code while it runs, and take a third of the time once they have."""
    for contender in ("ceiling", "worker", "ceiling", "worker"):
        _backlog(stage, Backlog(name="", about="", contender=contender, spec=Spec(changes=length.changes // 2)))


def _backlog(stage: Stage, case: Backlog) -> Values:
    with stage.scene() as scene:
        workload = build(scene.fleet, case.spec, now=now_us())
        started = command(scene, case.contender)
        return asdict(drain(scene, case.contender, started, workload, processes=case.processes))


def command(scene: Scene, contender: str) -> list[str]:
    """How a contender is started; the worker as in production, but for the log line of each conflict."""
    if contender == "worker":
        options = ["--config", str(scene.config), "--log-level", "warning"]
        return [*FIREFLEET, *options, "replicate", "--replica", TARGET]
    return [sys.executable, "-m", "tests.bench.rivals", contender, "--config", str(scene.config)]


def _core(stage: Stage, length: Length) -> Values:
    now = now_us()
    with stage.scene() as scene:
        fleet = scene.fleet
    changes = length.changes // 5
    mixed = build(fleet, Spec(changes=changes), now=now)
    second = build(fleet, Spec(changes=changes, second_versions=1.0), now=now)
    with stage.still():
        core.measure(fleet, mixed, now=now)  # Python, too, makes code faster while it runs
        return {
            "per_second": core.measure(fleet, mixed, now=now),
            "second_versions_per_second": core.measure(fleet, second, now=now),
        }


def _lag(stage: Stage, length: Length, rate: float) -> Values:
    with stage.scene() as scene, scene.launch("worker", command(scene, "worker")) as worker:
        worker.ready()
        return asdict(lag.measure(scene, worker, rate=rate, seconds=length.lag_s))


def captured(stage: Stage, length: Length) -> Values:
    """Requests a second of one capture process."""
    with stage.scene() as scene:
        port = free_port()
        started = [
            *FIREFLEET,
            "--config",
            str(scene.config),
            "capture",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        with Process("capture", started, health=f"http://127.0.0.1:{port}/ready") as process:
            process.ready()
            sent = capture.requests(scene.fleet, _REQUESTS, now=now_us(), port=port)
            before = resources(process.pid).cpu_s
            measured = capture.measure(port, sent, seconds=length.capture_s)
            spent = resources(process.pid).cpu_s - before
            return asdict(measured) | {"cpu_us": spent / measured.answers * MICROS}


def _medians(rounds: Sequence[Values]) -> Values:
    return {name: median(values[name] for values in rounds) for name in rounds[0]}


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000
