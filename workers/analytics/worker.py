"""The threads of one analytics worker.

    pullers   pull while the buffer has room, and offer what came
    flusher   flushes on the beat, or when enough is held; its requests run on a few writer threads
    keeper    extends the deadlines of what is held, and reports gauges

A puller at the bound does not pull: that is the back-pressure, Pub/Sub keeps the rest.
"""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from replication.documents.wire import MICROS
from replication.errors import Transient
from workers.analytics.flush import Flusher
from workers.analytics.intake import Intake
from workers.analytics.shared import FLUSHER, WRITER, Clients, Job, Shared
from workers.replicate.driver import BACKOFF_S_MAX, BACKOFF_S_MIN, StopSignal
from workers.runtime.progress import Progress

log = logging.getLogger(__name__)

PULL_S = 1.0
"""An idle pull ends by then: a worker that stops must not wait long for one."""
WRITERS = 4
"""Requests at once: one takes 0.1 s or more in production, and 10,000 events a second are 20 of them."""
TURN_S = 0.2
"""The longest a thread waits for the buffer without looking whether to stop."""
KEEP_S = 1.0


class Worker:
    """The threads of one process."""

    def __init__(self, job: Job, clients: Clients, *, threads: int, max_messages: int) -> None:
        self._stop = StopSignal()
        self._shared = Shared(job, clients, self._stop)
        self._intake = Intake(self._shared)
        self._max_messages = max_messages
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix=WRITER)
        self._flusher = Flusher(self._shared, spread=self._writers.map)
        self._pullers = [
            threading.Thread(target=self._pull_loop, name=f"puller-{number}")
            for number in range(1, threads + 1)
        ]
        self._flushing = threading.Thread(target=self._flush_loop, name=FLUSHER)
        self._keeper = threading.Thread(target=self._keep_loop, name="keeper")

    @property
    def progress(self) -> Progress:
        """For the health checks."""
        return self._shared.progress

    def start(self) -> None:
        """Start the threads."""
        for thread in (*self._pullers, self._flushing, self._keeper):
            thread.start()

    def stop(self) -> None:
        """Ask the worker to flush what it holds, and to pull no more."""
        self._stop.set()

    def join(self) -> None:
        """Wait until the threads have ended."""
        for thread in (*self._pullers, self._flushing, self._keeper):
            # With a timeout, because Python runs signal handlers only between waits.
            while thread.is_alive():
                thread.join(TURN_S)
        self._writers.shutdown()

    def _pull_loop(self) -> None:
        shared, failures = self._shared, 0
        while not self._stop.is_set():
            shared.beat()
            with shared.changed:
                places = shared.buffer.reserve(self._max_messages)
                if not places:
                    shared.changed.wait(TURN_S)
                    continue
            try:
                failures = self._pull(places, failures)
            finally:
                with shared.changed:
                    shared.buffer.unreserve(places)

    def _pull(self, places: int, failures: int) -> int:
        """Pull once; the number of failures in a row."""
        try:
            pulled = self._shared.reach(
                "Pub/Sub", lambda: self._shared.clients.subscription.pull(places, timeout=PULL_S)
            )
        except Transient:
            self._stop.wait(min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2 ** min(failures, 10)))
            return failures + 1
        if pulled:
            self._intake.take(pulled)
        return 0

    def _flush_loop(self) -> None:
        shared = self._shared
        while not self._stop.is_set():
            shared.beat()
            with shared.changed:
                seconds = shared.buffer.wait(shared.now())
                if seconds > 0:
                    shared.changed.wait(min(seconds, TURN_S))
                    continue
            self._flusher.flush()
        with shared.changed:
            shared.buffer.close()
        self._flusher.flush()

    def _keep_loop(self) -> None:
        while self._flushing.is_alive():
            self._shared.beat()
            self._shared.extend()
            self._report()
            self._flushing.join(KEEP_S)
        self._report()

    def _report(self) -> None:
        shared, labels = self._shared, {"target": self._shared.job.replica}
        with shared.changed:
            depth, size, oldest = shared.buffer.depth, shared.buffer.bytes, shared.buffer.oldest
        age = time.time() - oldest / MICROS if oldest else 0.0
        telemetry = shared.clients.telemetry
        telemetry.gauge("firefleet.analytics.buffer.depth", depth, **labels)
        telemetry.gauge("firefleet.analytics.buffer.bytes", size, **labels)
        telemetry.gauge("firefleet.analytics.buffer.oldest", max(0.0, age), **labels)
        shared.progress.journal.tick(held=depth, oldest_us=oldest or None)
