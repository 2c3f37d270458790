"""Capture: receives Eventarc's events over HTTP, decides what each is, and publishes it.

    POST any path     one event of any replica; which one, the event says
    GET /live /ready  health

    204  Pub/Sub has it, or it is an echo, or it never leaves its replica
    400  no event of ours: sending it again changes nothing
    408  the body did not arrive in time
    413  the body is over the bound
    503  the tombstone could not be read, or Pub/Sub did not take it, or too much is in flight: send it again

Eventarc sends everything again that is not answered 2xx, so 2xx comes only after Pub/Sub confirmed. Nothing is
kept here: an instance may die at any moment.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial

import click
import orjson
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from replication.apply.plan import Outcome
from replication.changes.body import protobuf_body
from replication.changes.classify import classify, needs_tombstone, replica_of
from replication.changes.events import JSON, Event, parse_event
from replication.configuration.parse import Fleet, Mode
from replication.errors import ConfigError, EventError, FirefleetError, Reason, Transient
from replication.ports import Database, Found, Message, Publisher, Telemetry
from workers.capture.answers import DONE, STOPPING, TOO_MANY, Answer, give, refusal
from workers.config import ConfigFile
from workers.options import NamedOption, Whole
from workers.runtime.health import health_routes
from workers.runtime.serving import (
    CLOSE_S_MAX,
    BodyTooSlow,
    PostsFirst,
    close_within,
    listen,
    read_body,
    run_until_signalled,
    text_headers,
)

LARGE_EVENT_BYTES = 400 * 1024
"""Eventarc's limit is 512 KB; what becomes of larger events is not documented, so say it before."""
READ_S_MAX = 5.0
TOMBSTONE_S_MAX = 10.0
TOMBSTONE_THREADS = 8
TOMBSTONE_READS_MAX = 64
"""For each replica: one whose database is down must not take all of the requests in flight."""
PUBLISH_S_MAX = 20.0
BODY_S_MAX = 10.0
UNREADY_S = 30.0
"""After a failed publish; then an instance gets another chance."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one instance takes. The bytes stay below those at which the publisher would block the event loop."""

    in_flight_max: int = 256
    in_flight_bytes_max: int = 32 * 1024 * 1024
    body_bytes_max: int = 2 * 1024 * 1024


LIMITS = Limits()


class Tombstones:
    """One replica's tombstones, read by threads of its own: the event loop never waits for a database."""

    def __init__(self, replica: str, database: Database) -> None:
        self._replica = replica
        self._database = database
        self._threads = ThreadPoolExecutor(TOMBSTONE_THREADS, thread_name_prefix=f"tombstones-{replica}")
        self._reading = 0

    async def read(self, path: str) -> Found:
        """The tombstone at a path. Raises `Transient` when it can't be read in time."""
        if self._reading >= TOMBSTONE_READS_MAX:
            raise Transient(f"{self._reading} tombstones of {self._replica!r} are being read already")
        loop = asyncio.get_running_loop()
        read = partial(self._database.read, [path], timeout=READ_S_MAX)
        self._reading += 1
        try:
            async with asyncio.timeout(TOMBSTONE_S_MAX):
                [found] = await loop.run_in_executor(self._threads, read)
        except TimeoutError as error:
            raise Transient(
                f"tombstone {path!r} of {self._replica!r} not read in {TOMBSTONE_S_MAX} s"
            ) from error
        finally:
            self._reading -= 1
        return found

    def close(self) -> None:
        """Begin no further read."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Outbox:
    """The publisher as seen from the event loop; remembers whether it works."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._problem = ""
        self._problem_at = 0.0

    async def send(self, message: Message) -> None:
        """Return when Pub/Sub has the message. Raises `Transient` or `Refused`."""
        try:
            await self._confirmed(message)
        except FirefleetError as error:
            self._problem, self._problem_at = str(error), time.monotonic()
            raise
        self._problem = ""

    async def _confirmed(self, message: Message) -> None:
        sent = asyncio.wrap_future(self._publisher.submit(message))
        # `wait` and not `wait_for`, which would cancel a message that the publisher is about to send.
        await asyncio.wait([sent], timeout=PUBLISH_S_MAX)
        if not sent.done():
            raise Transient(f"Pub/Sub did not confirm a message within {PUBLISH_S_MAX} s")
        if sent.cancelled():
            raise Transient("the publisher was closed before it sent a message")
        sent.result()

    def problem(self) -> str | None:
        """The last publish's failure, while it is recent."""
        recent = time.monotonic() - self._problem_at < UNREADY_S
        return self._problem if self._problem and recent else None


