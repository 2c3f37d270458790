"""The wall clock, in the units messages use."""

import time

from replication.documents.wire import MICROS


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def age_s(published_us: int) -> float:
    """How long ago a message was published, in seconds; never negative."""
    return max(0.0, (now_us() - published_us) / MICROS)
