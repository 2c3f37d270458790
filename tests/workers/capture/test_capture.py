"""Capture over real HTTP: what it takes from Eventarc, what it answers, and what it publishes."""

import base64
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest
from google.events.cloud import firestore_v1 as official
from google.protobuf import json_format
from google.pubsub_v1.types import pubsub as pubsub_types
from hypothesis import given, settings
from hypothesis import strategies as st

from conflict.version import deleted, written
from replication.adapters.memory import Change, MemoryDatabase, MemorySubscription, MemoryTopic
from replication.configuration.parse import Fleet, Mode, Replica, Rule
from replication.documents.metadata import Meta, digest_of
from replication.documents.stored import document_write, tombstone_write
from replication.documents.wire import Document, DocumentEventData, Value, Write
from replication.errors import ConfigError, Transient
from replication.ports import Database, Found, Message, Publisher
from tests.support.polling import PATIENCE_S, eventually
from workers.capture.app import Limits, build_app
from workers.capture.app import app as capture
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
        self.counts[name, frozenset(labels.items())] += amount

    def measure(self, name: str, value: float, /, **labels: str) -> None:
        self.measured[name] += value >= 0

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        raise AssertionError("capture has no gauges")

    def of(self, name: str, **labels: str) -> int:
        return self.counts[name, frozenset(labels.items())]


class HeldPublisher(Publisher):
    """A publisher whose futures the test settles."""

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


def in_memory(
    *, publisher: Publisher | None = None, limits: Limits = capture.LIMITS
) -> tuple[Served, ServerThread]:
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


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[ServerThread] = []

    def start(*, publisher: Publisher | None = None, limits: Limits = capture.LIMITS) -> Served:
        served, server = in_memory(publisher=publisher, limits=limits)
        servers.append(server)
        return served

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def served(serve: Serve) -> Served:
    return serve()


class TestWhatIsPublished:
    def test_a_write_is_published_byte_for_byte_with_its_attributes(self, served: Served) -> None:
        change = served.of_write()
        answer = served.deliver(change)
        assert (answer.status, answer.body) == (204, b"")
        [message] = served.messages()
        assert message.data == change.body
        assert message.attributes["replica"] == "eu"
        assert message.attributes["kind"] == "write"
        assert message.attributes["ce-id"] == change.headers["ce-id"]

    def test_the_emulators_base64_is_published_as_the_raw_protobuf(self, served: Served) -> None:
        change = served.of_write()
        assert served.deliver(change, body=base64.b64encode(change.body)).status == 204
        assert [message.data for message in served.messages()] == [change.body]

    def test_protobuf_json_is_published_as_json(self, served: Served) -> None:
        change = served.of_write()
        body = json_format.MessageToJson(DocumentEventData.FromString(change.body)).encode()
        answer = served.deliver(change, body=body, content_type="application/json; charset=utf-8")
        assert answer.status == 204
        [message] = served.messages()
        assert message.attributes["ce-datacontenttype"] == "application/json"
        assert json.loads(message.data) == json.loads(body)

    @pytest.mark.parametrize("encode", [bytes, base64.b64encode], ids=["raw", "base64"])
    @pytest.mark.parametrize("kind", ["created", "updated", "deleted"])
    def test_what_eventarcs_official_types_build_is_understood(
        self, served: Served, kind: str, encode: Callable[[bytes], bytes]
    ) -> None:
        """All three shapes: created has no old value, deleted no value, updated a mask."""
        full = "projects/p/databases/app-us/documents/orders/7"
        document = official.Document(
            name=full, fields={"total": {"integer_value": 7}}, update_time="2026-01-02T00:00:00.25Z"
        )
        before = official.Document(name=full, update_time="2026-01-01T00:00:00.5Z")
        parts: dict[str, dict[str, Any]] = {
            "created": {"value": document},
            "updated": {"value": document, "old_value": before, "update_mask": {"field_paths": ["total"]}},
            "deleted": {"old_value": document},
        }
        body = official.DocumentEventData.serialize(official.DocumentEventData(**parts[kind]))
        headers = {
            "content-type": "application/protobuf",
            "ce-id": "e-1",
            "ce-type": f"google.cloud.firestore.document.v1.{kind}",
            "ce-source": "//firestore.googleapis.com/projects/p/databases/app-us",
            "ce-time": "2026-01-03T00:00:00.123456Z",
            "ce-specversion": "1.0",
        }
        assert served.request(body=encode(body), headers=headers).status == 204
        [message] = served.messages()
        assert message.data == body
        assert message.attributes["replica"] == "us"
        assert message.attributes["kind"] == ("delete" if kind == "deleted" else "write")

    def test_events_are_taken_on_any_path(self, served: Served) -> None:
        for path in ("/", "/functions/projects/p/triggers/t", "/live", "/a%20b?c=d"):
            change = served.of_write()
            assert served.request(path=path, body=change.body, headers=change.headers).status == 204
        assert len(served.messages()) == 4

    def test_a_delete_is_published_to_its_own_replica_too(self, served: Served) -> None:
        assert served.deliver(served.of_delete()).status == 204
        [message] = served.messages()
        assert (message.attributes["kind"], message.attributes["heal"]) == ("delete", "1")

    def test_a_write_outside_the_primary_is_a_violation_for_that_replica_alone(self, served: Served) -> None:
        assert served.deliver(served.of_write("wallets/1", replica="us")).status == 204
        [message] = served.messages()
        assert (message.attributes["kind"], message.attributes["to"]) == ("violation", "us")

    def test_the_trace_context_is_passed_on(self, served: Served) -> None:
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        served.deliver(served.of_write(), traceparent=trace)
        [message] = served.messages()
        assert message.attributes["traceparent"] == trace

    def test_a_header_in_utf8_does_not_garble_the_attribute(self, served: Served) -> None:
        """The emulator sends the path so; http.client takes latin-1, so the bytes are given as that."""
        change = served.of_write("orders/über")
        raw = {**change.headers, "ce-document": "orders/über".encode().decode("latin-1")}
        raw["ce-subject"] = f"documents/{raw['ce-document']}"
        assert served.request(body=change.body, headers=raw).status == 204
        [message] = served.messages()
        assert message.attributes["ce-document"] == "orders/über"


