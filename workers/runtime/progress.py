"""What a worker knows about its progress, for its health checks and its gauges.

Watch progress and not threads: a puller that hangs in a call is alive to the operating system. So each puller
marks that it moves, and the worker as a whole that messages get done.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from workers.runtime.journal import Journal

HEARTBEAT_S_MAX = 90.0
"""Longer than any call's deadline and any back-off: a loop that is silent for this long is stuck."""
STALLED_S_MAX = 120.0
"""Messages held for this long without one being finished: two acknowledgement deadlines."""


@dataclass(slots=True)
class HeldMessages:
    """The messages one puller holds: how many, and when the oldest was published (µs)."""

    count: int = 0
    oldest_us: int = 0


@dataclass(slots=True)
class Progress:
    """Shared by a worker's threads. `now` gives monotonic seconds; `journal` writes it to the log."""

    now: Callable[[], float]
    journal: Journal = field(default_factory=lambda: Journal(time.monotonic))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _beats: dict[str, float] = field(default_factory=dict)
    _held: dict[str, HeldMessages] = field(default_factory=dict)
    _troubles: dict[tuple[str, str], str] = field(default_factory=dict)
    _moved: float = 0.0

    def beat(self, puller: str) -> None:
        """The puller's loop moves."""
        self._beats[puller] = self.now()

    def hold(self, puller: str, count: int, oldest_us: int) -> None:
        """The puller holds messages now; 0 when it is done with them."""
        with self._lock:
            if count and not self.inflight:
                self._moved = self.now()
            self._held[puller] = HeldMessages(count, oldest_us)

    def finished(self, puller: str, count: int) -> None:
        """So many messages of the puller are acknowledged."""
        with self._lock:
            self._moved = self.now()
            self._held[puller].count -= count

    def trouble(self, puller: str, what: str, problem: str | None) -> None:
        """`what` cannot be reached from the puller, or (None) can again."""
        if problem is not None:
            with self._lock:
                self._troubles[puller, what] = problem
            self.journal.failed(what, problem, held=self.inflight)
        elif (puller, what) in self._troubles:  # asked without the lock, since nearly every call succeeds
            with self._lock:
                self._troubles.pop((puller, what), None)
                over = all(end != what for _, end in self._troubles)
            if over:
                self.journal.reached(what, held=self.inflight)

    def troubled(self, puller: str) -> bool:
        """Whether something cannot be reached from the puller."""
        with self._lock:
            return any(name == puller for name, _ in self._troubles)

    def tell(self) -> None:
        """Write the log lines that are due; call it every few seconds."""
        self.journal.tick(held=self.inflight, oldest_us=self.oldest_us)

    @property
    def inflight(self) -> int:
        """Messages held by all pullers."""
        return sum(held.count for held in self._held.values())

    @property
    def oldest_us(self) -> int | None:
        """When the oldest message held was published, in microseconds; None when none is held."""
        return min((held.oldest_us for held in list(self._held.values()) if held.count > 0), default=None)

    def stuck(self) -> str | None:
        """For `/live`: a puller whose loop has stopped moving."""
        now = self.now()
        for puller, beat in list(self._beats.items()):
            if now - beat > HEARTBEAT_S_MAX:
                return f"{puller} has not moved for {now - beat:.0f} s: restart the worker"
        return None

    def unreachable(self) -> str | None:
        """For `/ready`: a database or Pub/Sub that cannot be reached."""
        with self._lock:
            return next(iter(self._troubles.values()), None)

    def stalled(self) -> str | None:
        """For `/ready`: messages arrive and none gets done."""
        with self._lock:
            waited = self.now() - self._moved
            if self.inflight and waited > STALLED_S_MAX:
                return f"{self.inflight} messages held and none finished for {waited:.0f} s"
        return None
