"""The threads of one analytics worker.

    pullers   pull while the buffer has room, and offer what came
    flusher   flushes on the beat, or when enough is held; its requests run on a few writer threads
    keeper    extends the deadlines of what is held, and reports gauges

A puller does not pull while the buffer is full: that is the back-pressure, and Pub/Sub keeps the rest.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from replication.analytics.job import Job
from replication.metrics import ANALYTICS_RETRIES
from workers.analytics.clients import AnalyticsClients
from workers.analytics.driver import AnalyticsDriver, Spread
from workers.analytics.guarded import GuardedBuffer
from workers.analytics.observe import AnalyticsObserver
from workers.runtime.clock import age_s
from workers.runtime.deliveries import Deliveries
from workers.runtime.journal import Journal
from workers.runtime.loop import Loop
from workers.runtime.progress import Progress
from workers.runtime.stop import StopSignal

BUFFER = "buffer"
"""The name under which `Progress` knows what all threads hold together, and what they cannot reach."""
PULL_S = 1.0
"""An idle pull ends by then: a worker that stops must not wait long for one."""
WRITERS = 4
"""Requests at once: one takes 0.1 s or more in production, and 10,000 events a second are 20 of them."""
TURN_S = 0.2
"""The longest a thread waits for the buffer without looking whether to stop."""
KEEP_S = 1.0


class AnalyticsWorker:
    """The threads of one process."""

    def __init__(self, job: Job, clients: AnalyticsClients, *, threads: int, max_messages: int) -> None:
        journal = Journal(time.monotonic, unit="events", always=("written", "dead_lettered"))
        self.progress = Progress(time.monotonic, journal)
        self._stop = StopSignal()
        self._job = job
        self._clients = clients
        self._max_messages = max_messages
        self._buffer = GuardedBuffer(job.settings, now=time.monotonic)
        self._deliveries = Deliveries(
            BUFFER, clients.subscription, self.progress, deadline_s=job.settings.ack_deadline_s
        )
        self._observer = AnalyticsObserver(job.replica, clients.telemetry, journal)
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="writer")
        self._pullers = [
            threading.Thread(target=self._pull_loop, args=(f"puller-{number}",), name=f"puller-{number}")
            for number in range(1, threads + 1)
        ]
        self._flusher = threading.Thread(target=self._flush_loop, name="flusher")
        self._keeper = threading.Thread(target=self._keep_loop, name="keeper")

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask the worker to flush what it holds, and to pull no more."""
        self._stop.set()

    def join(self) -> None:
        """Wait until the threads have ended."""
        for thread in self._threads:
            # With a timeout, because Python runs signal handlers only between waits.
            while thread.is_alive():
                thread.join(TURN_S)
        self._writers.shutdown()

    @property
    def _threads(self) -> list[threading.Thread]:
        return [*self._pullers, self._flusher, self._keeper]

    def _loop(self, name: str) -> Loop:
        return analytics_loop(name, self._job, self._clients, self.progress, self._stop)

    def _driver(self, loop: Loop, *, spread: Spread = map) -> AnalyticsDriver:
        return AnalyticsDriver(loop, self._job, self._clients, self._buffer, self._deliveries, spread=spread)

    def _pull_loop(self, name: str) -> None:
        loop = self._loop(name)
        driver = self._driver(loop)
        while not self._stop.is_set():
            loop.beat()
            places = self._buffer.reserve(self._max_messages, wait_s=TURN_S)
            if not places:
                continue
            try:
                driver.take(loop.pull(self._clients.subscription, places, timeout=PULL_S))
            finally:
                self._buffer.unreserve(places)

    def _flush_loop(self) -> None:
        # A writer thread counts as this loop, because it works for it and may be idle for a long time.
        loop = self._loop("flusher")
        driver = self._driver(loop, spread=self._writers.map)
        while not self._stop.is_set():
            loop.beat()
            if self._buffer.wait_until_due(wait_s=TURN_S):
                driver.flush()
        self._buffer.close()
        driver.flush()

    def _keep_loop(self) -> None:
        loop = self._loop("keeper")
        while self._flusher.is_alive():
            loop.beat()
            self._deliveries.extend()
            self._report()
            self._flusher.join(KEEP_S)
        self._report()

    def _report(self) -> None:
        level = self._buffer.level
        self._observer.record_level(level.depth, level.bytes, age_s(level.oldest) if level.oldest else 0.0)
        self.progress.journal.tick(held=level.depth, oldest_us=level.oldest or None)


def analytics_loop(
    name: str, job: Job, clients: AnalyticsClients, progress: Progress, stop: StopSignal
) -> Loop:
    """A loop of an analytics worker; all of its loops report together what they cannot reach."""
    return Loop(
        name=name,
        target=job.replica,
        progress=progress,
        stop=stop,
        telemetry=clients.telemetry,
        retries=ANALYTICS_RETRIES,
        reporter=BUFFER,
    )
