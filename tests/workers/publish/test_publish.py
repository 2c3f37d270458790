"""`firefleet publish`: what it publishes is what a worker takes for real changes."""

import json
from concurrent.futures import Future
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from replication.adapters.memory import MemoryTopic
from replication.adapters.pubsub import PubsubAdmin, open_subscription
from replication.changes.decode import Change, decode
from replication.changes.envelope import Kind
from replication.configuration.ends import FIRESTORE_VARIABLE, PUBSUB_VARIABLE
from replication.documents.wire import Document
from replication.errors import ConfigError, Transient
from replication.fleet.model import Fleet, Mode, Replica, Rule
from replication.ports import Message, SubscriptionSettings
from tests.support.polling import eventually
from workers.cli import main
from workers.local.emulators import PubsubEmulator
from workers.publish.command import Load, require_consent, synthetic_messages
from workers.runtime.publishing import publish_stream

EU = Replica(id="eu", project="p", database="app-eu", location="europe-west1")
US = Replica(id="us", project="p", database="app-us", location="us-central1")
FLEET = Fleet(
    project="p",
    topic="changes",
    replicas={"eu": EU, "us": US},
    rules=(Rule(match="private/{id}", mode=Mode.LOCAL), Rule(match="{document=**}")),
)


def made(load: Load) -> list[Change]:
    now = count(1_700_000_000_000_000, 10)
    return [decode(one, FLEET) for one in synthetic_messages(FLEET, EU, load, now=lambda: next(now))]


def load(*, count: int = 100, size: int = 50, collection: str = "orders", deletes: float = 0.0) -> Load:
    return Load(count=count, size=size, collection=collection, deletes=deletes, seed=4)


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(0, 300), st.floats(0, 1))
def test_a_load_is_writes_of_new_documents_and_deletes_of_earlier_ones(
    number: int, size: int, deletes: float
) -> None:
    alive: set[str] = set()
    changes = made(load(count=number, size=size, deletes=deletes))
    assert len(changes) == number
    for change in changes:
        assert change.source == "eu"
        assert change.path.startswith("orders/")
        if change.kind is Kind.DELETE:
            alive.remove(change.path)
        else:
            assert change.path not in alive
            assert change.body is not None
            assert len(Document.FromString(change.body).fields["payload"].bytes_value) == size
            alive.add(change.path)


def test_commit_times_strictly_increase_even_where_the_clock_stands_still() -> None:
    messages = synthetic_messages(FLEET, EU, load(), now=lambda: 1_700_000_000_000_000)
    times = [decode(one, FLEET).commit_time for one in messages]
    assert times == sorted(set(times))


def test_every_percentage_of_deletes_up_to_all_but_the_first_can_be_had() -> None:
    kinds = [change.kind for change in made(load(deletes=1.0))]
    assert kinds == [Kind.WRITE, Kind.DELETE] * 50


def test_the_same_seed_publishes_the_same() -> None:
    assert made(load(deletes=0.2)) == made(load(deletes=0.2))


def test_a_local_collection_is_refused() -> None:
    with pytest.raises(ConfigError, match="private/4-00000000 never leaves"):
        made(load(collection="private"))


def test_all_are_confirmed_and_each_is_published_when_its_turn_comes() -> None:
    """At 4 a second, and a clock that only the waits move."""
    topic = MemoryTopic(now=lambda: 0)
    subscription = topic.subscription("s")
    told: list[int] = []
    clock = [100.0]
    at: list[float] = []

    class Timed:
        def submit(self, message: Message) -> "Future[str]":
            at.append(clock[0] - 100)
            return topic.publisher().submit(message)

        def close(self) -> None:
            pass

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    messages = [(Message(b"x"), number) for number in range(1, 6)]
    publish_stream(messages, [Timed()], rate=4, confirmed=told.append, now=lambda: clock[0], sleep=sleep)
    assert at == [0, 0.25, 0.5, 0.75, 1]
    assert told[-1] == 5
    assert subscription.backlog == 5


def test_a_failed_publish_is_raised() -> None:
    class Broken:
        def submit(self, message: Message) -> "Future[str]":
            failed: Future[str] = Future()
            failed.set_exception(Transient("Pub/Sub is away"))
            return failed

        def close(self) -> None: ...

    with pytest.raises(Transient, match="Pub/Sub is away"):
        publish_stream([(Message(b"x"), 1)], [Broken()], rate=0, confirmed=lambda _: None)


def test_a_collection_that_is_a_documents_path_is_a_mistake_of_the_command_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        main, ["--config", str(tmp_path / "none.yaml"), "publish", "--replica", "eu", "--collection", "a/b"]
    )
    assert result.exit_code == 2
    assert "--collection: 'a/b' is not a collection's path" in result.stderr


@pytest.mark.parametrize("options", [[], ["--analytics"]])
def test_a_fleet_in_the_cloud_is_refused_without_consent(options: list[str], tmp_path: Path) -> None:
    config = tmp_path / "fleet.yaml"
    config.write_text(
        "project: my-project\ntopic: changes\n"
        "replicas: {eu: {database: app-eu, location: europe-west1}}\n"
        'collections: [{match: "{document=**}", mode: multi-primary}]\n'
    )
    command = ["--config", str(config), "publish", "--replica", "eu", *options]
    result = CliRunner().invoke(main, command, env=dict.fromkeys((PUBSUB_VARIABLE, FIRESTORE_VARIABLE), ""))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "publish would send 1000 synthetic" in result.stderr
    assert "to project my-project" in result.stderr
    assert "Add --yes" in result.stderr


def test_consent_is_asked_of_a_fleet_in_the_cloud_alone() -> None:
    require_consent(FLEET, "1 document", given=True)
    require_consent(replace(FLEET, pubsub_emulator_host="127.0.0.1:1"), "1 document", given=False)


@pytest.mark.emulator
def test_the_command_publishes_to_the_topic_and_reports_in_json(
    pubsub_emulator: PubsubEmulator, project: str, tmp_path: Path
) -> None:
    config = tmp_path / "fleet.yaml"
    replicas = {
        name: {"database": f"app-{name}", "location": "europe-west1", "emulator_host": "127.0.0.1:1"}
        for name in ("eu", "us")
    }
    text = {
        "project": project,
        "topic": "changes",
        "pubsub_emulator_host": pubsub_emulator.host,
        "replicas": replicas,
        "collections": [{"match": "{document=**}", "mode": "multi-primary"}],
    }
    config.write_text(yaml.safe_dump(text))
    admin = PubsubAdmin(project, emulator_host=pubsub_emulator.host)
    admin.ensure_topic("changes")
    admin.ensure_subscription("all", SubscriptionSettings(topic="changes"))
    options = ["--count", "300", "--deletes", "10", "--json"]
    result = CliRunner().invoke(main, ["--config", str(config), "publish", "--replica", "eu", *options])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    subscription = open_subscription(project, "all", emulator_host=pubsub_emulator.host)
    kinds: dict[str, str] = {}

    def complete() -> bool:
        pulled = subscription.pull(1000, timeout=1)
        kinds.update({one.id: one.message.attributes["kind"] for one in pulled})
        subscription.acknowledge([one.ack_id for one in pulled])
        return len(kinds) >= 300

    eventually(complete)
    subscription.close()
    admin.close()
    assert report["published"] == len(kinds) == 300
    assert report["deletes"] == list(kinds.values()).count("delete") > 0
