"""The stand-in for Eventarc: what it takes from the emulator, and how it delivers to capture."""

import asyncio
import base64
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from google.events.cloud.firestore_v1 import Document, DocumentEventData
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import Receive, Scope, Send

from tests.support.polling import PATIENCE_S, eventually
from workers.local import eventarc
from workers.local.eventarc import Delivery, EventarcStandIn
from workers.runtime.serving import PostsFirst, ServerThread, read_body, reply, text_headers

TRIGGER = "/functions/projects/p/triggers/t"
QUICK = Delivery(backoff_first=0.01, backoff_max=0.05)


@dataclass
class Sink:
    """Capture as the stand-in sees it: answers with the status that `answer` gives for each attempt."""

    answer: Callable[[int], int] = lambda _attempt: 204
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    together: int = 0
    most_together: int = 0
    gate: threading.Event | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive, bytes_max=10_000_000)
        self.together += 1
        self.most_together = max(self.together, self.most_together)
        self.bodies.append(body)
        self.headers.append(text_headers(scope["headers"]))
        status = self.answer(len(self.bodies))
        if self.gate is not None:
            await asyncio.to_thread(self.gate.wait, 10)
        self.together -= 1
        await reply(send, status, headers=[(b"location", b"/elsewhere")])


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def sink_url(sink: Sink) -> Iterator[str]:
    app = Starlette(middleware=[Middleware(PostsFirst, receiver=sink)])
    server = ServerThread(app, name="sink", grace_s=1)
    server.start()
    yield server.url
    server.stop()


Start = Callable[..., EventarcStandIn]


@pytest.fixture
def start(sink_url: str) -> Iterator[Start]:
    started: list[EventarcStandIn] = []

    def start_one(delivery: Delivery = QUICK, *, url: str = sink_url) -> EventarcStandIn:
        stand_in = EventarcStandIn(url, delivery)
        started.append(stand_in)
        stand_in.start()
        return stand_in

    yield start_one
    for stand_in in started:
        stand_in.stop()


def event(name: str = "orders/1") -> bytes:
    full = f"projects/p/databases/app-eu/documents/{name}"
    data = DocumentEventData(value=Document(name=full, fields={"status": {"string_value": "new"}}))
    return bytes(DocumentEventData.serialize(data))


