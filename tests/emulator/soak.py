"""Load for as long as you like, with something killed or frozen every minute; then the account of it.

    python -m tests.emulator.soak --minutes 60 [--json]

All workloads run round after round. Every 60 s the next of these happens: a worker is killed, capture is
killed, a database freezes, the link to one is cut, is slow, or is half-open. One replica's worker is spared,
so that its memory can be followed over the whole run. A round is judged once no redelivery can still be due,
the last ones after the end. Exits with 1 if anything was lost, differs, was buried as a dead letter, or grows;
with 2 if an emulator died.
"""

import argparse
import itertools
import json
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import linear_regression, median

from replication.documents.wire import Document
from tests.emulator.judgement import faults, losers
from tests.emulator.outage import Outage
from tests.emulator.proxy import Fault, Proxy
from tests.emulator.replicas import Replicas
from tests.emulator.workloads import WORKLOADS, Run, Seen
from workers.local.emulators import StartFailed
from workers.local.fleet import LocalFleet
from workers.local.process import Process

FAULT_EVERY_S = 60.0
FAULT_LASTS_S = 10.0
REDELIVERED_S = 100.0
"""After a kill: the acknowledgement deadline of 60 s, how late Pub/Sub's emulator may be, and the work."""
SETTLE_S_MAX = 180.0
STOP_S_MAX = 10.0
"""Cloud Run kills that long after SIGTERM."""
STEPS = 12
ROUND_EVERY_S = 10.0
HEAP_GB = 6
"""The emulators keep all they ever saw: a round with large documents takes about 100 MB of Pub/Sub's heap, any
other about 3 MB."""
LARGE_ROUNDS_MAX = 40
MEMORY_EVERY_S = 5.0
WARM_UP_S = 120.0
"""A thread's first buffers are worth hundreds of MB an hour."""
JUDGED_S_MIN = 400.0
GROWN_MB_MAX = 64.0
"""A batch of large documents, in and out again, in each of four pullers: memory goes up and down by that much,
and over a short run the slope of such a line says nothing."""
PROXIED, SPARED, KILLED = "us", "apac", "eu"


@dataclass(frozen=True, slots=True)
class Slope:
    """How one process' memory grew in so many seconds after its warm-up.

    `mb` is its last size, `grown_mb` how much larger it was in the last third than in the first (medians),
    `mb_per_hour` the slope by least squares.
    """

    process: str
    mb: float
    grown_mb: float
    mb_per_hour: float
    seconds: float

    @property
    def too_steep(self) -> bool:
        """Whether it was watched for long enough to say so, and grows."""
        return self.seconds >= JUDGED_S_MIN and self.grown_mb > GROWN_MB_MAX


