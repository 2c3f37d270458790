"""Turns the first Ctrl-C or SIGTERM into an event, for commands that finish something before they end."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; a second one does what it did before."""
    stop = threading.Event()
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def first(*_: object) -> None:
        stop.set()
        restore()

    for number in previous:
        signal.signal(number, first)
    try:
        yield stop
    finally:
        restore()
