"""A finding: one thing that was looked at, how bad it is, and the commands that fix it."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is; `unknown` is what cannot be asked here."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `remedy` holds the commands that fix it.

    `cause` is the same for findings that one thing explains, such as an emulator that is down.
    """

    level: Level
    subject: str
    text: str
    remedy: tuple[str, ...] = ()
    cause: str = ""
