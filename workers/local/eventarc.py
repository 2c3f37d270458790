"""The local stand-in for Eventarc, between the triggers of Firestore's emulators and capture.

The emulator sends one event at a time, waits for each answer, never retries, and wraps the protobuf in base64.
Eventarc sends many at once, raw, again and again for 24 hours, in no order, some of them twice. This turns
the one into the other: it answers at once, then forwards concurrently, retrying with exponential back-off and
jitter on anything but 2xx. On request it shuffles and duplicates, from a seed.

What is held is bounded by number and bytes; when full, the emulator's request waits for room, which holds its
triggers back, and is refused only after that. `GET /stats` counts everything; `POST /pause` and `POST /resume`
stop and continue delivery.

Runs in a thread (`EventarcStandIn`) or as a process: `python -m workers.local.eventarc --port P --capture URL`.
"""

import asyncio
import logging
import random
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import aiohttp
import click
import orjson
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from replication.changes.body import protobuf_body
from workers.runtime.serving import (
    BodyTooLarge,
    PostsFirst,
    ServerThread,
    listen,
    read_body,
    reply,
    reply_and_close,
    run_until_signalled,
    text_headers,
)

TRIGGER_PREFIX = "/functions/"
"""The emulator posts to `/functions/projects/P/triggers/ID`."""
BODY_BYTES_MAX = 16 * 1024 * 1024
"""Two documents of 1 MiB in base64, and room: the emulator knows no limit on an event's size."""
ROOM_S_MAX = 30.0
RETRY_S_MAX = 24 * 3600.0
"""As long as Eventarc retries by default."""
SEND_S_MAX = 30.0
DOUBLINGS_MAX = 30
"""Keeps the exponent of the back-off finite; the ceiling is reached long before."""
STOP_GRACE_S = 1

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How events are delivered. Times in seconds.

    `shuffle` delays each delivery by a random time up to this; `duplicate` is the probability that an event is
    delivered twice. `drop_none` retries forever instead of giving up after `retry_for`.
    """

    in_flight_max: int = 64
    events_max: int = 100_000
    bytes_max: int = 256 * 1024 * 1024
    retry_for: float = RETRY_S_MAX
    drop_none: bool = False
    backoff_first: float = 0.1
    backoff_max: float = 10.0
    shuffle: float = 0.0
    duplicate: float = 0.0
    seed: int = 0


@dataclass(slots=True)
class Stats:
    """What happened to events since the start; `waiting`, `bytes` and `in_flight` are of now.

    received         taken from the emulator
    delivered        answered 2xx by capture (a duplicate counts again)
    retried          attempts that failed and are made again
    rejected         of the failed attempts, those answered 4xx
    expired          given up after the retry limit
    refused          turned away because there was no room: lost, for the emulator never retries
    malformed        neither protobuf nor base64, or over the bound on a body: lost
    duplicated       scheduled a second time on purpose
    """

    received: int = 0
    delivered: int = 0
    retried: int = 0
    rejected: int = 0
    expired: int = 0
    refused: int = 0
    malformed: int = 0
    duplicated: int = 0
    waiting: int = 0
    bytes: int = 0
    bytes_max: int = 0
    in_flight: int = 0
    paused: bool = False


@dataclass(slots=True)
class _Event:
    headers: dict[str, str]
    body: bytes
    since: float
    attempts: int = 0


class Forwarder:
    """Holds events and delivers them; everything but the constructor runs in one event loop."""

    def __init__(self, capture_url: str, delivery: Delivery) -> None:
        self._url = capture_url
        self._delivery = delivery
        self._random = random.Random(delivery.seed)  # noqa: S311 - shuffles tests, guards no secret
        self._run_id = uuid.uuid4().hex
        self._queue: asyncio.Queue[_Event] = asyncio.Queue()
        self._room = asyncio.Event()
        self._going = asyncio.Event()
        self._going.set()
        self.stats = Stats(bytes_max=delivery.bytes_max)

    @asynccontextmanager
    async def running(self, _app: object = None) -> AsyncIterator[None]:
        """Deliver while inside; what has not been delivered at the end is forgotten."""
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._delivery.in_flight_max),
                timeout=aiohttp.ClientTimeout(total=SEND_S_MAX),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            senders = [group.create_task(self._send(session)) for _ in range(self._delivery.in_flight_max)]
            yield
            for sender in senders:
                sender.cancel()

    async def accept(self, headers: dict[str, str], body: bytes) -> bool:
        """Take one event; waits for room, and says False when there was none in time."""
        if not await self._has_room(len(body)):
            self.stats.refused += 1
            logger.error(
                "no room for an event in %s s (%d events, %d bytes wait for %s): it is lost; see why capture "
                "does not take events, or raise the bounds",
                ROOM_S_MAX,
                self.stats.waiting,
                self.stats.bytes,
                self._url,
            )
            return False
        self.stats.received += 1
        # The emulator's own ids are not relied on: an id names one event, as Eventarc's does.
        event_id = {"ce-id": f"{self._run_id}-{self.stats.received}"}
        self._schedule(headers | event_id, body)
        if self._delivery.duplicate and self._random.random() < self._delivery.duplicate:
            self.stats.duplicated += 1
            self._schedule(headers | event_id, body)
        return True

    def pause(self) -> None:
        """Begin no further delivery; those in flight end."""
        self._going.clear()
        self.stats.paused = True

    def resume(self) -> None:
        """Deliver again."""
        self._going.set()
        self.stats.paused = False

    async def _has_room(self, size: int) -> bool:
        try:
            async with asyncio.timeout(ROOM_S_MAX):
                while self._full(size):
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            return False
        return True

    def _full(self, size: int) -> bool:
        limits, now = self._delivery, self.stats
        # An event larger than the bound itself is taken when nothing else is held: it could never fit.
        return now.waiting >= limits.events_max or (now.waiting > 0 and now.bytes + size > limits.bytes_max)

    def _schedule(self, headers: dict[str, str], body: bytes) -> None:
        self.stats.waiting += 1
        self.stats.bytes += len(body)
        loop = asyncio.get_running_loop()
        event = _Event(headers, body, loop.time())
        if self._delivery.shuffle:
            loop.call_later(self._random.uniform(0, self._delivery.shuffle), self._queue.put_nowait, event)
        else:
            self._queue.put_nowait(event)

    async def _send(self, session: aiohttp.ClientSession) -> None:
        while True:
            event = await self._queue.get()
            await self._going.wait()
            self.stats.in_flight += 1
            try:
                status = await self._post(session, event)
            finally:
                self.stats.in_flight -= 1
            self._settle(event, status)

    async def _post(self, session: aiohttp.ClientSession, event: _Event) -> int:
        """The answer's status; 0 when there was none."""
        try:
            async with session.post(
                self._url, data=event.body, headers=event.headers, allow_redirects=False
            ) as response:
                return response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            logger.debug("event %s: %r", event.headers["ce-id"], error)
            return 0

    def _settle(self, event: _Event, status: int) -> None:
        if 200 <= status < 300:
            self.stats.delivered += 1
            self._release(event)
            return
        if 400 <= status < 500:
            self.stats.rejected += 1
        loop = asyncio.get_running_loop()
        if not self._delivery.drop_none and loop.time() - event.since >= self._delivery.retry_for:
            self._expire(event, status)
            return
        event.attempts += 1
        self.stats.retried += 1
        loop.call_later(self.backoff(event.attempts), self._queue.put_nowait, event)

    def backoff(self, attempts: int) -> float:
        """Seconds to wait after so many failed attempts."""
        doubled: float = self._delivery.backoff_first * 2.0 ** min(attempts - 1, DOUBLINGS_MAX)
        ceiling = min(doubled, self._delivery.backoff_max)
        return ceiling * (0.5 + self._random.random() / 2)

    def _expire(self, event: _Event, status: int) -> None:
        self.stats.expired += 1
        self._release(event)
        logger.error(
            "event %s of %s was dropped after %d attempts in %s s, as Eventarc would; the last answer: %s",
            event.headers["ce-id"],
            event.headers.get("ce-document", "an unnamed document"),
            event.attempts + 1,
            self._delivery.retry_for,
            status or "nothing",
        )

    def _release(self, event: _Event) -> None:
        self.stats.waiting -= 1
        self.stats.bytes -= len(event.body)
        self._room.set()


