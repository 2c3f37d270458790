"""Seeded histories of analytics workers: crashes around every call, redelivery, lost answers, several workers.

The real intake, buffer and flush on the memory adapters, in one thread and on a clock of the test's. A failing
seed is in the test's name: `pytest -k 'seed17'` replays it.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
import pytest

from replication.adapters.memory import MemoryDatabase
from replication.adapters.memory_pubsub import MemorySubscription, MemoryTopic, Retained
from replication.analytics.anonymise import Anonymiser
from replication.analytics.job import Job
from replication.analytics.reader import read_events
from replication.configuration.analytics import Analytics
from replication.documents.wire import MICROS
from replication.errors import Transient
from replication.ports import Database, Found, Message, Publisher, Received, Subscription, Written
from replication.simulation.dice import Dice
from tests.support.analytics import T0, TYPES, Counts, schema, settings, stored
from tests.support.analytics_worker import HandWorker, Impatient
from workers.analytics.clients import AnalyticsClients
from workers.publish.generator import Generator, Mix

T = TypeVar("T")

STEPS = 60
FAULTS_PER_MILLE = 60
SEEDS = 120


class Crash(BaseException):
    """The process is gone: nothing after this call happens."""


@dataclass
class Faults:
    """What befalls one worker's calls."""

    dice: Dice
    seen: Counter[str]
    on: bool = True
    dead: bool = False

    def call(self, name: str, action: Callable[[], T], *, crashes: bool = True) -> T:
        """Make a call, or crash before or after it, or lose it, or its answer."""
        if self.dead:
            raise Crash
        fault = self.dice.below(4) if self.on and self.dice.chance(FAULTS_PER_MILLE) else -1
        if fault == 0 and crashes:
            self._die(f"crash before {name}")
        if fault == 1:
            self.seen[f"lost {name}"] += 1
            raise Transient(f"{name}: lost")
        answer = action()
        if fault == 2 and crashes:
            self._die(f"crash after {name}")
        if fault == 3:
            self.seen[f"unknown {name}"] += 1
            raise Transient(f"{name}: no answer")
        return answer

    def _die(self, how: str) -> None:
        self.seen[how] += 1
        self.dead = True
        raise Crash


@dataclass
class FaultyDatabase(Database):
    inner: MemoryDatabase
    faults: Faults

    def __post_init__(self) -> None:
        self.prefix = self.inner.prefix

    def read(self, paths: Sequence[str], *, timeout: float) -> list[Found]:
        return self.faults.call("read", lambda: self.inner.read(paths, timeout=timeout))

    def batch_write(self, writes: Sequence[Any], *, timeout: float) -> list[Written]:
        # Not atomic: a crash or a lost answer may leave a part.
        cut = self.faults.dice.below(len(writes)) if self.faults.dice.chance(100) else 0
        if cut and not self.faults.dead:
            first = self.inner.batch_write(writes[:cut], timeout=timeout)
            rest = self.faults.call("write", lambda: self.inner.batch_write(writes[cut:], timeout=timeout))
            return first + rest
        return self.faults.call("write", lambda: self.inner.batch_write(writes, timeout=timeout))

    def commit(self, writes: Sequence[Any], *, timeout: float) -> int:
        raise AssertionError("analytics commits nothing")

    def close(self) -> None:
        """The database outlives its workers."""


@dataclass
class FaultyPublisher(Publisher):
    name: str
    inner: MemoryTopic
    faults: Faults

    def submit(self, message: Message) -> "Future[str]":
        future: Future[str] = Future()
        try:
            future.set_result(self.faults.call(self.name, lambda: self.inner.publish(message)))
        except Transient as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        """The topic outlives its publishers."""


@dataclass
class FaultySubscription(Subscription):
    """Also the judge of acknowledgements: `durable` raises for messages that may not be acknowledged yet."""

    inner: MemorySubscription
    faults: Faults
    durable: Callable[[Sequence[Message]], None]
    delivered: dict[str, Message] = field(default_factory=dict)

    def pull(self, limit: int, *, timeout: float) -> list[Received]:
        pulled = self.faults.call("pull", lambda: self.inner.pull(limit, timeout=0))
        self.delivered.update((one.ack_id, one.message) for one in pulled)
        return pulled

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        self.durable([self.delivered[ack_id] for ack_id in ack_ids])
        self.faults.call("acknowledge", lambda: self.inner.acknowledge(ack_ids))

    def extend(self, ack_ids: Sequence[str], seconds: int) -> None:
        self.faults.call("extend", lambda: self.inner.extend(ack_ids, seconds))

    def close(self) -> None:
        """The subscription outlives its workers."""


