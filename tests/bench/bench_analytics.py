"""How fast one process takes analytics events and writes them: `make bench-analytics`.

First the real intake, buffer and flush on the memory adapters, in one thread: this program alone. Then one real
worker process on the emulators, from its start until the last of a waiting backlog is stored. Prints events a
second, CPU per event, and billed writes for 1,000 events.
"""

import logging
import os
import sys
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from replication.adapters.memory import MemoryDatabase
from replication.adapters.memory_pubsub import MemoryTopic
from replication.analytics.anonymise import Anonymiser
from replication.analytics.job import Job
from replication.analytics.schema import Schema
from replication.configuration.analytics import Analytics, parse_analytics
from replication.documents.wire import micros
from replication.ports import Received, Telemetry
from tests.emulator.analytics_site import Site, batch_of, valid_messages
from tests.support.analytics_worker import HandWorker
from tests.support.polling import eventually
from workers.analytics.clients import AnalyticsClients
from workers.local.emulators import FirestoreEmulator, PubsubEmulator
from workers.publish.generator import Generator
from workers.runtime.stop import StopSignal

TARGET = 10_000
"""Events a second that one process must take and write packed."""
PULL = 500
FLUSH = 20_000
PROCESS_THREADS = 8
"""Pub/Sub's emulator gives a hundred messages a pull: more pulls at once make up for that."""


class Counts(Telemetry):
    """Sums of counters by name."""

    def __init__(self) -> None:
        self.sums: dict[str, int] = {}

    def count(self, name: str, amount: int = 1, /, **labels: str) -> None:
        self.sums[name] = self.sums.get(name, 0) + amount

    def measure(self, name: str, value: float, /, **labels: str) -> None:
        """Not needed here."""

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        """Not needed here."""


@dataclass(frozen=True)
class Result:
    layout: str
    events: int
    seconds: float
    cpu_seconds: float
    writes: int
    written: int

    @property
    def rate(self) -> float:
        return self.events / self.seconds

    def __str__(self) -> str:
        return (
            f"{self.layout:12} {self.rate:10,.0f} events/s   "
            f"{self.cpu_seconds / self.events * 1e6:6.1f} µs CPU/event   "
            f"{self.writes / self.written * 1000:7.1f} billed writes/1,000 events"
        )


def settings_of(layout: str, *, warehouse: bool) -> Analytics:
    section = {
        "layout": layout,
        "types": {
            "swipe": {
                "payload": {"target": "string", "session": "string", "direction": "string"},
                "key": ["user", "target", "session"],
                "window": "24h",
                "ttl": "90d",
                "throttle": {"rate": 1000.0, "burst": 100_000},
            },
            "page_view": {"payload": {"page": "string", "millis": "integer", "device": "object"}, "ttl": "30d"},
        },
    }
    if warehouse:
        section["warehouse"] = {"topic": "warehouse", "key_env": "KEY", "users": ["target"]}
    return parse_analytics(section, replicas=("eu",), topic="changes")


def received(settings: Analytics, count: int) -> list[Received]:
    now = time.time_ns() // 1000
    generator = Generator(settings, region="eu", seed=1, now=lambda: now)
    return [
        Received(one.message, f"m{number}", f"a{number}", now)
        for number, one in enumerate(generator.messages(count))
    ]


def measure(layout: str, count: int, *, warehouse: bool = False) -> Result:
    settings = settings_of(layout, warehouse=warehouse)
    messages = received(settings, count)
    topic, telemetry = MemoryTopic(now=lambda: 0), Counts()
    database = MemoryDatabase("p", "eu", now=lambda: time.time_ns() // 1000)
    clients = AnalyticsClients(
        database, topic.subscription("eu"), topic.publisher(), topic.publisher(), telemetry
    )
    anonymiser = Anonymiser(settings.warehouse, b"0" * 32) if settings.warehouse else None
    schema = Schema(settings, replica="eu", replicas=frozenset({"eu"}))
    worker = HandWorker(Job("eu", settings, schema, anonymiser, "bench"), clients, StopSignal())
    began, cpu = time.perf_counter(), time.process_time()
    for start in range(0, count, PULL):
        worker.take(messages[start : start + PULL])
        if len(worker.deliveries) >= FLUSH:
            worker.flush()
    worker.flush()
    elapsed, used = time.perf_counter() - began, time.process_time() - cpu
    sums = telemetry.sums
    return Result(
        layout + (" + wh" if warehouse else ""),
        count,
        elapsed,
        used,
        sums["firefleet.analytics.writes"],
        sums["firefleet.analytics.written"],
    )


def measure_process(count: int) -> Result:
    """One `firefleet analytics` process against the emulators, its start included."""
    section = {"layout": "packed", "flush": {"every": "2s"}}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        firestore = stack.enter_context(FirestoreEmulator.start())
        pubsub = stack.enter_context(PubsubEmulator.start())
        site = stack.enter_context(Site(folder / "bench", "bench", firestore.host, pubsub.host, section))
        wanted = len(valid_messages(site.publish(count, publishers=4)))
        began = time.time()
        worker = site.worker("--threads", str(PROCESS_THREADS))
        eventually(lambda: site.distinct() >= wanted, every=2.0)
        cpu = cpu_seconds(worker.pid)
        documents = site.documents()
        ended = max(micros(one.update_time) for one in documents) / 1e6
        print(f"1 process: flushes {flush_gaps(documents)}; asked for: every 2 s, sooner when full")
        return Result("1 process", count, ended - began, cpu, len(documents), wanted)


def flush_gaps(documents: Sequence[Any]) -> str:
    """How far apart one worker's flushes began, by the times at which Firestore says it wrote."""
    began: dict[int, int] = {}
    for document in documents:
        _, number = batch_of(document)
        began[number] = min(began.get(number, 2**63), micros(document.create_time))
    times = sorted(began.values())
    gaps = sorted((after - before) / 1e6 for before, after in pairwise(times))
    return f"{gaps[len(gaps) // 2]:.1f} s apart (median), {gaps[-1]:.1f} s at most" if gaps else "only one"


def cpu_seconds(pid: int) -> float:
    """What a process has used, by the kernel's account (proc(5): fields 14 and 15, after the name)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--memory-only", action="store_true", help="without the emulators")
    options = parser.parse_args(arguments)
    count = options.events
    logging.disable(logging.WARNING)  # the generated wrong events
    packed = measure("packed", count)
    print(packed)
    print(measure("packed", count, warehouse=True))
    print(measure("per-event", count))
    slowest = packed.rate
    if options.memory_only:
        print("on the emulators: left out")
    else:
        process = measure_process(count)
        print(process)
        slowest = min(slowest, process.rate)
    if slowest < TARGET:
        print(f"packed is below {TARGET:,} events/s")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
