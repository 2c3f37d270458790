"""How the cloud is set up for one fleet: the port through which `firefleet check` asks.

Read only. `replication.adapters.inspection` asks Google Cloud; tests have their own answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from replication.fleet.model import Replica
from replication.ports import SubscriptionSettings


@dataclass(frozen=True, slots=True)
class FoundSubscription:
    """A subscription as it is; `ordered` cannot be changed after its creation."""

    settings: SubscriptionSettings
    ordered: bool


class Cloud(Protocol):
    """What can be asked. Every call is bounded.

    Raises `CannotTell` where the backend has no answer, or not for these credentials; else any other
    `FirefleetError`.
    """

    def has_topic(self, topic: str) -> bool: ...
    def subscription(self, name: str) -> FoundSubscription | None: ...
    def read(self, replica: Replica, path: str) -> None: ...
    def location(self, replica: Replica) -> str: ...
    def collections(self, replica: Replica) -> list[str]: ...
    def indexed(self, replica: Replica, group: str, name: str) -> bool: ...
    def has_ttl(self, replica: Replica, group: str, name: str) -> bool: ...
    def lacking_in_project(self, project: str, permissions: Sequence[str]) -> list[str]: ...
    def lacking_on_topic(self, topic: str, permissions: Sequence[str]) -> list[str]: ...
    def lacking_on_subscription(self, name: str, permissions: Sequence[str]) -> list[str]: ...
