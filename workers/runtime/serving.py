"""An ASGI application on a socket: uvicorn (uvloop, httptools) as every server here runs it.

Requests of the one busy kind (POSTed events) go to a bare ASGI callable before any routing; everything else
takes Starlette's way. A body is read up to a bound, whether or not its length was declared.
"""

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType
from typing import TypeVar

import uvicorn
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from replication.errors import ConfigError, FirefleetError

KEEP_ALIVE_S = 620
"""Google's front ends keep idle connections for 600 s and advise backends to keep them longer, so that no
request meets a connection being closed (https://cloud.google.com/load-balancing/docs/https#timeouts_and_retries)."""
BACKLOG = 2048
START_S_MAX = 10.0
GRACE_S = 6
"""For requests in flight after SIGTERM: of Cloud Run's 10 s, what leaves time to flush afterwards."""
STOP_S_MAX = 2.0
"""What uvicorn may take for its own end beyond the grace."""
CLOSE_S_MAX = 2.0
"""For flushing after that: the rest of the 10 s is Python's own end."""
CALL_S_MAX = 5.0
LINGER_S_MAX = 1.0
LINGER_BYTES_MAX = 8 * 1024 * 1024

_NOT_THIS_MACHINE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

logger = logging.getLogger(__name__)

Headers = list[tuple[bytes, bytes]]
T = TypeVar("T")


class BodyTooLarge(FirefleetError):
    """The request's body is over the bound; it was not read to its end."""


class BodyTooSlow(FirefleetError):
    """The request's body did not arrive in time."""


def listen(host: str, port: int, *, option: str = "--port") -> socket.socket:
    """A listening TCP socket; port 0 takes a free one.

    Bound before the server runs, so that a taken port is one clear error and no early request is refused.
    `option` is what the port was given with; only who has `--port` can choose the host, with `--host`.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        raise ConfigError(_why_not(error, host, port, option)) from error


def _why_not(error: OSError | UnicodeError, host: str, port: int, option: str) -> str:
    number = getattr(error, "errno", None) or 0
    # Python's own text goes on with the address, which stands here already.
    reason = str(getattr(error, "strerror", None) or error).partition(" (while")[0]
    # The resolver's error numbers are negative.
    if isinstance(error, UnicodeError) or number < 0 or number in _NOT_THIS_MACHINE:
        return (
            f"--host: '{host}' is not an address of this machine ({reason}); leave --host out to listen on all"
        )
    remedies = {
        errno.EACCES: f"ports below 1024 need root; choose another port with {option}",
        errno.EADDRINUSE: f"choose another port with {option}, or stop the process that has this one",
    }
    remedy = remedies.get(number, f"choose another port with {option}")
    return f"{option}: cannot listen on {host}:{port} ({reason}); {remedy}"


class Server(uvicorn.Server):
    """A uvicorn server that signals to other threads when it serves."""

    def __init__(self, app: ASGIApp, *, grace_s: int = GRACE_S) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="uvloop",
                http="httptools",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=grace_s,
            )
        )
        self.settled = threading.Event()
        """Set when it serves, and when it ended without ever serving."""

        self.loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets=sockets)
        self.settled.set()


class ServerThread:
    """An application served by a separate thread: for health checks, tests and the demo."""

    def __init__(self, app: ASGIApp, *, name: str, grace_s: int = GRACE_S) -> None:
        self._server = Server(app, grace_s=grace_s)
        self._grace_s = grace_s
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._sockets: list[socket.socket] = []
        self.url = ""

    def start(self, *, host: str = "127.0.0.1", port: int = 0, option: str = "--port") -> None:
        """Serve; returns once requests are answered. `ConfigError` when the port is taken."""
        bound = listen(host, port, option=option)
        self._sockets.append(bound)
        self.url = f"http://{host}:{bound.getsockname()[1]}"
        self._thread.start()
        if not self._server.settled.wait(START_S_MAX) or not self._server.started:
            raise RuntimeError(f"{self._thread.name} did not start within {START_S_MAX} s; its log says why")

    def call(self, action: Callable[[], T]) -> T:
        """Run something in the server's event loop, and wait for it; in this thread before and after it ran."""
        loop = self._server.loop
        if loop is None or not self._thread.is_alive():
            return action()

        async def run() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(run(), loop).result(CALL_S_MAX)

    def stop(self) -> None:
        """Stop accepting, finish what is in flight within the grace, and end. May be called again."""
        self._server.should_exit = True
        if self._thread.ident is None:
            return
        self._thread.join(self._grace_s + STOP_S_MAX)
        if self._thread.is_alive():
            logger.error("%s did not stop within %s s", self._thread.name, self._grace_s + STOP_S_MAX)

    def _run(self) -> None:
        try:
            self._server.run(sockets=self._sockets)
        finally:
            self._server.settled.set()