class Capture:
    """The ASGI callable that every POST goes to."""

    def __init__(
        self,
        fleet: Fleet,
        databases: Mapping[str, Database],
        publisher: Publisher,
        telemetry: Telemetry,
        *,
        limits: Limits,
    ) -> None:
        self._fleet = fleet
        self._tombstones = {replica: Tombstones(replica, database) for replica, database in databases.items()}
        self._telemetry = telemetry
        self._limits = limits
        self._in_flight = 0
        self._bytes = 0
        self.outbox = Outbox(publisher)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        if self._in_flight >= self._limits.in_flight_max:
            answer = TOO_MANY
            await give(answer, receive, send)
        else:
            self._in_flight += 1
            try:
                answer = await self._answer(text_headers(scope["headers"]), receive)
                await give(answer, receive, send)
            except ClientDisconnect:
                # Nobody to answer. Counted as nginx does: 499, the client closed the request.
                answer = Answer(499)
            except asyncio.CancelledError:
                # Only the end of the grace after SIGTERM cancels a request: its sender is still told.
                answer = STOPPING
                await give(answer, receive, send)
            finally:
                self._in_flight -= 1
        self._telemetry.count("firefleet.capture.requests", status=str(answer.status))
        self._telemetry.measure("firefleet.capture.duration", time.perf_counter() - started)

    async def _answer(self, headers: Mapping[str, str], receive: Receive) -> Answer:
        try:
            body = await self._body(headers, receive)
            with self._holding(len(body)):
                await self._take(body, headers)
        except FirefleetError as error:
            logger.warning(
                "event %s of %s is not taken: %s",
                headers.get("ce-id", "without id"),
                headers.get("ce-source", "nobody"),
                error,
            )
            return refusal(error)
        return DONE

    @contextmanager
    def _holding(self, size: int) -> Iterator[None]:
        if self._bytes + size > self._limits.in_flight_bytes_max:
            raise Transient(f"{self._bytes} bytes of events are in flight already")
        self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size

    async def _body(self, headers: Mapping[str, str], receive: Receive) -> bytes:
        try:
            async with asyncio.timeout(BODY_S_MAX):
                body = await read_body(
                    receive,
                    bytes_max=self._limits.body_bytes_max,
                    declared=headers.get("content-length", ""),
                )
        except TimeoutError as error:
            raise BodyTooSlow(f"the body did not arrive within {BODY_S_MAX} s") from error
        if headers.get("content-type", "").lower().startswith(JSON):
            return body
        try:
            return protobuf_body(body)
        except ValueError as error:
            text = f"the body ({len(body)} bytes) is neither protobuf nor base64: {error}"
            raise EventError(Reason.UNDECODABLE, text) from error

    async def _take(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Classify one event and publish what it is to the fleet."""
        event = parse_event(body, headers)
        if event.unchanged:
            # Only the emulator sends such events: in production this count says that something is wrong.
            self._telemetry.count("firefleet.capture.unchanged")
            return
        replica = replica_of(event, self._fleet)
        if len(body) > LARGE_EVENT_BYTES:
            self._warn_of_large(event, replica.id)
        wanted = needs_tombstone(event, self._fleet)
        tombstone = await self._tombstones[replica.id].read(wanted) if wanted else None
        message = classify(event, self._fleet, tombstone)
        if message is not None:
            await self.outbox.send(message)
        elif not self._stays(event):
            self._telemetry.count("firefleet.changes", outcome=Outcome.ECHO.value, source=replica.id)

    def _stays(self, event: Event) -> bool:
        """Whether an unpublished change was an application's (or TTL's) that never leaves, and no echo."""
        if self._fleet.codec.owns(event.path):
            return False
        local = self._fleet.rule_for(event.path).mode is Mode.LOCAL
        return local or (event.deleted and event.by_system and self._fleet.expirations == "local")

    def _warn_of_large(self, event: Event, replica: str) -> None:
        self._telemetry.count("firefleet.capture.large_events", source=replica)
        logger.warning(
            "the event of %s at %s has %d bytes: near Eventarc's limit of 512 KB, above which changes may be "
            "lost; make the document smaller, and compare it across the replicas",
            event.path,
            replica,
            len(event.body),
        )

    def close(self) -> None:
        """Begin no further read of tombstones."""
        for tombstones in self._tombstones.values():
            tombstones.close()


def build_app(
    fleet: Fleet,
    databases: Mapping[str, Database],
    publisher: Publisher,
    telemetry: Telemetry,
    *,
    limits: Limits = LIMITS,
) -> Starlette:
    """Capture as an ASGI application. `databases` by replica id; closes none of what it is given."""
    if missing := fleet.replicas.keys() - databases.keys():
        raise ConfigError(f"capture needs a database for every replica; none for {', '.join(sorted(missing))}")
    capture = Capture(fleet, databases, publisher, telemetry, limits=limits)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        capture.close()

    return Starlette(
        routes=[
            *health_routes(live={}, ready={"publisher": capture.outbox.problem}),
            Mount("/", app=_only_post),
        ],
        middleware=[Middleware(PostsFirst, receiver=capture)],
        lifespan=lifespan,
    )


async def _only_post(scope: Scope, receive: Receive, send: Send) -> None:
    method = Request(scope).method
    problem = {"title": f"{method} is not for events", "remedy": "POST events; GET /live and /ready for health"}
    response = Response(
        orjson.dumps(problem),
        status_code=405,
        headers={"allow": "POST"},
        media_type="application/problem+json",
    )
    await response(scope, receive, send)


@click.command("capture")
@click.option("--host", default="0.0.0.0", show_default=True, help="Address to listen on.")  # noqa: S104 - Eventarc
@click.option(
    "--port",
    cls=NamedOption,
    type=Whole(0, 65535),
    envvar="PORT",
    default=8080,
    show_default=True,
    show_envvar=True,
    help="Port to listen on.",
)
@click.pass_obj
def command(config: ConfigFile, *, host: str, port: int) -> None:
    """Receive Eventarc's events of all replicas and publish the changes, until SIGTERM."""
    # Not at the top: who embeds `build_app` (the demo, tests) brings databases of its own.
    from replication.adapters.firestore import open_database  # noqa: PLC0415
    from replication.adapters.otel import open_telemetry  # noqa: PLC0415
    from replication.adapters.pubsub import open_publisher  # noqa: PLC0415

    fleet = config.load()
    bound = listen(host, port)
    databases = {replica.id: open_database(replica) for replica in fleet.replicas.values()}
    publisher = open_publisher(fleet.project, fleet.topic, emulator_host=fleet.pubsub_emulator_host)
    telemetry = open_telemetry(service="firefleet-capture")
    logger.info("capturing on port %d", bound.getsockname()[1])
    try:
        run_until_signalled(build_app(fleet, databases, publisher, telemetry), bound)
    finally:
        closers = {f"database {replica}": database.close for replica, database in databases.items()}
        flush = partial(telemetry.close, timeout=CLOSE_S_MAX)
        close_within(CLOSE_S_MAX, {**closers, "publisher": publisher.close, "telemetry": flush})
    logger.info("stopped")
