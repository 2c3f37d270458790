"""Waiting for something to become true: generously, because a test judges the product and not the machine.

No test asserts how long anything took. What is promised about time is measured by the benchmark (`make bench`)
and by the soak (`make soak`).
"""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 180.0
"""The longest wait for anything that needs less than half a minute on a quiet machine: six times as long.

Also the time limit of every call in a test whose answer is what is tested.
"""
REDELIVERY_PATIENCE_S = 480.0
"""The same for what Pub/Sub delivers again: what a killed worker held waits a minute for its deadline, and the
emulator may be some seconds late."""


def eventually(predicate: Callable[[], T], timeout: float = PATIENCE_S, *, every: float = 0.02) -> T:
    """Call `predicate` until it returns something true, and return that; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        # The deadline is read first: the predicate is tried once more after the last wait.
        late = time.monotonic() >= deadline
        value = predicate()
        if value:
            return value
        if late:
            raise AssertionError(f"still {value!r} after {timeout} s")
        time.sleep(every)