class TestWhatIsNotPublished:
    def test_the_echo_of_this_systems_own_write_is_dropped_and_counted(self, served: Served) -> None:
        body = Document(fields={"status": Value(string_value="new")}).SerializeToString(deterministic=True)
        version = written("us", NOW_US, digest_of(body), None)
        target = FLEET.replica("eu")
        write = document_write(
            "orders/1", body, Meta(version, base=0, read=NOW_US), prefix=target.prefix, codec=FLEET.codec
        )
        served.databases["eu"].commit([write], timeout=1)
        assert served.deliver(served.changes[-1]).status == 204
        assert served.messages() == []
        assert served.ledger.of("firefleet.changes", outcome="echo", source="eu") == 1

    def test_the_echo_of_this_systems_own_delete_is_known_by_the_tombstone(self, served: Served) -> None:
        database = served.databases["eu"]
        update_time = database.set("orders/1", {"status": Value(string_value="new")})
        remove = Write(delete=database.prefix + "orders/1")
        bury = tombstone_write(
            "orders/1",
            Meta(deleted("us", update_time, NOW_US, None), base=update_time, read=NOW_US),
            (update_time,),
            expire_at=NOW_US + 10**12,
            prefix=database.prefix,
            codec=FLEET.codec,
        )
        served.changes.clear()
        database.commit([remove, bury], timeout=1)
        assert [served.deliver(change).status for change in served.changes] == [204, 204]
        assert served.messages() == []
        assert served.ledger.of("firefleet.changes", outcome="echo", source="eu") == 2

    def test_a_local_collection_never_leaves_and_is_no_echo(self, served: Served) -> None:
        """Its deletes need no tombstone either: the database is not asked."""
        served.databases["eu"].error = Transient("down")
        assert served.deliver(served.of_write("chats/1")).status == 204
        assert served.deliver(served.of_delete("chats/1")).status == 204
        assert served.messages() == []
        assert served.ledger.of("firefleet.changes", outcome="echo", source="eu") == 0

    def test_a_delete_by_ttl_is_dropped_and_is_no_echo(self, served: Served) -> None:
        assert served.deliver(served.of_delete(), ce_authtype="system").status == 204
        assert served.messages() == []
        assert served.ledger.of("firefleet.changes", outcome="echo", source="eu") == 0

    @pytest.mark.parametrize("sides", [("value", "old_value"), ()], ids=["same time", "neither side"])
    def test_a_write_that_changed_nothing_is_dropped_and_counted(
        self, served: Served, sides: Sequence[str]
    ) -> None:
        """The emulator reports the guards of creates so."""
        change = served.of_write()
        document = DocumentEventData.FromString(change.body).value
        body = DocumentEventData(**dict.fromkeys(sides, document)).SerializeToString()
        assert served.deliver(change, body=body).status == 204
        assert served.messages() == []
        assert served.ledger.of("firefleet.capture.unchanged") == 1
        assert served.ledger.of("firefleet.changes", outcome="echo", source="eu") == 0


