"""The same tests for every backend: a fixture gives each its own database, topic and subscription."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from replication.adapters.firestore import open_database
from replication.adapters.memory import MemoryDatabase, MemoryTopic
from replication.adapters.pubsub import PubsubAdmin, open_publisher, open_subscription
from replication.fleet.model import Replica
from replication.ports import Database, Publisher, Subscription, SubscriptionSettings

TOPIC = "changes"
SUBSCRIPTION = "changes-eu"


@dataclass(frozen=True)
class Stream:
    """A topic's publisher, and a subscription that was there before anything was published."""

    publisher: Publisher
    subscription: Subscription


@pytest.fixture(params=["memory", pytest.param("emulator", marks=pytest.mark.emulator)])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database(backend: str, project: str, request: pytest.FixtureRequest) -> Iterator[Database]:
    opened: Database
    if backend == "memory":
        # A clock that stands still: what the contract says of times must not come from the clock.
        opened = MemoryDatabase(project, "app-eu", now=lambda: 1_800_000_000_000_000)
    else:
        host = request.getfixturevalue("firestore_emulator").host
        opened = open_database(
            Replica(id="eu", project=project, database="app-eu", location="europe-west1", emulator_host=host)
        )
    yield opened
    opened.close()


@pytest.fixture
def stream(backend: str, project: str, request: pytest.FixtureRequest) -> Iterator[Stream]:
    if backend == "memory":
        topic = MemoryTopic(now=lambda: time.time_ns() // 1000)
        opened = Stream(topic.publisher(), topic.subscription(SUBSCRIPTION, ack_deadline_s=10))
    else:
        host = request.getfixturevalue("pubsub_emulator").host
        _create(project, host)
        opened = Stream(
            open_publisher(project, TOPIC, emulator_host=host),
            open_subscription(project, SUBSCRIPTION, emulator_host=host),
        )
    yield opened
    opened.publisher.close()
    opened.subscription.close()


def _create(project: str, host: str) -> None:
    admin = PubsubAdmin(project, emulator_host=host)
    try:
        admin.ensure_topic(TOPIC)
        admin.ensure_subscription(SUBSCRIPTION, SubscriptionSettings(topic=TOPIC, ack_deadline=10))
    finally:
        admin.close()
