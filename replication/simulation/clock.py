"""The virtual time of a simulated world."""

from collections.abc import Callable


class Clock:
    """Microseconds since 1970, as everyone in the world agrees on them. Moves forward, on request."""

    def __init__(self, start_us: int) -> None:
        self.now = start_us

    def read(self) -> int:
        """The time."""
        return self.now

    def advance(self, us: int) -> None:
        """Let `us` microseconds pass."""
        self.now += us

    def skewed(self, skew_us: int) -> Callable[[], int]:
        """The time as a replica sees it whose clock is wrong by `skew_us`."""
        return lambda: self.now + skew_us