def without(headers: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in names}


class TestWhatIsRefused:
    @pytest.mark.parametrize("missing", ["ce-id", "ce-type", "ce-time"])
    def test_without_its_attributes_an_event_is_400(self, served: Served, missing: str) -> None:
        change = served.of_write()
        answer = served.request(body=change.body, headers=without(change.headers, missing))
        assert answer.status == 400
        assert missing in answer.problem["detail"]
        assert answer.problem["reason"] == "missing_attribute"
        assert answer.problem["remedy"]

    @pytest.mark.parametrize(
        "body",
        [
            b"\x0a",
            b"\x0a\xff\xff\xff",
            b"garbage !!",
            b"Z2FyYmFnZQ==",
            b"CgA",
            base64.b64encode(b"\x0a\x02")[:-1],
            b"\x0a\x00",
        ],
    )
    def test_a_malformed_body_is_400(self, served: Served, body: bytes) -> None:
        answer = served.deliver(served.of_write(), body=body)
        assert answer.status == 400
        assert answer.problem["detail"]
        assert answer.problem["remedy"]
        assert served.messages() == []

    def test_every_truncation_of_an_event_is_400_or_another_whole_event(self, served: Served) -> None:
        """A cut may fall between two fields, and what is left parse; it must never be a 5xx."""
        change = served.of_write()
        cuts = range(0, len(change.body), 3)
        assert {served.deliver(change, body=change.body[:cut]).status for cut in cuts} <= {204, 400}

    @pytest.mark.parametrize("body", [b"{", b"[1]", b'{"value": 3}', b'{"other": {}}', b"\xff\xfe", b"null"])
    def test_malformed_json_is_400(self, served: Served, body: bytes) -> None:
        answer = served.deliver(served.of_write(), body=body, content_type="application/json")
        assert answer.status == 400
        assert served.messages() == []

    def test_a_database_that_is_no_replica_is_400_and_named(self, served: Served) -> None:
        change = served.of_write()
        answer = served.deliver(change, body=change.body.replace(b"app-eu", b"app-xx"))
        assert (answer.status, answer.problem["reason"]) == (400, "unknown_replica")
        assert "app-xx" in answer.problem["detail"]

    def test_another_services_event_is_400(self, served: Served) -> None:
        answer = served.deliver(served.of_write(), ce_type="google.cloud.storage.object.v1.finalized")
        assert (answer.status, answer.problem["reason"]) == (400, "unknown_kind")

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
    def test_another_method_is_405(self, served: Served, method: str) -> None:
        answer = served.request(method, "/events")
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
        assert answer.problem["remedy"]

    def test_refusals_are_counted_by_status(self, served: Served) -> None:
        served.deliver(served.of_write(), body=b"\x0a")
        served.deliver(served.of_write())
        assert served.ledger.of("firefleet.capture.requests", status="400") == 1
        assert served.ledger.of("firefleet.capture.requests", status="204") == 1
        assert served.ledger.measured["firefleet.capture.duration"] == 2