@dataclass(frozen=True, slots=True)
class _Receiver:
    """What the emulator's triggers post to."""

    forwarder: Forwarder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = protobuf_body(await read_body(receive, bytes_max=BODY_BYTES_MAX))
        except ClientDisconnect:
            return
        except (ValueError, BodyTooLarge) as error:
            self.forwarder.stats.malformed += 1
            logger.error("an event is lost: %s", error)  # noqa: TRY400 - the sender's fault: no trace of ours
            await reply_and_close(receive, send, 400, body=str(error).encode())
            return
        accepted = await self.forwarder.accept(_forwarded(scope), body)
        await reply(send, 204 if accepted else 503)


def _forwarded(scope: Scope) -> dict[str, str]:
    kept = ("ce-", "content-type", "traceparent")
    headers = text_headers(scope["headers"])
    return {name: value for name, value in headers.items() if name.startswith(kept)}


def build_app(forwarder: Forwarder) -> Starlette:
    """The stand-in as an ASGI application."""

    async def stats(_request: Request) -> Response:
        return Response(orjson.dumps(forwarder.stats), media_type="application/json")

    async def pause(_request: Request) -> Response:
        forwarder.pause()
        return Response(status_code=204)

    async def resume(_request: Request) -> Response:
        forwarder.resume()
        return Response(status_code=204)

    return Starlette(
        routes=[
            Route("/stats", stats),
            Route("/pause", pause, methods=["POST"]),
            Route("/resume", resume, methods=["POST"]),
        ],
        middleware=[Middleware(PostsFirst, receiver=_Receiver(forwarder), prefix=TRIGGER_PREFIX)],
        lifespan=forwarder.running,
    )


