"""How long to wait before trying again: exponential, with a bound."""

import logging
import random

BACKOFF_S_MIN, BACKOFF_S_MAX = 0.05, 5.0


def longest_s(attempt: int) -> float:
    """The longest wait after the `attempt`-th failure in a row, in seconds."""
    return min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2.0 ** min(attempt, 10))


def jittered_s(attempt: int) -> float:
    """A random wait between half of the longest and the longest, so that workers do not retry in step."""
    longest = longest_s(attempt)
    return random.uniform(longest / 2, longest)  # noqa: S311  jitter, not a secret


def level_of(attempt: int) -> int:
    """The log level of the `attempt`-th failure in a row: an outage of hours must not fill the log."""
    return logging.WARNING if attempt in (10, 30) or attempt % 60 == 0 else logging.DEBUG