class TestSize:
    def test_a_body_at_the_bound_is_taken_and_one_byte_more_is_413(self, serve: Serve) -> None:
        probe = serve()
        size = len(probe.of_write().body)
        exact = serve(limits=Limits(body_bytes_max=size))
        change = exact.of_write()
        assert len(change.body) == size
        assert exact.deliver(change).status == 204
        answer = exact.deliver(exact.of_write(text="new!"))
        assert answer.status == 413
        assert answer.problem["remedy"]
        assert len(exact.messages()) == 1

    def test_a_declared_length_over_the_bound_is_refused_before_the_body_comes(self, served: Served) -> None:
        with connected(served) as client:
            client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 413 ")

    def test_an_endless_chunked_body_is_refused_and_its_connection_closed(self, serve: Serve) -> None:
        """It declares no length: counted as it comes, and never read to its end."""
        served = serve(limits=Limits(body_bytes_max=100_000))
        block = b"10000\r\n" + b"\x0a" * 0x10000 + b"\r\n"
        sent = 0
        with connected(served) as client:
            client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                while sent < 1_000:
                    client.sendall(block)
                    sent += 1
        assert sent < 1_000
        eventually(lambda: served.ledger.of("firefleet.capture.requests", status="413") == 1)

    def test_a_client_that_sends_too_much_still_reads_its_413(self, serve: Serve) -> None:
        """The connection lingers: a reset must not overtake the answer."""
        served = serve(limits=Limits(body_bytes_max=100_000))
        change = served.of_write()
        body = iter([b"\x0a" * 50_000] * 20)
        assert served.request(body=body, headers=change.headers).status == 413
        assert served.deliver(change, body=b"\x0a" * 3_000_000).status == 413

    def test_a_large_event_is_published_and_warned_of(
        self, served: Served, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert served.deliver(served.of_write(text="x" * (capture.LARGE_EVENT_BYTES + 1))).status == 204
        assert served.ledger.of("firefleet.capture.large_events", source="eu") == 1
        assert "orders/1" in caplog.text
        served.deliver(served.of_write(text="x" * (capture.LARGE_EVENT_BYTES - 1_000), path="orders/2"))
        assert served.ledger.of("firefleet.capture.large_events", source="eu") == 1


def connected(served: Served) -> socket.socket:
    address = urlsplit(served.url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=PATIENCE_S)


class TestAcknowledgement:
    def test_204_comes_only_after_pubsub_confirmed(self, serve: Serve) -> None:
        publisher = HeldPublisher()
        served = serve(publisher=publisher)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(served.deliver, served.of_write())
            eventually(lambda: publisher.waiting)
            with pytest.raises(futures.TimeoutError):
                answer.result(0.2)
            publisher.waiting[0][1].set_result("id")
            assert answer.result(PATIENCE_S).status == 204

    def test_a_failed_publish_is_503_and_the_instance_is_not_ready_until_one_succeeds(
        self, serve: Serve
    ) -> None:
        publisher = HeldPublisher()
        served = serve(publisher=publisher)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(served.deliver, served.of_write())
            eventually(lambda: publisher.waiting)
            publisher.waiting.pop()[1].set_exception(Transient("Pub/Sub is away"))
            assert answer.result(PATIENCE_S).status == 503
            assert "Pub/Sub is away" in answer.result().problem["detail"]
            assert answer.result().headers["retry-after"]
            ready = served.request("GET", "/ready")
            assert (ready.status, b"Pub/Sub is away" in ready.body) == (503, True)
            assert served.request("GET", "/live").status == 200
            answer = pool.submit(served.deliver, served.of_write())
            eventually(lambda: publisher.waiting)
            publisher.waiting.pop()[1].set_result("id")
            assert answer.result(PATIENCE_S).status == 204
            assert served.request("GET", "/ready").status == 200

    def test_a_message_the_publisher_gave_up_is_503(self, serve: Serve) -> None:
        class Closed(HeldPublisher):
            def submit(self, message: Message) -> "Future[str]":
                future: Future[str] = Future()
                future.cancel()
                return future

        served = serve(publisher=Closed())
        assert served.deliver(served.of_write()).status == 503

    def test_a_tombstone_that_cannot_be_read_is_503_and_nothing_is_published(self, served: Served) -> None:
        """Published without it, an echo would go round for ever."""
        change = served.of_delete()
        served.databases["eu"].error = Transient("eu: deadline exceeded")
        answer = served.deliver(change)
        assert answer.status == 503
        assert "eu: deadline exceeded" in answer.problem["detail"]
        assert served.messages() == []
        served.databases["eu"].error = None
        assert served.deliver(change).status == 204
        assert len(served.messages()) == 1

    def test_a_slow_tombstone_holds_up_nothing_else(self, served: Served) -> None:
        gate = served.databases["eu"].gate = threading.Event()
        with ThreadPoolExecutor(12) as pool:
            change = served.of_delete()
            slow = [pool.submit(served.deliver, change) for _ in range(12)]
            try:
                assert served.deliver(served.of_write()).status == 204
                assert served.deliver(served.of_delete(replica="us")).status == 204
                assert served.request("GET", "/live").status == 200
                assert not any(answer.done() for answer in slow)
            finally:
                gate.set()
            assert {answer.result(PATIENCE_S).status for answer in slow} == {204}

    def test_a_client_that_goes_away_half_way_is_no_error(self, served: Served) -> None:
        with connected(served) as client:
            client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n123")
        eventually(lambda: served.ledger.of("firefleet.capture.requests", status="499") == 1)
        assert served.deliver(served.of_write()).status == 204


class TestBounds:
    def test_above_the_limit_of_requests_it_is_503_with_retry_after(self, serve: Serve) -> None:
        publisher = HeldPublisher()
        served = serve(publisher=publisher, limits=Limits(in_flight_max=2))
        change = served.of_write()
        with ThreadPoolExecutor(2) as pool:
            held = [pool.submit(served.deliver, change) for _ in range(2)]
            eventually(lambda: len(publisher.waiting) == 2)
            refused = served.deliver(change)
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            assert served.request("GET", "/live").status == 200
            for _, future in publisher.waiting:
                future.set_result("id")
            assert [answer.result(PATIENCE_S).status for answer in held] == [204, 204]
        assert len(publisher.waiting) == 2

    def test_above_the_limit_of_bytes_it_is_503(self, serve: Serve) -> None:
        publisher = HeldPublisher()
        served = serve(publisher=publisher, limits=Limits(in_flight_bytes_max=100))
        change = served.of_write()
        assert 50 < len(change.body) < 100
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(served.deliver, change)
            eventually(lambda: publisher.waiting)
            assert served.deliver(change).status == 503
            publisher.waiting[0][1].set_result("id")
            assert held.result(PATIENCE_S).status == 204

    def test_a_replica_without_database_is_a_config_error(self) -> None:
        databases: dict[str, Database] = {"eu": MemoryDatabase("p", "app-eu", now=lambda: NOW_US)}
        with pytest.raises(ConfigError, match="us"):
            build_app(FLEET, databases, HeldPublisher(), Ledger())


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Served]:
    served, server = in_memory()
    served.of_delete()
    served.of_write("a/b/c/d", replica="us")
    yield served
    server.stop()


