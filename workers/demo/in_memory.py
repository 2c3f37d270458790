"""The demo in one process: memory's databases and topic, and the real core and worker on top.

Capture here is the generator that the service drives, on threads and after random delays: events arrive late
and in no order, as Eventarc's do.
"""

import random
import threading
import time
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self

import yaml

from conflict.values import Reference
from replication.adapters.memory import Change, MemoryDatabase, MemorySubscription, MemoryTopic
from replication.changes.capture import ReadTombstone, capture, run_capture
from replication.configuration.parse import parse_fleet
from replication.documents.plain import Documents, fill, to_plain
from replication.documents.references import NEUTRAL
from replication.documents.wire import Value
from replication.errors import ConditionFailed, FirefleetError
from replication.fleet.addressing import addressed
from replication.fleet.model import Fleet, Target
from replication.ports import Found, Message, Received, Subscription
from workers.demo.backend import REPLICAS
from workers.demo.shop import COLLECTIONS, Link
from workers.local.meters import Meters
from workers.replicate.clients import Clients
from workers.replicate.worker import Worker

DELAY_S_MAX = 0.04
"""Of one event, from the commit to capture."""
CAPTURES = 32
EVENTS_MAX = 20_000
PULL_S = 0.1
PULLERS = 2
PAUSE_S = 0.01
"""Between two writes of a replica, so that there is something to look at."""
QUIET_S = 0.5


class EmbeddedFleet:
    """The fleet in this process: a context manager. `replicating` False leaves the workers out."""

    def __init__(self, *, seed: int, replicating: bool = True) -> None:
        self.fleet = _fleet()
        self.meters = Meters()
        self.pause = PAUSE_S
        self.quiet = QUIET_S
        self._changes = MemoryTopic(now=_now)
        self._dead_letters = MemoryTopic(now=_now)
        self._databases = {
            replica.id: MemoryDatabase(replica.project, replica.database, now=_now, location=replica.location)
            for replica in self.fleet.replicas.values()
        }
        self._capture = _Capture(self.fleet, self._databases, self._changes, seed=seed)
        self._subscriptions = {replica: self._subscribe(replica) for replica in self.fleet.replicas}
        self._workers = [self._worker(replica) for replica in self.fleet.replicas] if replicating else []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.callback(self._capture.close)
        self._stack.callback(self._stop_workers)
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def writer(self, replica: str) -> "MemoryWriter":
        """See `Running.writer`."""
        return MemoryWriter(self._databases[replica])

    def read(self, replica: str) -> Documents:
        """See `Running.read`."""
        database = self._databases[replica]
        return {
            document.name.removeprefix(database.prefix): {
                name: _neutral(to_plain(value), database.prefix)
                for name, value in sorted(document.fields.items())
            }
            for document in database.documents()
        }

    def activity(self) -> Hashable | None:
        """See `Running.activity`."""
        waiting = self._capture.waiting + sum(one.backlog for one in self._subscriptions.values())
        if waiting and self._workers:
            return None
        return self._capture.captured

    def check(self) -> None:
        """See `Running.check`."""
        self._capture.check()

    def _subscribe(self, replica: str) -> MemorySubscription:
        mine = partial(addressed, replica=replica)
        return self._changes.subscription(self.fleet.subscription(replica), filter=mine)

    def _worker(self, replica: str) -> Worker:
        clients = Clients(
            self._databases,
            _ShortPulls(self._subscriptions[replica]),
            self._changes.publisher(),
            self._dead_letters.publisher(),
            self.meters,
        )
        target = Target(self.fleet, self.fleet.replica(replica))
        return Worker(target, clients, threads=PULLERS, max_messages=self.fleet.pull.max_messages)

    def _stop_workers(self) -> None:
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.join()


