"""How much of the machine was this test's own: what makes a promise in seconds testable beside other work.

A promise holds for a machine that does nothing else. Where others take CPU meanwhile, the time that counts is
the time times the share that was left. Linux only; elsewhere all of the time counts.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")


class OwnTime:
    """Measures from its construction on."""

    def __init__(self) -> None:
        self._began = _sample()

    def seconds(self) -> float:
        """Seconds since the start, as if the machine had been this process' and its descendants' alone."""
        now = _sample()
        wall = now.wall - self._began.wall
        others = (now.busy - self._began.busy) - (now.own - self._began.own)
        share = 1 - others / (wall * (os.cpu_count() or 1))
        return wall * min(1.0, max(0.05, share))

    @property
    def wall(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began.wall


@dataclass(frozen=True, slots=True)
class _Sample:
    wall: float
    busy: float
    own: float


def _sample() -> _Sample:
    return _Sample(time.monotonic(), _busy(), _own())


def _busy() -> float:
    """CPU seconds that the machine has worked, for anybody."""
    try:
        user, nice, system, _idle, _waiting, *rest = (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0
    # Of the rest: interrupts and what a hypervisor took. What guests took is in `user` already.
    return sum(map(int, (user, nice, system, *rest[:3]))) / _TICKS


def _own() -> float:
    """CPU seconds of this process, its descendants, and those of them that have ended."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for entry in _PROC.glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        process = int(entry.parent.name)
        parents[process] = int(fields[1])
        used[process] = sum(map(int, fields[11:15])) / _TICKS
    return sum(seconds for process, seconds in used.items() if _descends(process, parents))


def _descends(process: int, parents: dict[int, int]) -> bool:
    while process > 1:
        if process == os.getpid():
            return True
        process = parents.get(process, 0)
    return False
