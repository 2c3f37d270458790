"""The clients of an analytics worker, and its part of the configuration."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from replication.adapters.firestore import open_database
from replication.adapters.otel import open_telemetry
from replication.adapters.pubsub import open_publisher, open_subscription
from replication.analytics.anonymise import Anonymiser
from replication.analytics.job import Job
from replication.analytics.schema import Schema
from replication.configuration.analytics import Warehouse, warehouse_key
from replication.configuration.parse import Configuration
from replication.errors import ConfigError
from replication.fleet.model import Fleet
from replication.ports import Database, Publisher, Subscription, Telemetry
from workers.config import ConfigFile
from workers.runtime.identity import version


@dataclass(frozen=True, slots=True)
class AnalyticsClients:
    """The ports of one worker; `warehouse` is None where no anonymised copy is wanted."""

    database: Database
    subscription: Subscription
    dead_letters: Publisher
    warehouse: Publisher | None
    telemetry: Telemetry


def plan_job(file: ConfigFile, configuration: Configuration, replica: str) -> Job:
    """What a worker of `replica` is to do; reads the pseudonyms' key."""
    fleet, settings = configuration.fleet, configuration.require_analytics(file.name)
    anonymiser = None
    if settings.warehouse is not None:
        anonymiser = Anonymiser(settings.warehouse, _key(file, settings.warehouse))
    return Job(
        replica=fleet.replica(replica).id,
        settings=settings,
        schema=Schema(settings, replica=replica, replicas=frozenset(fleet.replicas)),
        anonymiser=anonymiser,
        token=uuid.uuid4().hex[:12],
    )


def _key(file: ConfigFile, warehouse: Warehouse) -> bytes:
    try:
        return warehouse_key(
            warehouse,
            environment=file.environment,
            read_file=lambda name: (file.path.parent / name).read_bytes(),
        )
    except ConfigError as error:
        named = "key_env" if warehouse.key_env else "key_file"
        raise file.error([(("analytics", "warehouse", named), str(error))]) from error


@contextmanager
def open_clients(fleet: Fleet, job: Job) -> Iterator[AnalyticsClients]:
    """The clients of one worker; closed, and metrics flushed, at the end."""
    host, settings = fleet.pubsub_emulator_host, job.settings
    with ExitStack() as stack:
        telemetry = open_telemetry(service="firefleet-analytics", version=version())
        stack.callback(telemetry.close)
        database = open_database(fleet.replica(job.replica))
        stack.callback(database.close)
        subscription = open_subscription(fleet.project, settings.subscription(job.replica), emulator_host=host)
        stack.callback(subscription.close)
        dead_letters = open_publisher(fleet.project, settings.dead_letters, emulator_host=host)
        stack.callback(dead_letters.close)
        warehouse = None
        if settings.warehouse is not None:
            warehouse = open_publisher(fleet.project, settings.warehouse.topic, emulator_host=host)
            stack.callback(warehouse.close)
        yield AnalyticsClients(database, subscription, dead_letters, warehouse, telemetry)
