"""Capture: receives Eventarc's events over HTTP, decides what each is, and publishes it.

    POST any path     one event of any replica; which one, the event says
    GET /live /ready  health

    204  Pub/Sub has it, or it is an echo, or it never leaves its replica
    400  not an event of this fleet: sending it again changes nothing
    408  the body did not arrive in time
    413  the body is over the limit
    503  the tombstone could not be read, or Pub/Sub did not take it, or too much is in flight: send it again

Eventarc sends everything again that is not answered 2xx, so 2xx comes only after Pub/Sub confirmed. Nothing is
kept here: an instance may die at any moment.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import orjson
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from replication import metrics
from replication.changes.body import protobuf_body
from replication.changes.envelope import ID, JSON, SOURCE
from replication.errors import ConfigError, EventError, FirefleetError, Reason, Transient
from replication.fleet.model import Fleet
from replication.ports import Database, Publisher, Telemetry
from workers.capture.answers import DONE, STOPPING, TOO_MANY, Answer, give, refusal
from workers.capture.driver import Driver
from workers.capture.outbox import Outbox
from workers.runtime.health import health_routes
from workers.runtime.serving import BodyTooSlow, PostsFirst, read_body, text_headers

BODY_S_MAX = 10.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one instance takes. The bytes stay below those at which the publisher would block the event loop."""

    in_flight_max: int = 256
    in_flight_bytes_max: int = 32 * 1024 * 1024
    body_bytes_max: int = 2 * 1024 * 1024


LIMITS = Limits()


class Capture:
    """The ASGI callable that every POST goes to."""

    def __init__(self, driver: Driver, telemetry: Telemetry, *, limits: Limits) -> None:
        self._driver = driver
        self._telemetry = telemetry
        self._limits = limits
        self._in_flight = 0
        self._bytes = 0

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
                # No one to answer. Counted as nginx does: 499, the client closed the request.
                answer = Answer(499)
            except asyncio.CancelledError:
                # Only the end of the grace after SIGTERM cancels a request: its sender still gets an answer.
                answer = STOPPING
                await give(answer, receive, send)
            finally:
                self._in_flight -= 1
        self._telemetry.count(metrics.CAPTURE_REQUESTS, status=str(answer.status))
        self._telemetry.measure(metrics.CAPTURE_DURATION, time.perf_counter() - started)

    async def _answer(self, headers: Mapping[str, str], receive: Receive) -> Answer:
        try:
            body = await self._body(headers, receive)
            with self._holding(len(body)):
                await self._driver.run(body, headers)
        except FirefleetError as error:
            logger.warning(
                "event %s of %s is not accepted: %s",
                headers.get(ID, "without id"),
                headers.get(SOURCE, "an unnamed source"),
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
        raise ConfigError(f"capture needs a database for every replica; missing: {', '.join(sorted(missing))}")
    outbox = Outbox(publisher)
    driver = Driver(fleet, databases, outbox, telemetry)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        driver.close()

    return Starlette(
        routes=[
            *health_routes(live={}, ready={"publisher": outbox.problem}),
            Mount("/", app=_only_post),
        ],
        middleware=[Middleware(PostsFirst, receiver=Capture(driver, telemetry, limits=limits))],
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