class Worker:
    """One worker's parts, stepped by the test."""

    def __init__(self, world: "World", number: int) -> None:
        self.faults = Faults(Dice(world.seed * 1_000 + number), world.seen)
        self.telemetry = Counts()
        subscription = FaultySubscription(world.subscription, self.faults, world.check_durable)
        clients = AnalyticsClients(
            FaultyDatabase(world.database, self.faults),
            subscription,
            FaultyPublisher("bury", world.dead_letters, self.faults),
            FaultyPublisher("warehouse", world.warehouse, self.faults),
            self.telemetry,
        )
        warehouse = world.settings.warehouse
        assert warehouse is not None
        job = Job(
            replica="eu",
            settings=world.settings,
            schema=schema(world.settings),
            anonymiser=Anonymiser(warehouse, b"k" * 16),
            token=f"worker{number}",
        )
        self.hand = HandWorker(job, clients, Impatient(world.wait), now=world.seconds)
        self.job, self.clients, self.subscription = job, clients, subscription

    def step(self, limit: int) -> None:
        """Pull, hold, and flush if it is due."""
        places = self.hand.buffer.reserve(limit, wait_s=0)
        try:
            if places:
                self.hand.take(self.hand.loop.pull(self.subscription, places, timeout=0))
        finally:
            self.hand.buffer.unreserve(places)
        self.hand.deliveries.extend()
        if self.hand.buffer.wait_until_due(wait_s=0):
            self.hand.flush()


class World:
    """A topic of events, two workers on its subscription, and what they write."""

    def __init__(self, seed: int, layout: str) -> None:
        self.seed = seed
        self.dice = Dice(seed)
        self.seen: Counter[str] = Counter()
        self.now = T0
        self.settings = settings_of(layout)
        clock = lambda: self.now  # noqa: E731
        self.topic = MemoryTopic(now=clock, order=self._disorder)
        self.subscription = self.topic.subscription("analytics-eu", ack_deadline_s=60)
        self.dead_letters, self.warehouse = MemoryTopic(now=clock), MemoryTopic(now=clock)
        self.buried = self.dead_letters.subscription("all")
        self.copies = self.warehouse.subscription("all")
        self.database = MemoryDatabase("p", "eu", now=clock)
        self.generator = Generator(
            self.settings, region="eu", seed=seed, now=clock, mix=Mix(duplicates=0.2, invalid=0.1, users=20)
        )
        self.manifest: dict[str, dict[str, Any]] = {}
        self.group_of: dict[str, str] = {}
        self.workers = [Worker(self, number) for number in range(2)]
        self.all_workers = list(self.workers)

    def _disorder(self, ready: list[Retained]) -> list[Retained]:
        mixed = self.dice.shuffle(list(ready))
        return mixed + mixed[:1] if self.dice.chance(200) else mixed

    def seconds(self) -> float:
        return self.now / MICROS

    def wait(self, seconds: float) -> bool:
        self.now += int(seconds * MICROS)
        return False

    def publish(self, count: int) -> None:
        for sent, line in self.generator.messages(count):
            self.manifest[line["message"]] = dict(line)
            if line["valid"]:
                self.group_of[line["id"]] = line["group"]
            self.topic.publish(sent)

    def check_durable(self, sent: Sequence[Message]) -> None:
        """What is acknowledged is stored, or its dead letter is published."""
        lines = [self.manifest[one.attributes["event"]] for one in sent]
        early = {line["group"] for line in lines if line["valid"]} - self.stored_groups().keys()
        assert not early, f"{early} are acknowledged before they are written"
        early = {line["message"] for line in lines if not line["valid"]}
        if early:
            early -= self.buried_messages()
        assert not early, f"{early} are acknowledged before they are buried"

    def stored_groups(self) -> Counter[str]:
        """How often each group of duplicates would be read."""
        events = read_events(stored(self.database))
        return Counter(self.group_of[event.body["id"]] for event in events)

    def buried_messages(self) -> set[str]:
        return {one.message.attributes["event"] for one in every(self.buried)}

    def run(self) -> None:
        for _ in range(STEPS):
            if self.dice.chance(400):
                self.publish(1 + self.dice.below(8))
            # Mostly seconds; sometimes so long that leases end while events are held.
            self.now += MICROS * (self.dice.below(90) if self.dice.chance(100) else self.dice.below(5))
            self._step(self.dice.below(2))
        for worker in self.workers:
            worker.faults.on = False
        for _ in range(20):
            self.now += 61 * MICROS
            for number in range(2):
                self._step(number)
            if not self.subscription.backlog:
                return
        raise AssertionError(f"{self.subscription.backlog} messages are left")

    def _step(self, number: int) -> None:
        worker = self.workers[number]
        try:
            worker.step(1 + self.dice.below(10))
        except Crash:
            self.workers[number] = Worker(self, len(self.all_workers))
            self.workers[number].faults.on = worker.faults.on
            self.all_workers.append(self.workers[number])


