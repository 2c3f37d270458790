"""What the demo runs on: a fleet that replicates, on emulators or in memory."""

from collections.abc import Hashable
from contextlib import AbstractContextManager
from typing import Protocol

from replication.documents.plain import Documents
from replication.fleet.model import Fleet
from workers.demo.shop import Writer
from workers.local.meters import Meters

REPLICAS = ("eu", "us", "apac")


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
        """Something that changes whenever a change is in flight; None while one certainly is."""
        ...

    def check(self) -> None:
        """Raise `FirefleetError` if a part of the fleet has failed."""
        ...


Backend = AbstractContextManager[Running]
"""A fleet that runs while inside."""
