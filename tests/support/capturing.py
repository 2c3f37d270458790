"""Capture over real HTTP on the memory backend, with reads and confirmations that a test can hold."""

import http.client
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from replication.adapters.memory import Change, MemoryDatabase, MemorySubscription, MemoryTopic
from replication.adapters.memory_telemetry import checked
from replication.documents.wire import Value
from replication.errors import Transient
from replication.fleet.model import Fleet, Mode, Replica, Rule
from replication.metrics import Instrument
from replication.ports import Found, Message, Publisher
from tests.support.polling import PATIENCE_S
from workers.capture.app import LIMITS, Limits, build_app
from workers.runtime.serving import ServerThread

NOW_US = 1_800_000_000_000_000

FLEET = Fleet(
    project="p",
    topic="changes",
    replicas={
        name: Replica(id=name, project="p", database=f"app-{name}", location="test") for name in ("eu", "us")
    },
    rules=(
        Rule(match="chats/{chat}", mode=Mode.LOCAL),
        Rule(match="wallets/{id}", mode=Mode.SINGLE_PRIMARY, primary="eu"),
        Rule(match="{document=**}"),
    ),
)


class Ledger:
    """Telemetry that remembers counts."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, frozenset[tuple[str, str]]]] = Counter()
        self.measured: Counter[str] = Counter()

    def count(self, name: str, amount: int = 1, /, **labels: str) -> None:
        self.counts[name, checked(name, Instrument.COUNTER, labels)] += amount

    def measure(self, name: str, value: float, /, **labels: str) -> None:
        checked(name, Instrument.HISTOGRAM, labels)
        self.measured[name] += value >= 0

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        raise AssertionError("capture has no gauges")

    def of(self, name: str, **labels: str) -> int:
        return self.counts[name, frozenset(labels.items())]


class HeldPublisher(Publisher):
    """A publisher that confirms when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Message, Future[str]]] = []

    def submit(self, message: Message) -> "Future[str]":
        future: Future[str] = Future()
        future.set_running_or_notify_cancel()
        self.waiting.append((message, future))
        return future

    def close(self) -> None:
        """Nothing to close."""


class HeldReads(MemoryDatabase):
    """A database whose reads wait for `gate`, and fail with `error` where there is one."""

    gate: threading.Event | None = None
    error: Exception | None = None

    def read(self, paths: Sequence[str], *, timeout: float) -> list[Found]:
        if self.gate is not None and not self.gate.wait(timeout):
            raise Transient("too slow")
        if self.error is not None:
            raise self.error
        return super().read(paths, timeout=timeout)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def problem(self) -> Any:
        assert self.headers["content-type"] == "application/problem+json"
        return json.loads(self.body)


@dataclass
class Served:
    """A running capture, and everything around it."""

    url: str
    databases: Mapping[str, HeldReads]
    published: MemorySubscription
    ledger: Ledger
    changes: list[Change] = field(default_factory=list)

    def messages(self) -> list[Message]:
        return [received.message for received in self.published.pull(1000, timeout=0)]

    def request(
        self,
        method: str = "POST",
        path: str = "/",
        *,
        body: bytes | Iterator[bytes] = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def deliver(self, change: Change, *, body: bytes | None = None, **headers: str) -> Answer:
        sent = {**change.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self.request(body=change.body if body is None else body, headers=sent)

    def of_write(self, path: str = "orders/1", *, replica: str = "eu", text: str = "new") -> Change:
        self.databases[replica].set(path, {"status": Value(string_value=text)})
        return self.changes[-1]

    def of_delete(self, path: str = "orders/1", *, replica: str = "eu") -> Change:
        self.of_write(path, replica=replica)
        self.databases[replica].delete(path)
        return self.changes[-1]


Serve = Callable[..., Served]


def in_memory(*, publisher: Publisher | None = None, limits: Limits = LIMITS) -> tuple[Served, ServerThread]:
    """Capture on the memory adapter, started."""
    topic = MemoryTopic(now=lambda: NOW_US)
    databases = {
        name: HeldReads(replica.project, replica.database, now=lambda: NOW_US)
        for name, replica in FLEET.replicas.items()
    }
    served = Served("", databases, topic.subscription("all"), Ledger())
    for database in databases.values():
        database.on_change(served.changes.append)
    app = build_app(FLEET, databases, publisher or topic.publisher(), served.ledger, limits=limits)
    server = ServerThread(app, name="capture", grace_s=1)
    server.start()
    served.url = server.url
    return served, server


def connected(served: Served) -> socket.socket:
    address = urlsplit(served.url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=PATIENCE_S)
