"""Capture's limits: on one body, on one event, and on what is in flight."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from replication.adapters.memory import MemoryDatabase
from replication.documents.wire import DocumentEventData
from replication.errors import ConfigError, Transient
from replication.ports import Database
from tests.support.capturing import FLEET, NOW_US, HeldPublisher, Ledger, Serve, Served, connected
from tests.support.polling import PATIENCE_S, eventually
from workers.capture.app import Limits, build_app
from workers.capture.driver import LARGE_EVENT_BYTES


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
        assert served.deliver(served.of_write(text="x" * (LARGE_EVENT_BYTES + 1))).status == 204
        assert served.ledger.of("firefleet.capture.large_events", source="eu") == 1
        assert "orders/1" in caplog.text
        served.deliver(served.of_write(text="x" * (LARGE_EVENT_BYTES - 1_000), path="orders/2"))
        assert served.ledger.of("firefleet.capture.large_events", source="eu") == 1

    def test_a_large_event_that_is_not_published_is_warned_of_too(self, served: Served) -> None:
        """Its replica's other events may be as large; only one in which nothing happened says nothing."""
        change = served.of_write("chats/1", text="x" * LARGE_EVENT_BYTES)
        assert served.deliver(change).status == 204
        assert served.ledger.of("firefleet.capture.large_events", source="eu") == 1
        document = DocumentEventData.FromString(change.body).value
        unchanged = DocumentEventData(value=document, old_value=document).SerializeToString()
        assert served.deliver(change, body=unchanged).status == 204
        assert served.ledger.of("firefleet.capture.unchanged") == 1
        assert served.ledger.of("firefleet.capture.large_events", source="eu") == 1

    def test_a_large_delete_is_warned_of_although_its_tombstone_cannot_be_read(
        self, served: Served, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is sent again, and may never get further."""
        served.of_write(text="x" * (LARGE_EVENT_BYTES + 1))
        served.databases["eu"].delete("orders/1")
        change = served.changes[-1]
        served.databases["eu"].error = Transient("eu: deadline exceeded")
        assert served.deliver(change).status == 503
        assert served.ledger.of("firefleet.capture.large_events", source="eu") == 1
        assert "near Eventarc's limit" in caplog.text


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
