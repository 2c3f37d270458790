"""A whole fleet on this machine: emulators, the stand-in for Eventarc, capture and workers, all real processes.

    application ─> Firestore emulators ─triggers─> stand-in ─> capture ─> Pub/Sub emulator ─> replicate …

The demo, `firefleet dev` and the end-to-end tests share it. Every port is on 127.0.0.1, everything is kept in
memory and the configuration's folder, and no process outlives this one.
"""

import contextlib
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import yaml
from google.auth.credentials import AnonymousCredentials
from google.cloud import firestore

from replication.adapters.pubsub import open_subscription
from replication.adapters.pubsub_admin import PubsubAdmin
from replication.configuration.resources import subscriptions, topics
from replication.fleet.model import Fleet, Replica
from replication.ports import Received, Subscription, SubscriptionSettings
from workers.config import ConfigFile
from workers.local.emulators import HEAP_GB, FirestoreEmulator, PubsubEmulator, free_port
from workers.local.eventarc import Delivery
from workers.local.process import Process
from workers.runtime.triggers import register_trigger

PROJECT = "firefleet-local"
TOPIC = "changes"
EVERYTHING: Sequence[Mapping[str, Any]] = ({"match": "{document=**}", "mode": "multi-primary"},)
"""The rules that replicate every document, last write wins."""

_LOCATIONS = {"eu": "europe-west1", "us": "us-central1", "apac": "asia-south1"}
_MAIN = "from workers.cli import main; main(prog_name='firefleet')"
_TAKE_MAX = 1_000
_TAKES_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a local fleet consists of.

    `emulators` is one Firestore process for `each` replica, or `one` for all. `settings` are more keys of the
    configuration file, `secret` is written to its `secret_file`. `delivery` is how the stand-in delivers;
    `direct_triggers` leaves it out. `workers` is the number per replica, 0 for none. `environment` is added
    to that of capture and the workers. `via` maps a replica and its emulator's address to the one that the
    processes are given, of a proxy; clients of `LocalFleet.client` go straight to the emulator. `heap_gb` is
    the most memory of each emulator.

    `config` is a whole configuration to run instead of the one that `replicas`, `collections`, `settings` and
    `secret` describe; its databases are put on the emulators. It is written to `config_path`, by default in a
    temporary folder. `analytics` adds a worker of analytics events for each replica. `port` gives the port of
    each process by name (`firestore`, `pubsub`, `capture`, `eventarc`, `replicate-eu-1`, `analytics-eu`).
    """

    replicas: Sequence[str] = tuple(_LOCATIONS)
    emulators: Literal["each", "one"] = "each"
    collections: Sequence[Mapping[str, Any]] = EVERYTHING
    settings: Mapping[str, Any] = field(default_factory=dict)
    secret: str | None = None
    delivery: Delivery = field(default_factory=Delivery)
    direct_triggers: bool = False
    workers: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    via: Callable[[str, str], str] = lambda _replica, host: host
    heap_gb: int = HEAP_GB
    config: Mapping[str, Any] | None = None
    config_path: Path | None = None
    analytics: bool = False
    port: Callable[[str], int] = lambda _name: free_port()


class TopicReader:
    """A separate subscription to one topic: sees all that is published after it was made."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._received: dict[str, Received] = {}

    def messages(self) -> list[Received]:
        """All messages so far, in the order they were first received; each once, however often delivered."""
        for _ in range(_TAKES_MAX):
            pulled = self._subscription.pull(_TAKE_MAX, timeout=0.1)
            if not pulled:
                break
            for one in pulled:
                self._received.setdefault(one.id, one)
            self._subscription.acknowledge([one.ack_id for one in pulled])
        return list(self._received.values())


