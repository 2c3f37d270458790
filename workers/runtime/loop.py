"""One loop of a worker: it shows that it moves, calls out, backs off, and gives up when the worker stops."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from replication.errors import FirefleetError, Transient
from replication.ports import Received, Subscription, Telemetry
from workers.runtime.backoff import jittered_s, level_of, longest_s
from workers.runtime.progress import Progress
from workers.runtime.stop import Stopping, StopSignal

T = TypeVar("T")

PUBSUB = "Pub/Sub"
"""Pub/Sub's name where a worker reports what it cannot reach."""

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Loop:
    """A loop named `name` of a worker for the replica `target`.

    `retries` is the metric that counts its repetitions. `reporter` is the name under which it reports what it
    cannot reach: loops with one reporter overrule one another.
    """

    name: str
    target: str
    progress: Progress
    stop: StopSignal
    telemetry: Telemetry
    retries: str
    reporter: str
    _failures: int = field(default=0, init=False)

    def beat(self) -> None:
        """Show that the loop moves."""
        self.progress.beat(self.name)

    def reach(self, what: str, call: Callable[[], T]) -> T:
        """Make a call, and remember whether its other end could be reached. Raises what the call raises."""
        try:
            answer = call()
        except Transient as error:
            self.progress.trouble(self.reporter, what, str(error))
            raise
        except FirefleetError:
            # It was reached, and has answered.
            self.progress.trouble(self.reporter, what, None)
            raise
        self.progress.trouble(self.reporter, what, None)
        return answer

    def pull(self, subscription: Subscription, limit: int, *, timeout: float) -> list[Received]:
        """Pull once; a failure is backed off from, longer each time, and nothing is returned."""
        try:
            pulled = self.reach(PUBSUB, lambda: subscription.pull(limit, timeout=timeout))
        except Transient:
            self._failures += 1
            self.stop.wait(longest_s(self._failures))
            return []
        self._failures = 0
        return pulled

    def pause(self, attempt: int, cause: str, *, holding: int) -> None:
        """Wait before the next attempt, longer each time; raises `Stopping` if the worker has to stop."""
        if self.stop.is_set():
            raise Stopping
        log.log(self._level(attempt), "holding %d messages, attempt %d: %s", holding, attempt, cause)
        self.telemetry.count(self.retries, target=self.target)
        if self.stop.wait(jittered_s(attempt)):
            raise Stopping

    def _level(self, attempt: int) -> int:
        """The journal reports what cannot be reached, once for all loops."""
        return logging.DEBUG if self.progress.troubled(self.reporter) else level_of(attempt)