class TestFuzz:
    """Whatever comes over HTTP, the answer is one of the contract's; a 500 would be a bug."""

    ALLOWED = frozenset({204, 400, 413, 503})

    @settings(max_examples=300)
    @given(data=st.data())
    def test_a_mutilated_event_never_gives_500(self, fuzzed: Served, data: st.DataObject) -> None:
        change = fuzzed.changes[data.draw(st.integers(0, len(fuzzed.changes) - 1))]
        body = bytearray(data.draw(st.sampled_from([change.body, base64.b64encode(change.body)])))
        for _ in range(data.draw(st.integers(0, 4))):
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(body)))
        headers = dict(change.headers)
        for name in data.draw(st.lists(st.sampled_from(sorted(headers)), max_size=3)):
            headers[name] = data.draw(HEADER_VALUES)
        assert fuzzed.request(body=bytes(body[cut:] or body), headers=headers).status in self.ALLOWED

    @settings(max_examples=200)
    @given(
        body=st.binary(max_size=200) | st.text(max_size=100).map(str.encode) | st.just(b"[" * 10_000),
        names=st.lists(
            st.sampled_from(["ce-id", "ce-type", "ce-time", "content-type", "ce-x", "traceparent"]), unique=True
        ),
        data=st.data(),
    )
    def test_anything_at_all_never_gives_500(
        self, fuzzed: Served, body: bytes, names: list[str], data: st.DataObject
    ) -> None:
        usual = {**fuzzed.changes[0].headers, "content-type": "application/json"}
        headers = usual | {name: data.draw(HEADER_VALUES) for name in names}
        assert fuzzed.request(body=body, headers=headers).status in self.ALLOWED


