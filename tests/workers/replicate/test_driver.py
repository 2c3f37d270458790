"""Driving a batch with clients: what is held, extended, released and recorded while things go wrong."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import pytest

from replication.adapters.memory import MemoryDatabase, MemoryTopic
from replication.adapters.memory_telemetry import checked
from replication.effects import Expired
from replication.errors import Transient
from replication.fleet.model import Target
from replication.metrics import Instrument
from replication.ports import Message, Received, Subscription
from tests.support.fleets import NOW, document, fleet, message, text
from tests.support.polling import eventually
from workers.replicate.clients import Clients
from workers.replicate.driver import Driver, write_timeout
from workers.replicate.worker import BATCH_BYTES_MAX, Worker, batches
from workers.runtime.loop import Loop
from workers.runtime.progress import Progress
from workers.runtime.stop import StopSignal

FLEET = fleet()
TARGET = Target(FLEET, FLEET.replica("apac"))


@dataclass
class Recorded:
    """A Telemetry that remembers."""

    counts: list[tuple[str, int, dict[str, str]]] = field(default_factory=list)
    values: list[tuple[str, float, dict[str, str]]] = field(default_factory=list)

    def count(self, name: str, amount: int = 1, /, **labels: str) -> None:
        checked(name, Instrument.COUNTER, labels)
        self.counts.append((name, amount, labels))

    def measure(self, name: str, value: float, /, **labels: str) -> None:
        checked(name, Instrument.HISTOGRAM, labels)
        self.values.append((name, value, labels))

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        checked(name, Instrument.GAUGE, labels)
        self.values.append((name, value, labels))

    def total(self, name: str, **labels: str) -> int:
        return sum(
            amount for seen, amount, its in self.counts if seen == name and labels.items() <= its.items()
        )


class Flaky:
    """A database that fails as often as it is told to, and then works."""

    def __init__(self, inner: MemoryDatabase, failures: int, error: Exception) -> None:
        self._inner, self.failures, self._error = inner, failures, error
        self.prefix = inner.prefix

    def _fail(self) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise self._error

    def read(self, paths: Any, *, timeout: float) -> Any:
        self._fail()
        return self._inner.read(paths, timeout=timeout)

    def batch_write(self, writes: Any, *, timeout: float) -> Any:
        return self._inner.batch_write(writes, timeout=timeout)

    def commit(self, writes: Any, *, timeout: float) -> Any:
        return self._inner.commit(writes, timeout=timeout)

    def close(self) -> None:
        pass


class Impatient(StopSignal):
    """Tells of each wait, and does not wait."""

    def __init__(self, told: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._told = told

    def wait(self, seconds: float) -> bool:
        self._told()
        return super().wait(0)


@dataclass
class Rig:
    databases: dict[str, Any]
    topic: MemoryTopic
    dead: MemoryTopic
    telemetry: Recorded
    stop: StopSignal
    progress: Progress

    def __post_init__(self) -> None:
        self.subscription = self.topic.subscription("changes-apac")
        self.letters = self.dead.subscription("all")

    @property
    def clients(self) -> Clients:
        return Clients(
            self.databases, self.subscription, self.topic.publisher(), self.dead.publisher(), self.telemetry
        )

    def driver(self) -> Driver:
        return self.driver_of(self.clients)

    def driver_of(self, clients: Clients) -> Driver:
        loop = Loop(
            name="puller-1",
            target="apac",
            progress=self.progress,
            stop=self.stop,
            telemetry=self.telemetry,
            retries="firefleet.retries",
            reporter="puller-1",
        )
        return Driver(loop, TARGET, clients)

    def pulled(self, *messages: Message) -> list[Received]:
        for one in messages:
            self.topic.publish(one)
        return self.subscription.pull(100, timeout=0)

    def value(self, path: str) -> str | None:
        found = self.databases["apac"].read([path], timeout=1)[0].document
        return None if found is None else found.fields["x"].string_value


@pytest.fixture
def rig() -> Iterator[Rig]:
    ticks = count(time.time_ns() // 1000)
    databases = {name: MemoryDatabase("shop", name, now=lambda: next(ticks)) for name in FLEET.replicas}
    now = lambda: time.time_ns() // 1000  # noqa: E731
    made = Rig(
        databases,
        MemoryTopic(now=now),
        MemoryTopic(now=now),
        Recorded(),
        StopSignal(),
        Progress(time.monotonic),
    )
    yield made
    made.stop.set()


def write(path: str = "docs/1", *, at: int = NOW) -> Message:
    return message("write", "eu", document("eu", path, {"x": text("new")}, update_time=at))


def test_a_batch_is_applied_acknowledged_and_measured(rig: Rig) -> None:
    rig.driver().run(rig.pulled(write("docs/1"), write("docs/2")))
    assert rig.value("docs/1") == rig.value("docs/2") == "new"
    assert rig.subscription.backlog == 0
    labels = {"source": "eu", "target": "apac", "collection": "docs"}
    assert rig.telemetry.total("firefleet.changes", outcome="applied", **labels) == 2
    lags = [value for name, value, its in rig.telemetry.values if name == "firefleet.replication.lag"]
    assert len(lags) == 2
    assert all(lag > 1_000_000 for lag in lags), "seconds since the source's commit, in 2023"


def test_a_database_that_comes_back_is_waited_for_and_reported_meanwhile(rig: Rig) -> None:
    rig.databases["apac"] = Flaky(rig.databases["apac"], 3, Transient("apac is down"))
    seen: list[str | None] = []
    rig.stop = Impatient(lambda: seen.append(rig.progress.unreachable()))
    rig.driver().run(rig.pulled(write()))
    assert seen == ["apac is down"] * 3
    assert rig.progress.unreachable() is None
    assert rig.value("docs/1") == "new"
    assert rig.telemetry.total("firefleet.retries", target="apac") == 3


def test_stopping_during_an_outage_releases_what_is_held_at_once(rig: Rig) -> None:
    rig.databases["apac"] = Flaky(rig.databases["apac"], 10**6, Transient("apac is down"))
    batch = rig.pulled(write())
    rig.stop.set()
    rig.driver().run(batch)
    assert [again.id for again in rig.subscription.pull(10, timeout=0)] == [batch[0].id]
    assert rig.progress.inflight == 0


def test_a_fault_of_the_program_releases_one_message_and_applies_its_neighbours(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    class Trap(MemoryDatabase):
        def commit(self, writes: Any, *, timeout: Any) -> Any:
            if any("/trap" in made.update.name for made in writes):
                raise RuntimeError("a bug")
            return super().commit(writes, timeout=timeout)

    ticks = count(NOW + 10**6)
    rig.databases["apac"] = Trap("shop", "apac", now=lambda: next(ticks))
    batch = rig.pulled(*(write(f"docs/{n}") for n in range(7)), write("docs/trap"))
    rig.driver().run(batch)
    assert all(rig.value(f"docs/{n}") == "new" for n in range(7))
    assert [again.id for again in rig.subscription.pull(10, timeout=0)] == [batch[-1].id]
    assert "a bug" in caplog.text
    assert rig.telemetry.total("firefleet.failures") == 1


def test_a_publish_that_fails_keeps_the_bad_message_until_its_dead_letter_is_durable(rig: Rig) -> None:
    failures = iter(range(2))
    real = rig.dead.publisher()

    class Shaky:
        def submit(self, sent: Message) -> Future[str]:
            if next(failures, None) is None:
                return real.submit(sent)
            assert rig.subscription.backlog == 1
            lost: Future[str] = Future()
            lost.set_exception(Transient("Pub/Sub is down"))
            return lost

        def close(self) -> None:
            pass

    rig.stop = Impatient()
    batch = rig.pulled(Message(b"\xff", {"replica": "eu", "kind": "write"}))
    clients = Clients(rig.databases, rig.subscription, rig.topic.publisher(), Shaky(), rig.telemetry)
    rig.driver_of(clients).run(batch)
    (letter,) = rig.letters.pull(10, timeout=0)
    assert letter.message.attributes["reason"] == "undecodable"
    assert rig.subscription.backlog == 0
    assert rig.telemetry.total("firefleet.dead_letters", reason="undecodable") == 1


def test_no_write_is_sent_ten_seconds_after_its_read(rig: Rig) -> None:
    assert write_timeout(100.0, 100.0, rig.stop) <= 5.0
    assert write_timeout(93.0, 100.0, rig.stop) <= 2.0
    with pytest.raises(Expired):
        write_timeout(91.0, 100.0, rig.stop)


def test_a_worker_takes_what_comes_and_stops_when_told(rig: Rig) -> None:
    worker = Worker(TARGET, rig.clients, threads=2, max_messages=100)
    worker.start()
    for number in range(50):
        rig.topic.publish(write(f"docs/{number}"))
    eventually(lambda: rig.subscription.backlog == 0)
    assert worker.progress.stuck() is None
    assert worker.progress.unreachable() is None
    worker.stop()
    worker.join()
    assert all(rig.value(f"docs/{number}") == "new" for number in range(50))


def test_a_pull_that_fails_for_every_puller_is_one_line_and_its_end_another(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    failing = threading.Event()
    failing.set()
    failures: set[str] = set()
    inner = rig.subscription

    class Away(Subscription):
        def pull(self, limit: int, *, timeout: float) -> list[Received]:
            if failing.is_set():
                failures.add(threading.current_thread().name)
                raise Transient("pulling from changes-apac: UNAVAILABLE")
            return inner.pull(limit, timeout=timeout)

        def acknowledge(self, ack_ids: Sequence[str]) -> None:
            inner.acknowledge(ack_ids)

        def extend(self, ack_ids: Sequence[str], seconds: int) -> None:
            inner.extend(ack_ids, seconds)

        def close(self) -> None:
            inner.close()

    worker = Worker(TARGET, replace(rig.clients, subscription=Away()), threads=4, max_messages=100)
    with caplog.at_level(logging.INFO, logger="workers"):
        worker.start()
        eventually(lambda: len(failures) == 4, timeout=60)
        failing.clear()
        eventually(lambda: worker.progress.unreachable() is None, timeout=60)
        worker.stop()
        worker.join()
    told = [(one.levelname, one.getMessage()) for one in caplog.records if "Pub/Sub" in one.getMessage()]
    assert told[0] == (
        "WARNING",
        "Pub/Sub cannot be reached (0 changes held): pulling from changes-apac: UNAVAILABLE",
    )
    assert len(told) == 2
    assert told[1][1].startswith("Pub/Sub reachable again after ")


def test_batches_are_bounded_in_bytes_and_lose_nothing() -> None:
    size = BATCH_BYTES_MAX // 3
    pulled = [Received(Message(b"x" * size), str(n), str(n)) for n in range(7)]
    cut = list(batches(pulled))
    assert [len(batch) for batch in cut] == [3, 3, 1]
    assert [one for batch in cut for one in batch] == pulled
