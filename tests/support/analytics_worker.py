"""An analytics worker without threads: the test pulls, flushes, and has its clock."""

import threading
import time
from collections.abc import Callable, Sequence

from replication.analytics.job import Job
from replication.ports import Received
from workers.analytics.clients import AnalyticsClients
from workers.analytics.driver import AnalyticsDriver
from workers.analytics.guarded import GuardedBuffer
from workers.analytics.worker import BUFFER, analytics_loop
from workers.runtime.deliveries import Deliveries
from workers.runtime.progress import Progress
from workers.runtime.stop import StopSignal


class Impatient(StopSignal):
    """Waits no real time: `waited` is told how long it would have, and says whether the signal came."""

    def __init__(self, waited: Callable[[float], bool] | None = None) -> None:
        super().__init__()
        self._waited = waited or (lambda _: self.is_set())

    def wait(self, seconds: float) -> bool:
        return self._waited(seconds)


class HandWorker:
    """The parts of one worker, in the test's thread."""

    def __init__(
        self,
        job: Job,
        clients: AnalyticsClients,
        stop: StopSignal,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clients = clients
        self.stop = stop
        self.now = now
        self.progress = Progress(now)
        self.buffer = GuardedBuffer(job.settings, now=now)
        self.deliveries = Deliveries(
            BUFFER, clients.subscription, self.progress, deadline_s=job.settings.ack_deadline_s, now=now
        )
        loop = analytics_loop(threading.current_thread().name, job, clients, self.progress, stop)
        self.loop = loop
        self.driver = AnalyticsDriver(loop, job, clients, self.buffer, self.deliveries)

    def take(self, pulled: Sequence[Received]) -> None:
        self.driver.take(pulled)

    def flush(self) -> None:
        self.driver.flush()