class MemoryWriter:
    """The shop's client of a memory database."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database

    def set(self, path: str, fields: Mapping[str, Any]) -> None:
        """See `Writer.set`."""
        self._database.set(path, self._values(fields))

    def update(self, path: str, fields: Mapping[str, Any]) -> None:
        """See `Writer.update`."""
        try:
            self._database.update(path, self._values(fields))
        except ConditionFailed:
            self.set(path, fields)

    def delete(self, path: str) -> None:
        """See `Writer.delete`."""
        self._database.delete(path)

    def _values(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        values = {}
        for name, value in fields.items():
            values[name] = Value()
            fill(values[name], self._linked(value))
        return values

    def _linked(self, value: Any) -> Any:
        match value:
            case Link():
                return Reference(self._database.prefix + value.path)
            case list():
                return [self._linked(inner) for inner in value]
            case dict():
                return {name: self._linked(inner) for name, inner in value.items()}
            case _:
                return value


class _Capture:
    """Eventarc and capture in one: each event is classified and published on a thread, after a random delay."""

    def __init__(
        self, fleet: Fleet, databases: Mapping[str, MemoryDatabase], topic: MemoryTopic, *, seed: int
    ) -> None:
        self._fleet = fleet
        self._databases = databases
        self._topic = topic
        self._chance = random.Random(seed)  # noqa: S311 - a delay, no secret
        self._pool = ThreadPoolExecutor(CAPTURES, thread_name_prefix="capture")
        self._room = threading.BoundedSemaphore(EVENTS_MAX)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._taken = 0
        self.captured = 0
        self._failure: BaseException | None = None
        for database in databases.values():
            database.on_change(self._take)

    @property
    def waiting(self) -> int:
        """How many events are on their way."""
        with self._lock:
            return self._taken - self.captured

    def check(self) -> None:
        """Raise if an event could not be captured."""
        if self._failure is not None:
            raise FirefleetError(f"capturing a change failed: {self._failure!r}") from self._failure

    def close(self) -> None:
        """Capture nothing any more."""
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def _take(self, change: Change) -> None:
        if self._stop.is_set():
            return
        self._room.acquire()
        with self._lock:
            self._taken += 1
        self._pool.submit(self._publish, change).add_done_callback(self._done)

    def _publish(self, change: Change) -> None:
        self._stop.wait(self._chance.uniform(0, DELAY_S_MAX))
        result = run_capture(capture(change.body, change.headers, self._fleet), self._tombstone)
        if isinstance(result, Message):
            self._topic.publish(result)

    def _tombstone(self, wanted: ReadTombstone) -> Found:
        [found] = self._databases[wanted.replica].read([wanted.path], timeout=1)
        return found

    def _done(self, future: "Future[None]") -> None:
        self._room.release()
        with self._lock:
            self.captured += 1
        if not future.cancelled() and (error := future.exception()) is not None:
            self._failure = error


class _ShortPulls(Subscription):
    """A subscription whose pulls wait but briefly, so that the workers of a demo end at once."""

    def __init__(self, subscription: MemorySubscription) -> None:
        self._subscription = subscription

    def pull(self, limit: int, *, timeout: float) -> list[Received]:
        return self._subscription.pull(limit, timeout=min(timeout, PULL_S))

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        self._subscription.acknowledge(ack_ids)

    def extend(self, ack_ids: Sequence[str], seconds: int) -> None:
        self._subscription.extend(ack_ids, seconds)

    def close(self) -> None:
        self._subscription.close()


def _fleet() -> Fleet:
    config = {
        "project": "firefleet-local",
        "topic": "changes",
        "replicas": {replica: {"database": f"app-{replica}", "location": "memory"} for replica in REPLICAS},
        "collections": [dict(rule) for rule in COLLECTIONS],
    }

    def no_secret(name: str) -> bytes:
        raise FileNotFoundError(name)

    return parse_fleet(yaml.safe_dump(config), file="the demo's configuration", read_secret=no_secret)


def _neutral(value: Any, prefix: str) -> Any:
    match value:
        case Reference() if value.name.startswith(prefix):
            return Reference(NEUTRAL + value.name.removeprefix(prefix))
        case list():
            return [_neutral(inner, prefix) for inner in value]
        case dict():
            return {name: _neutral(inner, prefix) for name, inner in value.items()}
        case _:
            return value


def _now() -> int:
    return time.time_ns() // 1000