# What a client can put on the wire: no control characters, bytes above 127 as latin-1.
HEADER_VALUES = st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40
)


class SlowPubsub:
    """Pub/Sub's Publish over real gRPC, answering when told to."""

    def __init__(self) -> None:
        self.published: list[Any] = []
        self.answer = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(4))
        handler = grpc.unary_unary_rpc_method_handler(
            self._publish,
            request_deserializer=pubsub_types.PublishRequest.deserialize,
            response_serializer=pubsub_types.PublishResponse.serialize,
        )
        service = grpc.method_handlers_generic_handler("google.pubsub.v1.Publisher", {"Publish": handler})
        self._server.add_generic_rpc_handlers((service,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def _publish(self, request: Any, _context: Any) -> Any:
        self.published.extend(request.messages)
        self.answer.wait()
        return pubsub_types.PublishResponse(
            message_ids=[str(index) for index, _ in enumerate(request.messages)]
        )

    def stop(self) -> None:
        self.answer.set()
        self._server.stop(0).wait(10)


def announced_port(process: "subprocess.Popen[str]") -> int:
    """From the process's log; `pytest-timeout` ends a wait in vain, and an ended process ends the lines."""
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"capturing on port (\d+)", line):
            return int(found[1])
    raise AssertionError(f"capture ended with {process.wait()} before it listened")


class TestProcess:
    """`firefleet capture` itself, over real HTTP and gRPC."""

    @pytest.fixture
    def pubsub(self) -> Iterator[SlowPubsub]:
        fake = SlowPubsub()
        yield fake
        fake.stop()

    @pytest.fixture
    def process(self, pubsub: SlowPubsub, tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
        config = tmp_path / "fleet.yaml"
        config.write_text(
            "project: p\ntopic: changes\nreplicas:\n"
            "  eu: {database: app-eu, location: europe-west1, emulator_host: '127.0.0.1:1'}\n"
            "  us: {database: app-us, location: us-central1, emulator_host: '127.0.0.1:1'}\n"
            "collections:\n- match: '{document=**}'\n  mode: multi-primary\n"
        )
        command = ["--config", str(config), "capture", "--host", "127.0.0.1", "--port", "0"]
        process = subprocess.Popen(
            [sys.executable, "-c", "from workers.cli import main; main()", *command],
            env={**os.environ, "PUBSUB_EMULATOR_HOST": f"127.0.0.1:{pubsub.port}"},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process, f"http://127.0.0.1:{announced_port(process)}"
        finally:
            process.kill()
            process.communicate()

    def one_event(self, url: str) -> Served:
        source = HeldReads("p", "app-eu", now=lambda: NOW_US)
        topic = MemoryTopic(now=lambda: NOW_US)
        served = Served(url, {"eu": source}, topic.subscription("none"), Ledger())
        source.on_change(served.changes.append)
        served.of_write()
        return served

    def test_sigterm_lets_what_is_in_flight_end_and_exits_with_0(
        self, process: tuple["subprocess.Popen[str]", str], pubsub: SlowPubsub
    ) -> None:
        running, url = process
        served = self.one_event(url)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(served.deliver, served.changes[0])
            eventually(lambda: pubsub.published)
            running.send_signal(signal.SIGTERM)
            eventually(lambda: not up(served))
            assert not answer.done()
            assert running.poll() is None
            pubsub.answer.set()
            assert answer.result(PATIENCE_S).status == 204
        assert running.wait(PATIENCE_S) == 0
        assert [message.data for message in pubsub.published] == [served.changes[0].body]

    def test_sigterm_ends_it_even_if_pubsub_never_answers(
        self, process: tuple["subprocess.Popen[str]", str], pubsub: SlowPubsub
    ) -> None:
        """The event is not acknowledged: Eventarc sends it again. The soak measures how long it takes."""
        running, url = process
        served = self.one_event(url)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(served.deliver, served.changes[0])
            eventually(lambda: pubsub.published)
            running.send_signal(signal.SIGTERM)
            assert running.wait(PATIENCE_S) == 0
            assert answer.result(PATIENCE_S).status == 503


def up(served: Served) -> bool:
    try:
        return served.request("GET", "/live").status == 200
    except OSError:
        return False
