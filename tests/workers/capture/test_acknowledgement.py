"""Capture answers 204 only after Pub/Sub has the message, and a slow replica delays no other."""

import threading
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from replication.errors import Transient
from replication.ports import Message
from tests.support.capturing import HeldPublisher, Serve, Served, connected
from tests.support.polling import PATIENCE_S, eventually


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
        """Published without it, an echo would go round forever."""
        change = served.of_delete()
        served.databases["eu"].error = Transient("eu: deadline exceeded")
        answer = served.deliver(change)
        assert answer.status == 503
        assert "eu: deadline exceeded" in answer.problem["detail"]
        assert served.messages() == []
        served.databases["eu"].error = None
        assert served.deliver(change).status == 204
        assert len(served.messages()) == 1

    def test_a_slow_tombstone_delays_no_other_event(self, served: Served) -> None:
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