def post(url: str, body: bytes, headers: dict[str, str] | None = None) -> int:
    """As the emulator: the path of a trigger, its headers, and the body as given."""
    request = urllib.request.Request(
        url + TRIGGER,
        data=body,
        headers={"content-type": "application/protobuf", "ce-id": "same-for-all", **(headers or {})},
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def as_emulator(name: str = "orders/1") -> bytes:
    return base64.b64encode(event(name))


def delivered(stand_in: EventarcStandIn, number: int) -> None:
    eventually(lambda: stand_in.stats().delivered == number)


class TestWhatIsForwarded:
    def test_the_base64_body_becomes_the_raw_protobuf(self, start: Start, sink: Sink) -> None:
        stand_in = start()
        assert post(stand_in.url, as_emulator()) == 204
        delivered(stand_in, 1)
        assert sink.bodies == [event()]

    def test_a_raw_body_stays_as_it_is(self, start: Start, sink: Sink) -> None:
        stand_in = start()
        assert post(stand_in.url, event()) == 204
        delivered(stand_in, 1)
        assert sink.bodies == [event()]

    def test_headers_pass_and_each_event_gets_an_id_of_its_own(self, start: Start, sink: Sink) -> None:
        stand_in = start()
        headers = {
            "ce-type": "google.cloud.firestore.document.v1.written",
            "ce-document": "orders/über".encode().decode("latin-1"),
            "x-other": "not forwarded",
            "traceparent": "00-aa",
        }
        for _ in range(3):
            post(stand_in.url, as_emulator(), headers)
        delivered(stand_in, 3)
        assert len({sent["ce-id"] for sent in sink.headers}) == 3
        sent = sink.headers[0]
        assert sent["ce-type"] == headers["ce-type"]
        assert sent["ce-document"] == "orders/über"
        assert sent["content-type"] == "application/protobuf"
        assert sent["traceparent"] == "00-aa"
        assert "x-other" not in sent

    @pytest.mark.parametrize("body", [b"!!! not base64", b"Cgo", base64.b64encode(b"x") + b"\n trailing"])
    def test_garbage_is_refused_and_counted(self, start: Start, sink: Sink, body: bytes) -> None:
        stand_in = start()
        assert post(stand_in.url, body) == 400
        assert stand_in.stats().malformed == 1
        assert sink.bodies == []

    def test_a_body_over_the_bound_is_refused(self, start: Start, sink: Sink) -> None:
        stand_in = start()
        assert post(stand_in.url, b"\x0a" * (eventarc.BODY_BYTES_MAX + 1)) == 400
        assert stand_in.stats().malformed == 1
        assert sink.bodies == []


class TestDelivery:
    def test_the_emulator_is_answered_before_capture_answers(self, start: Start, sink: Sink) -> None:
        sink.gate = threading.Event()
        stand_in = start()
        try:
            assert post(stand_in.url, as_emulator()) == 204
            eventually(lambda: stand_in.stats().in_flight == 1)
            assert stand_in.stats().delivered == 0
        finally:
            sink.gate.set()
        delivered(stand_in, 1)

    def test_deliveries_run_at_the_same_time_up_to_the_bound(self, start: Start, sink: Sink) -> None:
        sink.gate = threading.Event()
        stand_in = start(Delivery(in_flight_max=4))
        try:
            for _ in range(10):
                post(stand_in.url, as_emulator())
            eventually(lambda: sink.most_together == 4)
            assert stand_in.stats().in_flight == 4
        finally:
            sink.gate.set()
        delivered(stand_in, 10)
        assert sink.most_together == 4

    @pytest.mark.parametrize(("status", "rejected"), [(503, 0), (500, 0), (400, 3), (302, 0)])
    def test_anything_but_2xx_is_sent_again_with_the_same_id(
        self, start: Start, sink: Sink, status: int, rejected: int
    ) -> None:
        """4xx too, as Eventarc does; those are counted apart."""
        sink.answer = lambda attempt: status if attempt <= 3 else 204
        stand_in = start()
        post(stand_in.url, as_emulator())
        delivered(stand_in, 1)
        stats = stand_in.stats()
        assert (stats.retried, stats.rejected, stats.received) == (3, rejected, 1)
        assert len({sent["ce-id"] for sent in sink.headers}) == 1
        assert sink.bodies == [event()] * 4

    def test_an_unreachable_capture_is_tried_again_until_it_answers(self, start: Start, sink: Sink) -> None:
        app = Starlette(middleware=[Middleware(PostsFirst, receiver=sink)])
        first = ServerThread(app, name="first", grace_s=1)
        first.start()
        url, port = first.url, int(first.url.rpartition(":")[2])
        first.stop()
        stand_in = start(url=url)
        post(stand_in.url, as_emulator())
        eventually(lambda: stand_in.stats().retried >= 2)
        second = ServerThread(app, name="second", grace_s=1)
        second.start(port=port)
        try:
            delivered(stand_in, 1)
        finally:
            second.stop()

    def test_an_event_is_given_up_after_the_limit_and_counted(self, start: Start, sink: Sink) -> None:
        sink.answer = lambda _attempt: 503
        stand_in = start(Delivery(backoff_first=0.01, backoff_max=0.02, retry_for=0.1))
        post(stand_in.url, as_emulator())
        eventually(lambda: stand_in.stats().expired == 1)
        stats = stand_in.stats()
        assert (stats.waiting, stats.bytes, stats.delivered) == (0, 0, 0)

    def test_drop_none_goes_on_past_the_limit(self, start: Start, sink: Sink) -> None:
        sink.answer = lambda _attempt: 503
        stand_in = start(Delivery(backoff_first=0.01, backoff_max=0.01, retry_for=0.0, drop_none=True))
        post(stand_in.url, as_emulator())
        eventually(lambda: stand_in.stats().retried >= 5)
        sink.answer = lambda _attempt: 204
        delivered(stand_in, 1)
        assert stand_in.stats().expired == 0

    def test_paused_nothing_is_delivered_and_resumed_everything_is(self, start: Start, sink: Sink) -> None:
        stand_in = start()
        stand_in.pause()
        for _ in range(5):
            assert post(stand_in.url, as_emulator()) == 204
        stats = stand_in.stats()
        assert (stats.paused, stats.waiting, stats.delivered, sink.bodies) == (True, 5, 0, [])
        stand_in.resume()
        delivered(stand_in, 5)
        assert stand_in.stats().waiting == 0


class TestDisorder:
    def test_duplicates_carry_the_same_id(self, start: Start, sink: Sink) -> None:
        stand_in = start(Delivery(duplicate=1.0))
        for _ in range(5):
            post(stand_in.url, as_emulator())
        delivered(stand_in, 10)
        assert stand_in.stats().duplicated == 5
        assert set(Counter(sent["ce-id"] for sent in sink.headers).values()) == {2}

    def test_the_share_of_duplicates_is_near_its_probability(self, start: Start) -> None:
        stand_in = start(Delivery(duplicate=0.5, seed=7))
        for _ in range(60):
            post(stand_in.url, as_emulator())
        # Of 60 coins this many heads are all but certain, and the seed is set.
        assert 15 <= stand_in.stats().duplicated <= 45

    def test_shuffled_events_arrive_out_of_order_and_all_of_them(self, start: Start, sink: Sink) -> None:
        stand_in = start(Delivery(shuffle=0.3, seed=1))
        names = [f"orders/{number:02}" for number in range(30)]
        for name in names:
            post(stand_in.url, as_emulator(name))
        delivered(stand_in, 30)
        arrived = [DocumentEventData.deserialize(body).value.name[-9:] for body in sink.bodies]
        assert sorted(arrived) == names
        assert arrived != names


class TestBounds:
    def test_full_of_events_the_emulator_waits_and_goes_on_when_there_is_room(self, start: Start) -> None:
        stand_in = start(Delivery(events_max=2))
        stand_in.pause()
        assert post(stand_in.url, as_emulator()) == 204
        assert post(stand_in.url, as_emulator()) == 204
        third: list[int] = []
        waiting = threading.Thread(target=lambda: third.append(post(stand_in.url, as_emulator())))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        assert stand_in.stats().received == 2
        stand_in.resume()
        waiting.join(10)
        assert third == [204]
        delivered(stand_in, 3)

    def test_bytes_held_are_bounded_and_reported(self, start: Start) -> None:
        size = len(event())
        stand_in = start(Delivery(bytes_max=2 * size))
        stand_in.pause()
        post(stand_in.url, as_emulator())
        post(stand_in.url, as_emulator())
        blocked = threading.Thread(target=post, args=(stand_in.url, as_emulator()))
        blocked.start()
        blocked.join(0.2)
        stats = stand_in.stats()
        assert (stats.bytes, stats.bytes_max, stats.received) == (2 * size, 2 * size, 2)
        stand_in.resume()
        blocked.join(10)
        delivered(stand_in, 3)
        assert stand_in.stats().bytes == 0

    def test_an_event_larger_than_the_bound_is_taken_alone(self, start: Start) -> None:
        stand_in = start(Delivery(bytes_max=1))
        assert post(stand_in.url, as_emulator()) == 204
        delivered(stand_in, 1)


def get_json(url: str) -> dict[str, object]:
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
        found: dict[str, object] = json.load(response)
        return found


def steer(url: str, action: str) -> None:
    urllib.request.urlopen(urllib.request.Request(f"{url}/{action}", method="POST"), timeout=PATIENCE_S).close()


class TestProcess:
    def test_runs_as_a_process_is_steered_over_http_and_ends_with_0(self, sink_url: str, sink: Sink) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers.local.eventarc", "--port", "0", "--capture", sink_url],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
            steer(url, "pause")
            assert post(url, as_emulator()) == 204
            assert (get_json(f"{url}/stats")["waiting"], sink.bodies) == (1, [])
            steer(url, "resume")
            eventually(lambda: get_json(f"{url}/stats")["delivered"] == 1)
            assert sink.bodies == [event()]
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def test_the_backoff_doubles_up_to_its_ceiling_and_is_spread() -> None:
    """Spread over the upper half: never at once, never all together."""
    forwarder = eventarc.Forwarder("http://127.0.0.1:1", Delivery(backoff_first=0.1, backoff_max=1.0))
    for attempt, ceiling in ((1, 0.1), (2, 0.2), (4, 0.8), (5, 1.0), (10_000, 1.0)):
        delays = [forwarder.backoff(attempt) for _ in range(50)]
        assert ceiling / 2 <= min(delays) < max(delays) <= ceiling


def test_stopping_in_the_middle_of_retries_ends_the_thread(sink_url: str, sink: Sink) -> None:
    sink.answer = lambda _attempt: 503
    stand_in = EventarcStandIn(sink_url, QUICK)
    stand_in.start()
    try:
        for _ in range(random.Random(3).randrange(5, 10)):
            post(stand_in.url, as_emulator())
        eventually(lambda: stand_in.stats().retried > 5)
    finally:
        stand_in.stop()
    assert "eventarc" not in {thread.name for thread in threading.enumerate()}
