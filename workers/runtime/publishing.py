"""Publish, and wait until Pub/Sub has confirmed: the one place that reads a publisher's futures.

A message is published once its future holds an id. Every wait is bounded. A message that was not confirmed in
time may have been published all the same: trying again may publish it twice, which every receiver allows for.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, Future
from typing import TypeVar

from replication.errors import FirefleetError, Transient
from replication.ports import Message, Publisher

T = TypeVar("T")

CONFIRM_S_MAX = 20.0
"""Longer than the publisher itself tries, so that normally its own error comes first."""
UNCONFIRMED_MAX = 5_000
"""Messages of a stream that are sent and not confirmed yet: what the process holds."""
STREAM_CONFIRM_S_MAX = 60.0
"""For the oldest message of a stream, which waits behind a full window."""


def publish_each(
    publisher: Publisher, messages: Iterable[Message], *, seconds: float = CONFIRM_S_MAX
) -> list[FirefleetError | None]:
    """Publish messages; for each, in order, None once Pub/Sub has it, else why not.

    `seconds` is the time for all of them together.
    """
    deadline = time.monotonic() + seconds
    sent = [publisher.submit(message) for message in messages]
    return [_failure(future, deadline, seconds) for future in sent]


def publish_all(publisher: Publisher, messages: Iterable[Message], *, seconds: float = CONFIRM_S_MAX) -> None:
    """Publish messages; return when Pub/Sub has all of them. Raises the first failure: the rest is unknown.

    `seconds` is the time for all of them together.
    """
    deadline = time.monotonic() + seconds
    sent = [publisher.submit(message) for message in messages]
    for future in sent:
        _confirm(future, deadline, seconds)


async def publish_in_loop(publisher: Publisher, message: Message, *, seconds: float = CONFIRM_S_MAX) -> None:
    """Publish one message from an event loop, without blocking it. Raises `Transient` or `Refused`."""
    sent = asyncio.wrap_future(publisher.submit(message))
    # `wait` and not `wait_for`, which would cancel a message that the publisher is about to send.
    await asyncio.wait([sent], timeout=seconds)
    if not sent.done():
        raise _late(seconds)
    if sent.cancelled():
        raise _closed()
    sent.result()


def publish_stream(
    messages: Iterable[tuple[Message, T]],
    publishers: Sequence[Publisher],
    *,
    rate: float | None = None,
    confirmed: Callable[[T], None],
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Publish a stream over several publishers in turn, at most `rate` messages a second; how many there were.

    `confirmed` gets what came with a message once Pub/Sub has it, in order. Holds at most `UNCONFIRMED_MAX`
    messages. Returns when all are confirmed; raises the first failure.
    """
    waiting: deque[tuple[Future[str], T]] = deque()
    turns = itertools.cycle(publishers)
    began = now()
    count = 0
    for message, tag in messages:
        if rate:
            sleep(max(0.0, began + count / rate - now()))
        waiting.append((next(turns).submit(message), tag))
        count += 1
        while waiting and (len(waiting) >= UNCONFIRMED_MAX or waiting[0][0].done()):
            _confirm_oldest(waiting, confirmed)
    while waiting:
        _confirm_oldest(waiting, confirmed)
    return count


def _confirm_oldest(waiting: "deque[tuple[Future[str], T]]", confirmed: Callable[[T], None]) -> None:
    future, tag = waiting.popleft()
    _confirm(future, time.monotonic() + STREAM_CONFIRM_S_MAX, STREAM_CONFIRM_S_MAX)
    confirmed(tag)


def _confirm(sent: "Future[str]", deadline: float, seconds: float) -> None:
    try:
        sent.result(timeout=max(0.0, deadline - time.monotonic()))
    except CancelledError as error:
        raise _closed() from error
    except TimeoutError as error:
        raise _late(seconds) from error


def _failure(sent: "Future[str]", deadline: float, seconds: float) -> FirefleetError | None:
    try:
        _confirm(sent, deadline, seconds)
    except FirefleetError as error:
        return error
    return None


def _late(seconds: float) -> Transient:
    return Transient(f"Pub/Sub did not confirm a message within {seconds:g} s; is it reachable?")


def _closed() -> Transient:
    return Transient("the publisher was closed before it sent a message")