def settings_of(layout: str) -> Analytics:
    return settings(
        layout=layout,
        types=TYPES,
        recent=16,
        warehouse={"topic": "warehouse", "key_env": "K", "users": ["target"], "drop": ["page"]},
    )


def every(subscription: MemorySubscription) -> list[Received]:
    """All that was ever published, taken without acknowledging it."""
    pulled = subscription.pull(100_000, timeout=0)
    subscription.extend([one.ack_id for one in pulled], 0)
    return pulled


def check(world: World) -> None:
    lines = list(world.manifest.values())
    groups = {line["group"] for line in lines if line["valid"]}
    assert world.stored_groups() == Counter(groups)
    if world.settings.layout == "per-event":
        assert len(list(stored(world.database))) == len(groups), "stored once, not only read once"
    assert world.buried_messages() == {line["message"] for line in lines if not line["valid"]}
    keys = [orjson.loads(one.message.data)["key"] for one in every(world.copies)]
    assert len(set(keys)) == len(groups)
    for worker in world.workers:
        assert worker.telemetry.sums["received"] == worker.telemetry.settled
        level = worker.hand.buffer.level
        assert (level.depth, level.bytes, len(worker.hand.deliveries)) == (0, 0, 0)


SEEN: Counter[str] = Counter()


@pytest.mark.parametrize("layout", ["packed", "per-event"])
@pytest.mark.parametrize("seed", range(SEEDS // 5), ids=lambda seed: f"seed{seed}")
def test_every_event_is_read_exactly_once_whatever_happens(seed: int, layout: str) -> None:
    for number in range(5):
        world = World(seed * 5 + number, layout)
        world.run()
        check(world)
        SEEN.update(world.seen)
        for worker in world.all_workers:
            SEEN.update({f"outcome {name}": count for name, count in worker.telemetry.sums.items() if count})


def test_the_histories_reach_the_paths_that_matter() -> None:
    """Runs after them: a simulation in which nothing goes wrong proves nothing."""
    for layout in ("packed", "per-event"):
        for seed in range(1_000, 1_030):
            world = World(seed, layout)
            world.run()
            SEEN.update(world.seen)
            for worker in world.all_workers:
                SEEN.update(
                    {f"outcome {name}": count for name, count in worker.telemetry.sums.items() if count}
                )
    wanted = [
        f"{fault} {call}" for fault in ("crash before", "crash after", "lost", "unknown") for call in CALLS
    ]
    wanted += [
        f"outcome {name}" for name in ("written", "duplicate", "dead_lettered", "retries", "writes_saved")
    ]
    assert not [path for path in wanted if not SEEN[path]], SEEN


CALLS = ("write", "acknowledge", "bury", "warehouse", "pull")


def test_without_faults_the_outcomes_are_the_manifests() -> None:
    """Two workers, redelivery none: what is written, repeated and wrong is exactly what was generated."""
    world = World(7, "per-event")
    for worker in world.workers:
        worker.faults.on = False
    world.publish(400)
    for step in range(120):
        world.now += MICROS
        world.workers[step % 2].step(10)
    lines = list(world.manifest.values())
    sums = world.workers[0].telemetry.sums + world.workers[1].telemetry.sums
    distinct = len({line["group"] for line in lines if line["valid"]})
    wrong = sum(not line["valid"] for line in lines)
    assert (sums["received"], sums["dead_lettered"], sums["written"]) == (400, wrong, distinct)
    assert sums["duplicate"] == 400 - wrong - distinct
    assert sums["writes"] - sums["written"] <= sums["duplicate"]


@pytest.mark.parametrize("layout", ["packed", "per-event"])
def test_a_lost_answer_is_not_counted_as_a_duplicate(layout: str) -> None:
    """The write landed: its second try finds the document there, and knows it for its own."""
    world = World(3, layout)
    worker = world.workers[0]
    worker.faults.on = False
    world.publish(30)
    while world.subscription.backlog > worker.hand.buffer.level.depth:
        worker.step(10)
    landed = {"lost": False}
    write = world.database.batch_write

    class LostOnce(FaultyDatabase):
        def batch_write(self, writes: Sequence[Any], *, timeout: float) -> list[Written]:
            outcomes = write(writes, timeout=timeout)
            if not landed["lost"]:
                landed["lost"] = True
                raise Transient("no answer")
            return outcomes

    object.__setattr__(worker.clients, "database", LostOnce(world.database, worker.faults))
    worker.hand.flush()
    lines = [line for line in world.manifest.values() if line["valid"]]
    distinct = len({line["group"] for line in lines})
    sums = worker.telemetry.sums
    assert landed["lost"]
    assert (sums["written"], sums["duplicate"]) == (distinct, len(lines) - distinct)
