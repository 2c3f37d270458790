"""How a worker is asked to stop, and what it may still do then."""

import threading
import time

DRAIN_S_MAX = 7.0
"""What work in progress may still take after SIGTERM: Cloud Run kills after 10 s."""


class Stopping(Exception):
    """The worker has to stop before this work is done; what is not acknowledged is released."""


class StopSignal:
    """Set once, by SIGTERM; says how long work in progress may still take."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._at = 0.0

    def set(self) -> None:
        """Stop: begin no new work, and finish what is in progress within `DRAIN_S_MAX`."""
        self._at = time.monotonic()
        self._event.set()

    def is_set(self) -> bool:
        """Whether to stop."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep, but not past the signal; whether it came."""
        return self._event.wait(seconds)

    @property
    def left(self) -> float:
        """Seconds that work in progress still has."""
        return self._at + DRAIN_S_MAX - time.monotonic() if self.is_set() else float("inf")

    def within(self, seconds: float) -> float:
        """A deadline for a call: `seconds`, or less if a stopping worker has less left. Raises `Stopping`."""
        left = min(seconds, self.left)
        if left <= 0:
            raise Stopping
        return left
