"""The replication worker: pullers that take messages and apply them to one replica.

Each puller is a thread: pull, apply, acknowledge, again. The pull is the batch and the back-pressure: no
buffer, no lease threads, no locks around the work. Preconditions resolve races between pullers and workers.
"""

import threading
import time
from collections.abc import Iterator, Sequence

from replication import metrics
from replication.fleet.model import Target
from replication.ports import Received
from workers.replicate.clients import Clients
from workers.replicate.driver import Driver
from workers.runtime.clock import age_s
from workers.runtime.journal import Journal
from workers.runtime.loop import Loop
from workers.runtime.progress import Progress
from workers.runtime.stop import StopSignal

PULL_S = 2.0
"""An idle pull ends by then, so that a worker that stops need not abandon one."""
BATCH_BYTES_MAX = 8 * 1024 * 1024
"""A batch's messages, and about as much again for the documents read: what bounds a puller's memory."""
GAUGE_S = 5.0


class Worker:
    """The pullers of one process."""

    def __init__(self, target: Target, clients: Clients, *, threads: int, max_messages: int) -> None:
        self.progress = Progress(time.monotonic, Journal(time.monotonic))
        self._target = target
        self._clients = clients
        self._max_messages = max_messages
        self._stop = StopSignal()
        self._threads = [
            threading.Thread(target=self._pull_loop, args=(f"puller-{number}",), name=f"puller-{number}")
            for number in range(1, threads + 1)
        ]

    def start(self) -> None:
        """Start the pullers."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask the pullers to finish what they hold, and to pull no more."""
        self._stop.set()

    def join(self) -> None:
        """Wait until the pullers have ended, reporting gauges meanwhile."""
        for thread in self._threads:
            while thread.is_alive():
                thread.join(GAUGE_S)
                self._report()

    def _report(self) -> None:
        replica = self._target.replica.id
        oldest = self.progress.oldest_us
        self._clients.telemetry.gauge(metrics.INFLIGHT, self.progress.inflight, target=replica)
        # It keeps growing while nothing gets done, which a histogram of what was done cannot show.
        age = age_s(oldest) if oldest is not None else 0.0
        self._clients.telemetry.gauge(metrics.OLDEST_UNAPPLIED, age, target=replica)
        self.progress.tell()

    def _pull_loop(self, name: str) -> None:
        loop = Loop(
            name=name,
            target=self._target.replica.id,
            progress=self.progress,
            stop=self._stop,
            telemetry=self._clients.telemetry,
            retries=metrics.RETRIES,
            reporter=name,
        )
        driver = Driver(loop, self._target, self._clients)
        while not self._stop.is_set():
            loop.beat()
            self._apply(driver, loop.pull(self._clients.subscription, self._max_messages, timeout=PULL_S))

    def _apply(self, driver: Driver, pulled: Sequence[Received]) -> None:
        labels = {"target": self._target.replica.id}
        for batch in batches(pulled):
            began = time.monotonic()
            driver.run(batch)
            self._clients.telemetry.measure(metrics.BATCH_SIZE, len(batch), **labels)
            self._clients.telemetry.measure(metrics.APPLY_DURATION, time.monotonic() - began, **labels)


def batches(pulled: Sequence[Received]) -> Iterator[list[Received]]:
    """Cut what was pulled into batches of bounded size in bytes."""
    batch: list[Received] = []
    size = 0
    for received in pulled:
        if batch and size + len(received.message.data) > BATCH_BYTES_MAX:
            yield batch
            batch, size = [], 0
        batch.append(received)
        size += len(received.message.data)
    if batch:
        yield batch
