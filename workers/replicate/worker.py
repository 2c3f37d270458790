"""The replication worker: pullers that take messages and apply them to one replica.

Each puller is a thread: pull, apply, acknowledge, again. The pull is the batch and the back-pressure: no
buffer, no lease threads, no locks around the work. Preconditions settle races between pullers and workers.
"""

import gc
import logging
import signal
import threading
import time
from collections.abc import Iterator, Sequence

import click

from replication.apply.writes import Target
from replication.errors import Transient
from replication.ports import Received
from workers.config import ConfigFile
from workers.options import health_port_option, threads_option
from workers.replicate.clients import open_clients
from workers.replicate.driver import BACKOFF_S_MAX, BACKOFF_S_MIN, Clients, Driver, StopSignal, age_s
from workers.runtime.health import HealthServer
from workers.runtime.progress import Progress

log = logging.getLogger(__name__)

PULL_S = 2.0
"""An idle pull ends by then, so that a worker that stops need not abandon one."""
BATCH_BYTES_MAX = 8 * 1024 * 1024
"""A batch's messages, and about as much again for the documents read: what bounds a puller's memory."""
GAUGE_S = 5.0


class Worker:
    """The pullers of one process."""

    def __init__(self, target: Target, clients: Clients, *, threads: int, max_messages: int) -> None:
        self.progress = Progress(time.monotonic)
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
        self._clients.telemetry.gauge("firefleet.inflight", self.progress.inflight, target=replica)
        # It keeps growing while nothing gets done, which a histogram of what was done cannot show.
        age = age_s(oldest) if oldest is not None else 0.0
        self._clients.telemetry.gauge("firefleet.replication.oldest_unapplied", age, target=replica)

    def _pull_loop(self, name: str) -> None:
        driver = Driver(name, self._target, self._clients, self.progress, self._stop)
        failures = 0
        while not self._stop.is_set():
            self.progress.beat(name)
            try:
                pulled = self._clients.subscription.pull(self._max_messages, timeout=PULL_S)
            except Transient as error:
                failures += 1
                self.progress.trouble(name, "Pub/Sub", str(error))
                log.warning("cannot pull, attempt %d: %s", failures, error)
                self._stop.wait(min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2 ** min(failures, 10)))
                continue
            failures = 0
            self.progress.trouble(name, "Pub/Sub", None)
            self._apply(driver, pulled)

    def _apply(self, driver: Driver, pulled: Sequence[Received]) -> None:
        labels = {"target": self._target.replica.id}
        for batch in batches(pulled):
            began = time.monotonic()
            driver.run(batch)
            self._clients.telemetry.measure("firefleet.batch.size", len(batch), **labels)
            self._clients.telemetry.measure("firefleet.apply.duration", time.monotonic() - began, **labels)


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


@click.command("replicate")
@click.option("--replica", required=True, help="The replica to write to, by its id in the configuration.")
@health_port_option
@threads_option
@click.pass_obj
def command(file: ConfigFile, *, replica: str, health_port: int | None, threads: int | None) -> None:
    """Apply the other replicas' changes to one replica, until SIGTERM.

    Any number of workers may share a replica's subscription. On SIGTERM a worker finishes what it holds
    within 10 s, or releases it: nothing is lost.
    """
    fleet = file.load()
    target = Target(fleet, fleet.replica(replica))
    with open_clients(fleet, replica) as clients:
        worker = Worker(
            target,
            clients,
            threads=threads or fleet.pull.threads,
            max_messages=fleet.pull.max_messages,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stop())
        health = HealthServer(
            live={"loop": worker.progress.stuck},
            ready={"reachable": worker.progress.unreachable, "progress": worker.progress.stalled},
        )
        if health_port is not None:
            health.start(health_port)
            log.info("health at %s", health.url, extra={"url": health.url})
        # What is alive now stays alive: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        worker.start()
        log.info("replicating to %s from %s", replica, fleet.subscription(replica))
        worker.join()
        health.stop()
    log.info("stopped")
