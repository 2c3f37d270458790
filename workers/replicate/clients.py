"""The clients of a replication worker: the ports it uses, and the adapters that stand for them."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from replication.adapters.firestore import open_database
from replication.adapters.otel import open_telemetry
from replication.adapters.pubsub import open_publisher, open_subscription
from replication.fleet.model import Fleet
from replication.ports import Database, Publisher, Subscription, Telemetry
from workers.runtime.identity import version


@dataclass(frozen=True, slots=True)
class Clients:
    """The ports of one worker. `databases` has every replica's; only the target's is written."""

    databases: Mapping[str, Database]
    subscription: Subscription
    changes: Publisher
    dead_letters: Publisher
    telemetry: Telemetry


@contextmanager
def open_clients(fleet: Fleet, target: str) -> Iterator[Clients]:
    """The clients of a replication worker for the replica `target`; closed, and metrics flushed, at the end."""
    host = fleet.pubsub_emulator_host
    with ExitStack() as stack:
        telemetry = open_telemetry(service="firefleet-replicate", version=version())
        stack.callback(telemetry.close)
        # Connections open with the first call, so a replica that is never read costs nothing.
        databases = {name: open_database(replica) for name, replica in fleet.replicas.items()}
        for database in databases.values():
            stack.callback(database.close)
        subscription = open_subscription(fleet.project, fleet.subscription(target), emulator_host=host)
        stack.callback(subscription.close)
        changes = open_publisher(fleet.project, fleet.topic, emulator_host=host)
        stack.callback(changes.close)
        dead_letters = open_publisher(fleet.project, fleet.dead_letter_topic, emulator_host=host)
        stack.callback(dead_letters.close)
        yield Clients(databases, subscription, changes, dead_letters, telemetry)