def run_until_signalled(
    app: ASGIApp, bound: socket.socket, *, started: Callable[[], None] = lambda: None
) -> None:
    """Serve in the main thread until SIGTERM or SIGINT; returns when what was in flight has been answered.

    Calls `started` once a signal ends it cleanly, before it serves.
    """
    server = Server(app)
    with _signals_end(server):
        started()
        server.run(sockets=[bound])


def close_within(seconds: float, closers: Mapping[str, Callable[[], None]]) -> None:
    """Close everything side by side, and go on without what takes longer: the process is about to be killed."""
    threads = [threading.Thread(target=close, name=name, daemon=True) for name, close in closers.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if late := [thread.name for thread in threads if thread.is_alive()]:
        logger.error("not closed within %s s: %s", seconds, ", ".join(late))


@contextlib.contextmanager
def _signals_end(server: Server) -> Iterator[None]:
    # uvicorn handles signals only while it serves, and when it is done it raises the one that ended it: the
    # process would fail. Here an earlier one is not lost, and the caller still flushes and exits with 0.
    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class PostsFirst:
    """ASGI middleware: POSTs below a path prefix go to `receiver`, past all routing; the rest to `app`."""

    def __init__(self, app: ASGIApp, *, receiver: ASGIApp, prefix: str = "") -> None:
        self._app = app
        self._receiver = receiver
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith(self._prefix):
            await self._receiver(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def text_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """A request's headers as text; UTF-8, because Firestore's emulator sends document paths so."""
    return {name.decode("latin-1"): value.decode("utf-8", "replace") for name, value in headers}


async def read_body(receive: Receive, *, bytes_max: int, declared: str = "") -> bytes:
    """The request's whole body.

    Raises `BodyTooLarge` before reading when the declared length is over the bound, else as soon as the body
    is; `ClientDisconnect` when the client goes away.
    """
    if declared.isdecimal() and int(declared[:20]) > bytes_max:
        raise BodyTooLarge(f"the body has {declared[:20]} bytes, over the limit of {bytes_max}")
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > bytes_max:
            raise BodyTooLarge(f"the body is over the limit of {bytes_max} bytes")
        if not message.get("more_body", False):
            return b"".join((*parts, part)) if parts else part
        parts.append(part)


async def reply(send: Send, status: int, *, body: bytes = b"", headers: Headers | None = None) -> None:
    """Answer, completely."""
    await _begin(send, status, body, headers)
    await send({"type": "http.response.body", "body": body})


async def reply_and_close(
    receive: Receive, send: Send, status: int, *, body: bytes, headers: Headers | None = None
) -> None:
    """Answer a request whose body was not read, and close its connection.

    A connection closed on a client that is still sending is reset, and the reset can overtake the answer; so
    a bounded part of what still comes is read and thrown away first.
    """
    await _begin(send, status, body, [*(headers or []), (b"connection", b"close")])
    await send({"type": "http.response.body", "body": body, "more_body": True})
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S_MAX):
            await _discard(receive)
    await send({"type": "http.response.body", "body": b""})


async def _begin(send: Send, status: int, body: bytes, headers: Headers | None) -> None:
    sent = list(headers or [])
    if body:
        sent.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": sent})


async def _discard(receive: Receive) -> None:
    size = 0
    while size < LINGER_BYTES_MAX:
        message = await receive()
        if not message.get("more_body", False):
            return
        size += len(message.get("body", b""))