class LocalFleet:
    """The running fleet: a context manager. Attributes exist once it is entered.

    `workers` has each replica's processes; `stand_in` is None with direct triggers. A process of the fleet is
    killed, paused and restarted through its `Process`, an emulator through its `Emulator`.
    """

    fleet: Fleet
    config_path: Path
    pubsub: PubsubEmulator
    emulators: Mapping[str, FirestoreEmulator]
    capture: Process
    stand_in: Process | None

    def __init__(
        self, layout: Layout | None = None, /, *, log: Callable[[str], None] = lambda _: None, **options: Any
    ) -> None:
        """`options` are `Layout`'s, if no layout is given; `log` gets a line for each step of the start."""
        self.layout = layout or Layout(**options)
        self.workers: dict[str, list[Process]] = {replica: [] for replica in self.layout.replicas}
        self.analytics: list[Process] = []
        self._log = log
        self._stack = ExitStack()
        self._readers = 0

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            # Stops what has been started if the rest does not start.
            starting.callback(self._stack.close)
            self._start()
            starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def client(self, replica: str) -> firestore.Client:
        """A new official client of a replica's emulator; no environment variable is needed or changed."""
        direct = self.emulators[replica].host
        return emulator_client(dataclasses.replace(self.fleet.replica(replica), emulator_host=direct))

    def start_worker(self, replica: str) -> Process:
        """Start one more worker of a replica, and return when it is ready."""
        return self.launch_worker(replica).ready()

    def launch_worker(self, replica: str) -> Process:
        """Start one more worker of a replica without waiting for it."""
        name = f"replicate-{replica}-{len(self.workers[replica]) + 1}"
        port = self.layout.port(name)
        command = self.command("replicate", "--replica", replica, "--health-port", str(port))
        worker = self._process(name, command, health=f"http://127.0.0.1:{port}/ready")
        self.workers[replica].append(worker)
        return worker

    @property
    def processes(self) -> list[Process]:
        """Every process but the emulators."""
        workers = [one for some in self.workers.values() for one in some]
        first = [self.capture] if self.stand_in is None else [self.stand_in, self.capture]
        return [*first, *workers, *self.analytics]

    def _launch_analytics(self, replica: str) -> None:
        name = f"analytics-{replica}"
        port = self.layout.port(name)
        command = self.command("analytics", "run", "--replica", replica, "--health-port", str(port))
        self.analytics.append(self._process(name, command, health=f"http://127.0.0.1:{port}/ready"))

    def command(self, *arguments: str) -> list[str]:
        """The command line of one of `firefleet`'s commands with this fleet's configuration."""
        return [sys.executable, "-c", _MAIN, "--config", str(self.config_path), *arguments]

    def read_topic(self, topic: str | None = None) -> TopicReader:
        """Read a topic, by default the changes', from now on."""
        self._readers += 1
        name = f"reader-{self._readers}"
        with self._admin() as admin:
            admin.ensure_subscription(name, SubscriptionSettings(topic=topic or self.fleet.topic))
        return self._reader(name)

    def dead_letters(self) -> list[Received]:
        """All dead letters so far."""
        return self._dead_letters.messages()

    def undelivered(self) -> int:
        """How many events wait in the stand-in for capture to take them; 0 with direct triggers."""
        return int(self.stand_in_stats().get("waiting", 0))

    def stand_in_stats(self) -> dict[str, Any]:
        """The stand-in's counters (`workers.local.eventarc.Stats`); empty with direct triggers."""
        if self.stand_in is None:
            return {}
        status, body = self.stand_in.get("/stats")
        return dict(json.loads(body)) if status == 200 else {}

    def register_triggers(self) -> None:
        """Have every replica's emulator send its events."""
        for replica in self.fleet.replicas.values():
            register_trigger(replica, self.emulators[replica.id].host)

    def _start(self) -> None:
        capture_port, stand_in_port = self.layout.port("capture"), self.layout.port("eventarc")
        triggers_port = capture_port if self.layout.direct_triggers else stand_in_port
        self._log("starting the emulators of Firestore and Pub/Sub")
        self._launch_emulators(f"127.0.0.1:{triggers_port}")
        self.config_path = self.layout.config_path or self._temporary_folder() / "fleet.yaml"
        self._write_config()
        self._configuration = ConfigFile(self.config_path, environment={}).load_all()
        self.fleet = self._configuration.fleet
        self._launch_capture(capture_port, stand_in_port)
        self.pubsub.ready()
        self._provision()
        self._log("starting capture and the workers")
        for replica in self.layout.replicas:
            for _ in range(self.layout.workers):
                self.launch_worker(replica)
            if self.layout.analytics:
                self._launch_analytics(replica)
        for emulator in self.emulators.values():
            emulator.ready()
        self.register_triggers()
        for process in self.processes:
            process.ready()

    def _temporary_folder(self) -> Path:
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="firefleet-")))

    def _launch_emulators(self, functions_emulator: str) -> None:
        port, heap_gb = self.layout.port, self.layout.heap_gb
        self.pubsub = self._stack.enter_context(PubsubEmulator.launch(port=port("pubsub"), heap_gb=heap_gb))

        def launch() -> FirestoreEmulator:
            emulator = FirestoreEmulator.launch(
                port=port("firestore"), functions_emulator=functions_emulator, heap_gb=heap_gb
            )
            return self._stack.enter_context(emulator)

        if self.layout.emulators == "one":
            self.emulators = dict.fromkeys(self.layout.replicas, launch())
        else:
            self.emulators = {replica: launch() for replica in self.layout.replicas}

    def _launch_capture(self, capture_port: int, stand_in_port: int) -> None:
        url = f"http://127.0.0.1:{capture_port}"
        self.capture = self._process(
            "capture",
            self.command("capture", "--host", "127.0.0.1", "--port", str(capture_port)),
            health=f"{url}/ready",
        )
        self.stand_in = None
        if not self.layout.direct_triggers:
            command = [sys.executable, "-m", "workers.local.eventarc", *_delivery_options(self.layout.delivery)]
            self.stand_in = self._process(
                "eventarc",
                [*command, "--capture", url, "--port", str(stand_in_port)],
                health=f"http://127.0.0.1:{stand_in_port}/stats",
            )

    def _provision(self) -> None:
        with self._admin() as admin:
            for topic in topics(self._configuration):
                admin.ensure_topic(topic)
            for name, settings in subscriptions(self._configuration).items():
                admin.ensure_subscription(name, settings)
        self._dead_letters = self._reader(self.fleet.dead_letter_subscription)

    def _reader(self, subscription: str) -> TopicReader:
        opened = open_subscription(self.fleet.project, subscription, emulator_host=self.pubsub.host)
        self._stack.callback(opened.close)
        return TopicReader(opened)

    @contextlib.contextmanager
    def _admin(self) -> Iterator[PubsubAdmin]:
        with contextlib.closing(PubsubAdmin(self.fleet.project, emulator_host=self.pubsub.host)) as admin:
            yield admin

    def _process(self, name: str, command: Sequence[str], *, health: str) -> Process:
        process = Process(name, command, health=health, environment=self.layout.environment)
        return self._stack.enter_context(process)

    def _write_config(self) -> None:
        config = dict(self.layout.config or self._described())
        config["pubsub_emulator_host"] = self.pubsub.host
        config["replicas"] = {
            replica: {**keys, "emulator_host": self.layout.via(replica, self.emulators[replica].host)}
            for replica, keys in config["replicas"].items()
        }
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        self.config_path.write_text(text, encoding="utf-8")

    def _described(self) -> dict[str, Any]:
        """The configuration that the layout describes; writes the secret."""
        config = {
            "project": PROJECT,
            "topic": TOPIC,
            "replicas": {
                replica: {"database": f"app-{replica}", "location": _LOCATIONS.get(replica, "europe-west1")}
                for replica in self.layout.replicas
            },
            "collections": [dict(rule) for rule in self.layout.collections],
            **self.layout.settings,
        }
        if self.layout.secret is not None:
            self.config_path.with_name("secret").write_text(self.layout.secret, encoding="utf-8")
            config["secret_file"] = "secret"  # noqa: S105 - the name of the file
        return config


def _delivery_options(delivery: Delivery) -> list[str]:
    options = {
        "--in-flight": delivery.in_flight_max,
        "--retry-for": delivery.retry_for,
        "--shuffle": delivery.shuffle,
        "--duplicate": delivery.duplicate,
        "--seed": delivery.seed,
    }
    flags = ["--drop-none"] if delivery.drop_none else []
    return [*flags, *(text for name, value in options.items() for text in (name, str(value)))]


def emulator_client(replica: Replica) -> firestore.Client:
    """The official client of a replica that is on an emulator."""
    client = firestore.Client(
        project=replica.project,
        database=replica.database,
        credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
    )
    # The library takes it from FIRESTORE_EMULATOR_HOST alone: one address for a whole process.
    client._emulator_host = replica.emulator_host
    return client