class EventarcStandIn:
    """The stand-in in a separate thread. `url` is where the emulators' triggers point to."""

    def __init__(self, capture_url: str, delivery: Delivery | None = None) -> None:
        self._forwarder = Forwarder(capture_url, delivery or Delivery())
        self._server = ServerThread(build_app(self._forwarder), name="eventarc", grace_s=STOP_GRACE_S)

    @property
    def url(self) -> str:
        """`http://host:port`, once started."""
        return self._server.url

    def start(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        """Take events and deliver them; port 0 takes a free one."""
        self._server.start(host=host, port=port)

    def stop(self) -> None:
        """Stop, and forget what has not been delivered."""
        self._server.stop()

    def pause(self) -> None:
        """Begin no further delivery; those in flight end."""
        self._server.call(self._forwarder.pause)

    def resume(self) -> None:
        """Deliver again."""
        self._server.call(self._forwarder.resume)

    def stats(self) -> Stats:
        """The counts now, as one consistent cut."""
        return self._server.call(lambda: replace(self._forwarder.stats))


@click.command()
@click.option("--capture", "capture_url", required=True, help="Where to deliver events: capture's URL.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=int, required=True, help="Port to listen on; 0 takes a free one and prints it.")
@click.option(
    "--in-flight", type=click.IntRange(1), default=64, show_default=True, help="Deliveries at a time."
)
@click.option("--retry-for", type=float, default=RETRY_S_MAX, show_default=True, help="Seconds to retry for.")
@click.option("--drop-none", is_flag=True, help="Retry forever instead.")
@click.option("--shuffle", type=float, default=0.0, help="Delay each delivery by up to this many seconds.")
@click.option("--duplicate", type=click.FloatRange(0, 1), default=0.0, help="Probability of a second delivery.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of shuffling and duplicating.")
def main(
    capture_url: str,
    host: str,
    port: int,
    *,
    in_flight: int,
    retry_for: float,
    drop_none: bool,
    shuffle: float,
    duplicate: float,
    seed: int,
) -> None:
    """Stand between Firestore's emulators and capture, as Eventarc does in production."""
    delivery = Delivery(
        in_flight_max=in_flight,
        retry_for=retry_for,
        drop_none=drop_none,
        shuffle=shuffle,
        duplicate=duplicate,
        seed=seed,
    )
    bound = listen(host, port)
    click.echo(f"http://{host}:{bound.getsockname()[1]}")
    run_until_signalled(build_app(Forwarder(capture_url, delivery)), bound)


if __name__ == "__main__":
    main()
