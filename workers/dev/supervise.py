"""Keeps the processes of a local fleet running: starts a dead one again, and shows the end of its log.

Capture, the stand-in and the workers keep nothing, so a new one continues where the last one stopped. A dead
emulator has lost its documents, and ends the fleet; so does a process that dies again and again.
"""

from collections import deque
from collections.abc import Callable

from replication.errors import FirefleetError
from workers.local.fleet import LocalFleet
from workers.local.process import Process

RESTARTS_MAX = 3
RESTARTS_S = 60.0
_LOG_LINES = 12


class Supervisor:
    """Watches one fleet. `say` gets a line for each restart; `now` gives seconds."""

    def __init__(self, fleet: LocalFleet, *, say: Callable[[str], None], now: Callable[[], float]) -> None:
        self._fleet = fleet
        self._say = say
        self._now = now
        self._restarts: dict[str, deque[float]] = {}

    def look(self) -> None:
        """Start again what has ended; raises `FirefleetError` if that does not help."""
        for emulator in {self._fleet.pubsub, *self._fleet.emulators.values()}:
            if not emulator.running:
                raise FirefleetError(
                    f"the {emulator.product} emulator on {emulator.host} ended, and its documents are gone; "
                    f"its log ends:\n{_end(emulator.log_tail())}\nStart `firefleet dev` again."
                )
        for process in self._fleet.processes:
            if not process.running:
                self._restart(process)

    def _restart(self, process: Process) -> None:
        text = (
            f"{process.name} ended with status {process.returncode}; its log ends:\n{_end(process.log_text())}"
        )
        recent = self._restarts.setdefault(process.name, deque(maxlen=RESTARTS_MAX))
        if len(recent) == RESTARTS_MAX and self._now() - recent[0] < RESTARTS_S:
            raise FirefleetError(f"{text}\nIt was started {RESTARTS_MAX} times within a minute: giving up.")
        recent.append(self._now())
        self._say(text)
        process.restart()
        self._say(f"{process.name} runs again")


def _end(log: str) -> str:
    return "\n".join(f"  {line}" for line in log.splitlines()[-_LOG_LINES:])
