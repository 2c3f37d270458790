"""Run a worker as a process: signals, health checks, and its threads until they have ended."""

import gc
import logging
import signal
from typing import Protocol

from workers.runtime.health import HealthServer
from workers.runtime.progress import Progress

log = logging.getLogger(__name__)


class Worker(Protocol):
    """A worker of threads."""

    @property
    def progress(self) -> Progress:
        """For the health checks."""
        ...

    def start(self) -> None:
        """Start the threads."""
        ...

    def stop(self) -> None:
        """Ask the threads to finish what they hold, and to take no more."""
        ...

    def join(self) -> None:
        """Wait until the threads have ended."""
        ...


def run_worker(worker: Worker, *, health_port: int | None) -> None:
    """Run a worker until SIGTERM or SIGINT; returns when it has finished or released what it held.

    Serves its health at `health_port` (None: nowhere). Raises `ConfigError` when the port is taken.
    """
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
    worker.join()
    health.stop()
