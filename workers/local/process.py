"""One child process that can be killed, paused and started again, and never outlives this one.

Its process group holds a small shell that reads a pipe from this process and kills the group at the pipe's
end, which comes with any death of this process, `kill -9` included.
"""

import contextlib
import http.client
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from workers.local.emulators import LEASH, StartFailed

_READY_SECONDS = 120.0
"""A machine with other work is many times slower."""
_STOP_SECONDS = 12.0
"""Longer than the 10 s in which every process of this project ends after SIGTERM."""
_POLL_SECONDS = 0.02
_LOG_TAIL_BYTES = 4_000


class Process:
    """A running program with a health check over HTTP; a context manager that stops it.

    `health` is the URL that answers 200 once it is ready. What it prints, standard error included, is one
    log over all restarts.
    """

    def __init__(
        self, name: str, command: Sequence[str], *, health: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.health = health
        self._command = tuple(command)
        self._environment = dict(environment or {})
        # Without a name, so that nothing is left on the disk however this process ends.
        self._log = tempfile.TemporaryFile("ab+")  # noqa: SIM115 - closed by close()
        try:
            self._process = self._spawn()
        except BaseException:
            self._log.close()
            raise

    @property
    def pid(self) -> int:
        """The program's own process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it is there (it may be paused, or not ready yet)."""
        return self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """Its exit code, minus the signal that ended it; None while it runs."""
        return self._process.poll()

    @property
    def url(self) -> str:
        """`http://host:port` of its health check."""
        parts = urlsplit(self.health)
        return f"{parts.scheme}://{parts.netloc}"

    def ready(self, *, timeout: float = _READY_SECONDS) -> Self:
        """Wait until its health check answers 200; `StartFailed`, with its log, if it does not in time."""
        deadline = time.monotonic() + timeout
        while self.get(urlsplit(self.health).path)[0] != http.client.OK:
            if not self.running or time.monotonic() > deadline:
                what = "is not ready" if self.running else f"ended with status {self.returncode}"
                raise StartFailed(f"{self.name} {what}; its log ends:\n{self.log_text()[-_LOG_TAIL_BYTES:]}")
            time.sleep(_POLL_SECONDS)
        return self

    def get(self, path: str, *, timeout: float = 10.0) -> tuple[int, bytes]:
        """GET a path of it: status and body; status 0 if no one answers."""
        return self._request("GET", path, timeout)

    def post(self, path: str, *, timeout: float = 10.0) -> int:
        """POST nothing to a path of it; the answer's status, 0 if no one answers."""
        return self._request("POST", path, timeout)[0]

    def log_text(self) -> str:
        """Everything it has printed, over all restarts."""
        # pread, because the file's offset is shared with the process that writes it.
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def kill(self) -> None:
        """Kill it with SIGKILL, and wait until it is gone; again does nothing."""
        if self.running:
            os.kill(self._process.pid, signal.SIGKILL)
        self._reap()

    def terminate(self, *, timeout: float = _STOP_SECONDS) -> int:
        """Ask it to end with SIGTERM and wait; its exit code. `subprocess.TimeoutExpired` if it does not."""
        if self.running:
            os.kill(self._process.pid, signal.SIGTERM)
            self._process.wait(timeout)
        self._reap()
        return self._process.returncode

    def pause(self) -> None:
        """Freeze it with SIGSTOP: its connections stay open and nothing answers."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        os.kill(self._process.pid, signal.SIGCONT)

    def restart(self, *, timeout: float = _READY_SECONDS) -> None:
        """Start it again, on the same port, and wait until it is ready; killed first if it still runs."""
        self.kill()
        self._process = self._spawn()
        self.ready(timeout=timeout)

    def close(self) -> None:
        """Kill it and forget its log; again does nothing."""
        if not self._log.closed:
            self.kill()
            self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _spawn(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(  # noqa: S603 - a program of ours
            ["/bin/sh", "-c", LEASH, "sh", *self._command],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            process_group=0,
            env={**os.environ, **self._environment},
        )

    def _reap(self) -> None:
        self._process.wait(_STOP_SECONDS)
        if self._process.stdin:
            # The end of the leash: what is left of the group goes too.
            self._process.stdin.close()

    def _request(self, method: str, path: str, timeout: float) -> tuple[int, bytes]:
        parts = urlsplit(self.health)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
        with contextlib.closing(connection):
            try:
                connection.request(method, path)
                answer = connection.getresponse()
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException):
                return 0, b""
