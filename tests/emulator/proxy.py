"""A TCP proxy in front of an emulator that can be slow, cut connections half-way, and leave them half-open.

A fault is in force, for old and new connections, when `meet` returns; `met` counts what it has done since.
Everything happens in one thread's event loop. Modelled on Shopify's Toxiproxy, as far as it is needed here.
"""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.support.polling import PATIENCE_S

_T = TypeVar("_T")
_CHUNK_BYTES = 1 << 16
_CHUNKS_MAX = 64
"""On their way in one direction of a connection; then its sender has to wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with the link; by default nothing.

    `delay` is added to every chunk, in seconds, in either direction. `cut_after` resets each connection when
    so many more bytes of answers have passed: in the midst of one, as a rule. `half_open` takes every request
    to the emulator and drops every answer, as after a partition that one side alone has noticed.
    """

    delay: float = 0.0
    cut_after: int | None = None
    half_open: bool = False


NONE = Fault()


class Proxy:
    """One port that leads to `upstream` (`host:port`); a context manager that closes all connections."""

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.rpartition(":")
        self._upstream = (host, int(port))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._connections: set[asyncio.Task[None]] = set()
        self.fault = NONE
        self.met = 0
        self._thread.start()
        try:
            self._server = self._do(asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_CHUNK_BYTES))
        except BaseException:
            self._end_loop()
            raise

    @property
    def host(self) -> str:
        """`127.0.0.1:PORT`."""
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def meet(self, fault: Fault) -> None:
        """Put a fault in the place of the one before; connections that have lost bytes end with that one."""
        self._do(self._meet(fault))

    @contextlib.contextmanager
    def during(self, fault: Fault) -> Iterator[None]:
        """The fault while it is entered, and a sound link afterwards."""
        self.meet(fault)
        try:
            yield
        finally:
            self.meet(NONE)

    def close(self) -> None:
        """End all connections and the thread; again does nothing."""
        if not self._loop.is_closed():
            self._do(self._stop())
            self._end_loop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _do(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    async def _meet(self, fault: Fault) -> None:
        lost_bytes = self.fault.half_open
        self.fault, self.met = fault, 0
        if lost_bytes:
            await self._reset_all()

    async def _stop(self) -> None:
        self._server.close()
        await self._reset_all()

    async def _reset_all(self) -> None:
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        # A stream's own task may not end as cancelled: asyncio would report it as a fault of this program.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._relay(reader, writer)
        writer.transport.abort()
        self._connections.discard(task)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._upstream, limit=_CHUNK_BYTES)
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._carry(reader, far_writer, answers=False))
                ways.create_task(self._carry(far_reader, writer, answers=True))
        except* (OSError, EOFError):
            pass
        finally:
            far_writer.transport.abort()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        """Carry one direction until it ends, which ends the connection: gRPC closes both at once."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_MAX)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._deliver(waiting, writer, answers=answers))
            while data := await reader.read(_CHUNK_BYTES):
                self.met += self.fault.delay > 0
                await waiting.put((self._loop.time() + self.fault.delay, data))
            raise EOFError

    async def _deliver(
        self, waiting: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        fault, passed = self.fault, 0
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            if self.fault is not fault:
                fault, passed = self.fault, 0
            if answers and fault.half_open:
                self.met += 1
                continue
            if answers and fault.cut_after is not None and passed + len(data) > fault.cut_after:
                writer.write(data[: fault.cut_after - passed])
                self.met += 1
                raise EOFError
            passed += len(data)
            writer.write(data)
            await writer.drain()
