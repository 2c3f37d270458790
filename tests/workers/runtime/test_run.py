"""A worker as a process: it serves its health, is told of signals, and is waited for."""

import gc
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from urllib.error import URLError

import pytest

from replication.errors import ConfigError
from workers.runtime.progress import Progress
from workers.runtime.run import run_worker
from workers.runtime.serving import listen


class Worker:
    """Works until it is stopped; `log` has what was asked of it."""

    def __init__(self, started: Callable[[], None] = lambda: None) -> None:
        self._started = started
        self.progress = Progress(time.monotonic)
        self.stopped = threading.Event()
        self.log: list[str] = []

    def start(self) -> None:
        self.log.append("start")
        self._started()

    def stop(self) -> None:
        self.log.append("stop")
        self.stopped.set()

    def join(self) -> None:
        # With a timeout, because Python runs signal handlers only between waits.
        while not self.stopped.wait(0.05):
            pass
        self.log.append("join")


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    gc.unfreeze()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_worker_and_its_end_is_waited_for(number: signal.Signals) -> None:
    worker = Worker(lambda: signal.raise_signal(number))
    run_worker(worker, health_port=None)
    assert worker.log == ["start", "stop", "join"]


def test_health_is_served_while_it_runs_and_not_afterwards() -> None:
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/live"
    statuses: list[int] = []

    def look() -> None:
        with urllib.request.urlopen(url, timeout=10) as answer:
            statuses.append(answer.status)
        worker.stop()

    worker = Worker(look)
    run_worker(worker, health_port=port)
    assert statuses == [200]
    with pytest.raises(URLError):
        urllib.request.urlopen(url, timeout=10)


def test_a_taken_port_is_an_error_before_the_worker_starts() -> None:
    worker = Worker()
    with listen("0.0.0.0", 0) as taken, pytest.raises(ConfigError, match="--health-port"):
        run_worker(worker, health_port=taken.getsockname()[1])
    assert worker.log == []
