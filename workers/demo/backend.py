"""What the demo runs on: a fleet that replicates, on emulators or in memory."""

from collections.abc import Hashable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from replication.configuration.parse import Fleet
from workers.demo.meters import Meters
from workers.demo.shop import Writer

REPLICAS = ("eu", "us", "apac")

Documents = Mapping[str, Mapping[str, Any]]
"""A database's documents by relative path, this system's own included.

Values are plain ones (`conflict.values`); a reference into the database itself begins with `~/`.
"""


class Running(Protocol):
    """A running fleet."""

    fleet: Fleet
    meters: Meters
    pause: float
    """Seconds between two writes of the shop at one replica."""
    quiet: float
    """Seconds without activity after which nothing is on its way any more."""

    def writer(self, replica: str) -> Writer:
        """An application's client of one replica."""
        ...

    def read(self, replica: str) -> Documents:
        """All documents of one replica."""
        ...

    def activity(self) -> Hashable | None:
        """Something that changes whenever a change is on its way; None while one certainly is."""
        ...

    def check(self) -> None:
        """Raise `FirefleetError` if a part of the fleet has failed."""
        ...


Backend = AbstractContextManager[Running]
"""A fleet that runs while inside."""