@dataclass(slots=True)
class Report:
    """What the run found.

    `losses` also has values that came back or that no one wrote; `stop_s_max` is the longest time from SIGTERM
    to the end of a worker or of capture.
    """

    minutes: float = 0.0
    rounds: int = 0
    writes: int = 0
    faults: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    divergence: list[str] = field(default_factory=list)
    dead_letters: int = 0
    restless: bool = False
    stop_s_max: float = 0.0
    slopes: list[Slope] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether anything is wrong."""
        steep = any(slope.too_steep for slope in self.slopes)
        slow = self.stop_s_max > STOP_S_MAX
        return bool(self.losses or self.divergence or self.dead_letters or self.restless or slow or steep)


class Memory:
    """The resident memory of processes over their lives; Linux only, elsewhere there are no slopes."""

    def __init__(self) -> None:
        self._samples: dict[tuple[str, int], list[tuple[float, float]]] = {}

    def sample(self, processes: Sequence[Process]) -> None:
        """Take one sample of each that runs."""
        for process in processes:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
            except OSError:
                continue  # it is dead at the moment, or this is not Linux
            if "VmRSS:" in status:
                mb = int(status.partition("VmRSS:")[2].split()[0]) / 1024
                self._samples.setdefault((process.name, process.pid), []).append((time.monotonic(), mb))

    def slopes(self) -> list[Slope]:
        """Of every life that outlasted its warm-up."""
        found = []
        for (name, _), samples in self._samples.items():
            warm = [(at, mb) for at, mb in samples if at > samples[0][0] + WARM_UP_S]
            if len(warm) > 2:
                times, sizes = zip(*warm, strict=True)
                third = max(1, len(sizes) // 3)
                grown = median(sizes[-third:]) - median(sizes[:third])
                slope = linear_regression(times, sizes).slope * 3600
                seconds = times[-1] - times[0]
                found.append(Slope(name, round(sizes[-1]), round(grown), round(slope), round(seconds)))
        return found


@dataclass(frozen=True, slots=True)
class Round:
    """What one round wrote, and when it ended."""

    name: str
    logs: dict[str, list[Seen]]
    ended: float


class Soak:
    """One run on a running fleet."""

    def __init__(self, fleet: LocalFleet, proxy: Proxy, say: Callable[[str], None]) -> None:
        self.report = Report()
        self._fleet = fleet
        self._proxy = proxy
        self._say = say
        self._replicas = Replicas(fleet)
        self._memory = Memory()
        self._stop = threading.Event()
        self._broken: list[BaseException] = []

    def run(self, minutes: float) -> Report:
        """Load it for so long, wait for what is due, and judge."""
        began = time.monotonic()
        threads = [threading.Thread(target=self._guarded, args=(work,)) for work in (self._harm, self._watch)]
        for thread in threads:
            thread.start()
        try:
            waiting = self._load(began + minutes * 60)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        if self._broken:
            raise self._broken[0]
        self._say(f"waiting for {len(waiting)} rounds")
        for each in waiting:
            self._judge(each, timeout=SETTLE_S_MAX)
        self._rest()
        self.report.minutes = round((time.monotonic() - began) / 60, 1)
        self.report.dead_letters = len(self._fleet.dead_letters())
        self.report.slopes = self._memory.slopes()
        return self.report

    def _load(self, until: float) -> list[Round]:
        waiting: list[Round] = []
        # All rounds have large documents in a short run, and as many in a long one, evenly spread.
        large_every = math.ceil((until - time.monotonic()) / ROUND_EVERY_S / LARGE_ROUNDS_MAX)
        for number in itertools.count():
            if time.monotonic() >= until or self._broken:
                return waiting
            due = time.monotonic() + ROUND_EVERY_S
            name = f"round{number:05}"
            chosen = tuple(one for one in WORKLOADS if one != "large" or number % large_every == 0)
            logs = Run(workloads=chosen, steps=STEPS, seed=number).write(name, self._replicas.clients)
            waiting.append(Round(name, logs, time.monotonic()))
            self.report.rounds += 1
            self.report.writes += sum(map(len, logs.values()))
            while waiting and time.monotonic() - waiting[0].ended > FAULT_LASTS_S + REDELIVERED_S:
                self._judge(waiting.pop(0), timeout=SETTLE_S_MAX - REDELIVERED_S)
            self._say(f"{self.report.writes} writes in {number + 1} rounds, {len(waiting)} not yet judged")
            self._stop.wait(max(0.0, due - time.monotonic()))
        raise AssertionError("counting has no end")

    def _judge(self, each: Round, *, timeout: float) -> None:
        for workload, log in each.logs.items():
            prefix = f"{each.name}_{workload}"
            try:
                held = self._replicas.equal(below=f"{prefix}/", timeout=timeout)
            except AssertionError:
                self._wrong(self.report.divergence, list(self._differences(f"{prefix}/")))
                self._check_emulators()
                continue
            self._wrong(self.report.losses, faults(log, held, losers(self._replicas.clients.values(), prefix)))

    def _check_emulators(self) -> None:
        """A replica that stands still because its emulator has died is no finding."""
        for each in (self._fleet.pubsub, *self._fleet.emulators.values()):
            if not each.running:
                raise StartFailed(
                    f"the {each.product} emulator has died: its log ends\n{each.log_tail()}\n"
                    f"If its heap of {HEAP_GB} GB is full, soak for fewer minutes."
                )

    def _differences(self, below: str) -> Iterator[str]:
        for path, bodies in self._replicas.differences(below=below).items():
            ids = {
                replica: body and Document.FromString(body).fields["write"].integer_value
                for replica, body in bodies.items()
            }
            yield f"{path}: {ids}; {self._fleet.undelivered()} events wait for capture"

    def _wrong(self, kind: list[str], found: list[str]) -> None:
        kind += found
        for one in found:
            self._say(f"WRONG: {one}")

    def _rest(self) -> None:
        """At the end nothing may move any more: neither a document nor a message."""
        _ = self._replicas.topic
        try:
            self._replicas.at_rest(seconds=5, timeout=60)
        except AssertionError:
            self.report.restless = True

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again by run()
            self._broken.append(error)

    def _watch(self) -> None:
        while not self._stop.wait(MEMORY_EVERY_S):
            workers = [worker for each in self._fleet.workers.values() for worker in each]
            self._memory.sample([*workers, self._fleet.capture])

    def _harm(self) -> None:
        for name, harm in itertools.cycle(self._harms().items()):
            if self._stop.wait(FAULT_EVERY_S):
                return
            self._say(name)
            self.report.faults.append(name)
            harm()

    def _harms(self) -> dict[str, Callable[[], None]]:
        return {
            f"kill -9 {KILLED}'s worker": lambda: self._fleet.workers[KILLED][0].restart(timeout=120),
            f"SIGTERM to {SPARED}'s worker": lambda: self._terminate(self._fleet.workers[SPARED][0]),
            f"{PROXIED}'s link is half-open": lambda: self._link(Fault(half_open=True)),
            "kill -9 capture": lambda: self._fleet.capture.restart(timeout=120),
            "SIGTERM to capture": lambda: self._terminate(self._fleet.capture),
            f"{SPARED}'s database is frozen": self._freeze,
            f"kill -9 {PROXIED}'s worker": lambda: self._fleet.workers[PROXIED][0].restart(timeout=120),
            f"{PROXIED}'s link is cut again and again": lambda: self._link(Fault(cut_after=20_000)),
            f"{PROXIED}'s link is slow": lambda: self._link(Fault(delay=0.3)),
        }

    def _terminate(self, process: Process) -> None:
        began = time.monotonic()
        process.terminate(timeout=120)
        self.report.stop_s_max = max(self.report.stop_s_max, round(time.monotonic() - began, 1))
        process.restart(timeout=120)

    def _freeze(self) -> None:
        with Outage(self._fleet, SPARED):
            self._stop.wait(FAULT_LASTS_S)

    def _link(self, fault: Fault) -> None:
        with self._proxy.during(fault):
            self._stop.wait(FAULT_LASTS_S)


def soak(minutes: float, say: Callable[[str], None]) -> Report:
    """Start a fleet, soak it, and stop it."""
    with ExitStack() as stack:
        proxies: dict[str, Proxy] = {}

        def via(replica: str, host: str) -> str:
            if replica != PROXIED:
                return host
            return proxies.setdefault(replica, stack.enter_context(Proxy(host))).host

        fleet = stack.enter_context(LocalFleet(via=via, heap_gb=HEAP_GB, log=say))
        return Soak(fleet, proxies[PROXIED], say).run(minutes)


def lines(report: Report) -> Iterator[str]:
    """The report to read."""
    yield f"{report.minutes} min, {report.rounds} rounds, {report.writes} writes, {len(report.faults)} faults"
    yield f"lost {len(report.losses)}, different {len(report.divergence)}, dead letters {report.dead_letters}"
    yield f"ended {report.stop_s_max} s after SIGTERM at most (promised: {STOP_S_MAX:.0f} s)"
    yield "still moving at the end" if report.restless else "at rest"
    for slope in report.slopes:
        note = "" if slope.seconds >= JUDGED_S_MIN else " (too short to judge)"
        yield (
            f"{slope.process}: {slope.mb:.0f} MB, {slope.grown_mb:+.0f} MB in {slope.seconds:.0f} s, "
            f"{slope.mb_per_hour:+.0f} MB/hour{note}"
        )
    yield "FAILED" if report.failed else "passed"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.emulator.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to write, by default 10")
    parser.add_argument("--json", action="store_true", help="the report as JSON on standard output")
    options = parser.parse_args(arguments)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:6.0f} s] {text}", file=sys.stderr, flush=True)

    try:
        report = soak(options.minutes, say)
    except StartFailed as error:
        say(f"broken off: {error}")
        return 2
    if options.json:
        print(json.dumps({"passed": not report.failed} | asdict(report), indent=2))
    else:
        print("\n".join(lines(report)))
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main())
