"""Tombstones as capture reads them: bounded for each replica, so that a dead one does not delay the others."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from replication.errors import Transient
from replication.ports import Database, Found

READ_S_MAX = 5.0
TOMBSTONE_S_MAX = 10.0
TOMBSTONE_THREADS = 8
TOMBSTONE_READS_MAX = 64
"""For each replica: one whose database is down must not take all of the requests in flight."""


class Tombstones:
    """One replica's tombstones, read by separate threads: the event loop never waits for a database."""

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
