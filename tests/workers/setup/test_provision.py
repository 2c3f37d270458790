"""`firefleet provision`, against the official emulators."""

import http.server
import json
import queue
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from replication.adapters.firestore import open_database
from replication.adapters.pubsub_admin import PubsubAdmin
from replication.documents.wire import Document, Write
from replication.fleet.model import Replica
from replication.ports import SubscriptionSettings
from tests.support.polling import PATIENCE_S
from workers.cli import main
from workers.local.emulators import FirestoreEmulator, PubsubEmulator

pytestmark = pytest.mark.emulator

NAMES = [
    "changes",
    "changes-dead-letters",
    "changes-eu",
    "changes-us",
    "changes-dead-letters-all",
    "capture-eu",
    "capture-us",
]


@pytest.fixture
def config(
    tmp_path: Path, project: str, firestore_emulator: FirestoreEmulator, pubsub_emulator: PubsubEmulator
) -> Path:
    return write_config(tmp_path, project, firestore_emulator.host, pubsub_emulator.host)


def write_config(folder: Path, project: str, firestore_host: str, pubsub_host: str) -> Path:
    path = folder / "fleet.yaml"
    path.write_text(
        f"""\
project: {project}
topic: changes
pubsub_emulator_host: {pubsub_host}
replicas:
  eu: {{database: app-eu, location: europe-west1, emulator_host: "{firestore_host}"}}
  us: {{database: app-us, location: us-central1, emulator_host: "{firestore_host}"}}
collections:
  - {{match: "{{document=**}}", mode: multi-primary}}
"""
    )
    return path


@pytest.fixture
def admin(project: str, pubsub_emulator: PubsubEmulator) -> Iterator[PubsubAdmin]:
    with closing(PubsubAdmin(project, emulator_host=pubsub_emulator.host)) as opened:
        yield opened


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--config", str(config), "provision", *arguments])


def states(config: Path, *arguments: str) -> dict[str, str]:
    result = run(config, "--json", *arguments)
    return {each["name"]: each["state"] for each in json.loads(result.stdout)["resources"]}


def test_it_creates_what_is_missing_and_finds_it_the_second_time(config: Path, admin: PubsubAdmin) -> None:
    first = states(config)
    assert list(first) == NAMES
    assert [first[name] for name in NAMES] == ["created"] * 5 + ["registered"] * 2
    second = states(config)
    assert [second[name] for name in NAMES] == ["exists"] * 5 + ["registered"] * 2
    admin.delete_subscription("changes-us")
    assert [name for name, state in states(config).items() if state == "created"] == ["changes-us"]


def test_a_subscription_is_set_as_the_contract_says(config: Path, admin: PubsubAdmin) -> None:
    states(config)
    assert admin.describe("changes-us") == SubscriptionSettings(
        topic="changes",
        filter='(NOT attributes:to AND (NOT attributes.replica = "us" OR attributes.heal = "1"))'
        ' OR attributes.to = "us"',
        ack_deadline=60,
        retention=7 * 86_400,
        dead_letter_topic="changes-dead-letters",
        delivery_attempts=100,
    )
    dead = admin.describe("changes-dead-letters-all")
    assert dead is not None
    assert (dead.topic, dead.filter, dead.dead_letter_topic) == ("changes-dead-letters", "", None)


def test_a_dry_run_creates_nothing(config: Path, admin: PubsubAdmin) -> None:
    assert set(states(config, "--dry-run").values()) == {"missing"}
    assert not admin.has_topic("changes")
    states(config)
    assert [states(config, "--dry-run")[name] for name in NAMES[:5]] == ["exists"] * 5


def test_what_is_set_otherwise_is_reported_and_left_alone(config: Path, admin: PubsubAdmin) -> None:
    admin.ensure_topic("changes")
    other = SubscriptionSettings(topic="changes", filter='attributes.to = "eu"', ack_deadline=10)
    admin.ensure_subscription("changes-eu", other)
    result = run(config, "--json")
    found = {each["name"]: each for each in json.loads(result.stdout)["resources"]}
    assert result.exit_code == 1
    assert found["changes-eu"]["state"] == "differs"
    assert found["changes-eu"]["note"].startswith("filter, ack_deadline, dead_letter_topic:")
    assert admin.describe("changes-eu") == other


def test_the_table_fits_80_columns_when_piped(config: Path) -> None:
    result = run(config)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert all(name in result.stdout for name in ("changes-eu", "capture-us"))


def test_an_emulator_that_does_not_answer_is_named(
    tmp_path: Path, project: str, pubsub_emulator: PubsubEmulator
) -> None:
    config = write_config(tmp_path, project, "127.0.0.1:1", pubsub_emulator.host)
    result = run(config)
    assert result.exit_code == 1
    assert "the Firestore emulator of replica 'eu' at 127.0.0.1:1 does not answer" in result.stderr
    assert "Traceback" not in result.stderr


class Received(http.server.ThreadingHTTPServer):
    """Takes what an emulator's triggers send, and keeps the paths they were sent to."""

    def __init__(self) -> None:
        self.paths: queue.Queue[str] = queue.Queue()
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(http.server.BaseHTTPRequestHandler):
    server: Received

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.paths.put(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def receiver() -> Iterator[Received]:
    with Received() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_triggers_provisioned_twice_send_each_change_once(
    tmp_path: Path, project: str, pubsub_emulator: PubsubEmulator, receiver: Received
) -> None:
    address = f"127.0.0.1:{receiver.server_port}"
    with FirestoreEmulator.start(functions_emulator=address) as emulator:
        config = write_config(tmp_path, project, emulator.host, pubsub_emulator.host)
        assert run(config).exit_code == 0
        assert run(config).exit_code == 0
        for database in ("app-eu", "app-us"):
            write(emulator, project, database)
        # The emulator sends one at a time, in order: a double would come between the two.
        got = [receiver.paths.get(timeout=PATIENCE_S) for _ in range(2)]
    assert got == [f"/functions/projects/{project}/triggers/{name}" for name in ("capture-eu", "capture-us")]
    assert receiver.paths.empty()


def write(emulator: FirestoreEmulator, project: str, database: str) -> None:
    replica = Replica(id="x", project=project, database=database, location="x", emulator_host=emulator.host)
    with closing(open_database(replica)) as opened:
        opened.batch_write([Write(update=Document(name=f"{replica.prefix}orders/1"))], timeout=PATIENCE_S)
