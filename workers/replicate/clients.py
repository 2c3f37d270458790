"""Open the real clients a worker needs: the only place that knows which adapter stands for which port."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from replication.adapters.firestore import open_database
from replication.adapters.otel import open_telemetry
from replication.adapters.pubsub import open_publisher, open_subscription
from replication.configuration.parse import Fleet
from workers.identity import version
from workers.replicate.driver import Clients


@contextmanager
def open_clients(fleet: Fleet, replica: str) -> Iterator[Clients]:
    """The clients of a replication worker for `replica`; closed, and metrics flushed, at the end."""
    host = fleet.pubsub_emulator_host
    with ExitStack() as stack:
        telemetry = open_telemetry(service="firefleet-replicate", version=version())
        stack.callback(telemetry.close)
        # Connections open with the first call, so a replica that is never read costs nothing.
        databases = {name: open_database(one) for name, one in fleet.replicas.items()}
        for database in databases.values():
            stack.callback(database.close)
        subscription = open_subscription(fleet.project, fleet.subscription(replica), emulator_host=host)
        stack.callback(subscription.close)
        changes = open_publisher(fleet.project, fleet.topic, emulator_host=host)
        stack.callback(changes.close)
        dead_letters = open_publisher(fleet.project, fleet.dead_letter_topic, emulator_host=host)
        stack.callback(dead_letters.close)
        yield Clients(databases, subscription, changes, dead_letters, telemetry)
