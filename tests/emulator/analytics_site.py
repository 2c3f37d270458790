"""One region's analytics on the emulators: topics, worker processes, an OTLP receiver, and what is stored."""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import yaml
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from replication.adapters.firestore_listing import FirestoreListing
from replication.adapters.pubsub import PubsubAdmin, open_subscription
from replication.analytics.reader import read_events
from replication.configuration.analytics import Analytics
from replication.ports import Received, SubscriptionSettings
from tests.support.polling import PATIENCE_S
from workers.config import ConfigFile
from workers.local.emulators import free_port
from workers.local.fleet import emulator_client
from workers.local.process import Process
from workers.publish.analytics import publish_analytics
from workers.publish.generator import Mix

FIREFLEET = Path(sys.executable).with_name("firefleet")
KEY = "an analytics key for these tests"

TYPES: dict[str, Any] = {
    "swipe": {
        "payload": {"target": "string", "session": "string", "ip": "string"},
        "key": ["user", "target", "session"],
        "window": "24h",
        "ttl": "90d",
    },
    "page_view": {"payload": {"page": "string", "millis": "integer", "device": "object"}, "ttl": "30d"},
}


class Metrics:
    """An OTLP receiver over HTTP: the latest value of each counter and gauge of each process, by type."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[tuple[str, str, str], float] = {}
        self._highest: dict[tuple[str, str], float] = {}
        handler = type("Handler", (_Handler,), {"take": staticmethod(self._take)})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        }

    def total(self, name: str, **labels: str) -> int:
        """A counter over all processes, of the series that have these labels."""
        wanted = labels.items()
        with self._lock:
            return int(
                sum(
                    value
                    for (_, metric, series), value in self._latest.items()
                    if metric == f"firefleet.analytics.{name}" and wanted <= json.loads(series).items()
                )
            )

    def highest(self, name: str) -> float:
        """The highest value of a gauge that any process has reported."""
        with self._lock:
            return max(
                (value for (_, metric), value in self._highest.items() if metric.endswith(name)), default=0.0
            )

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _take(self, request: ExportMetricsServiceRequest) -> None:
        with self._lock:
            for resource in request.resource_metrics:
                attributes = {one.key: one.value.string_value for one in resource.resource.attributes}
                instance = attributes["service.instance.id"]
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        self._keep(instance, metric)

    def _keep(self, instance: str, metric: Any) -> None:
        for point in (*metric.sum.data_points, *metric.gauge.data_points):
            value = point.as_int or point.as_double
            labels = {one.key: one.value.string_value for one in point.attributes}
            self._latest[instance, metric.name, json.dumps(labels, sort_keys=True)] = value
            highest = self._highest.get((instance, metric.name), 0.0)
            self._highest[instance, metric.name] = max(highest, value)


class _Handler(BaseHTTPRequestHandler):
    take: Callable[[ExportMetricsServiceRequest], None]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        type(self).take(ExportMetricsServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Nothing on the terminal."""


@dataclass
class Site:
    """A configuration, its topics and its workers; a context manager that stops all it started."""

    folder: Path
    project: str
    firestore_host: str
    pubsub_host: str
    section: Mapping[str, Any]
    stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / "fleet.yaml"
        self.path.write_text(yaml.safe_dump(self._config()))
        self.file = ConfigFile(self.path, {"ANALYTICS_KEY": KEY})
        configuration = self.file.load_all()
        self.fleet = configuration.fleet
        self.settings: Analytics = configuration.require_analytics(self.file.name)
        self.metrics = Metrics()
        self.stack.callback(self.metrics.close)
        try:
            self._provision()
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def _config(self) -> dict[str, Any]:
        return {
            "project": self.project,
            "topic": "changes",
            "pubsub_emulator_host": self.pubsub_host,
            "replicas": {
                "eu": {
                    "database": f"eu-{self.folder.name}"[:60],
                    "location": "europe-west1",
                    "emulator_host": self.firestore_host,
                }
            },
            "collections": [{"match": "{document=**}", "mode": "local"}],
            "analytics": {"types": TYPES, **self.section},
        }

    def _provision(self) -> None:
        given = self.settings
        with closing(PubsubAdmin(self.project, emulator_host=self.pubsub_host)) as admin:
            topics = {given.topic: given.subscription("eu"), given.dead_letters: given.dead_letter_subscription}
            if given.warehouse is not None:
                topics[given.warehouse.topic] = f"{given.warehouse.topic}-all"
            for topic, name in topics.items():
                admin.ensure_topic(topic)
                deadline = given.ack_deadline_s if topic == given.topic else 600
                admin.ensure_subscription(name, SubscriptionSettings(topic=topic, ack_deadline=deadline))

    def worker(self, *arguments: str) -> Process:
        """A worker process, ready."""
        port = free_port()
        command = [str(FIREFLEET), "--config", str(self.path), "analytics", "run", "--replica", "eu"]
        process = Process(
            "analytics",
            [*command, "--health-port", str(port), *arguments],
            health=f"http://127.0.0.1:{port}/ready",
            environment={**self.metrics.environment, "ANALYTICS_KEY": KEY},
        )
        self.stack.callback(process.close)
        return process.ready()

    def publish(self, count: int, *, publishers: int, rate: float | None = None) -> list[dict[str, Any]]:
        """Publish generated events; their manifest."""
        path = self.folder / f"manifest-{time.monotonic_ns()}.jsonl"
        publish_analytics(
            self.file,
            replica="eu",
            count=count,
            rate=rate,
            seed=time.monotonic_ns(),
            publishers=publishers,
            mix=Mix(),
            manifest=path,
        )
        return [json.loads(line) for line in path.read_bytes().splitlines()]

    def documents(self) -> list[Any]:
        """All documents stored, with the times of their writing."""
        with closing(FirestoreListing(self.fleet.replica("eu"))) as listing:
            return list(listing.documents(self.settings.collection, equal={}))

    def distinct(self) -> int:
        """How many distinct events are stored now."""
        if self.settings.layout == "per-event":
            collection = emulator_client(self.fleet.replica("eu")).collection(self.settings.collection)
            [[result]] = collection.count().get()  # type: ignore[no-untyped-call]
            return int(result.value)
        return sum(1 for _ in read_events(self.documents()))

    def read(self, *arguments: str) -> list[dict[str, Any]]:
        """What `firefleet analytics read` prints."""
        command = [str(FIREFLEET), "--config", str(self.path), "analytics", "read", "--replica", "eu"]
        done = subprocess.run([*command, *arguments], capture_output=True, timeout=PATIENCE_S, check=False)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        return [json.loads(line) for line in done.stdout.splitlines()]

    def take(self, subscription: str) -> Iterator[Received]:
        """All messages there are on a subscription now, acknowledged as they are taken."""
        opened = open_subscription(self.project, subscription, emulator_host=self.pubsub_host)
        with closing(opened):
            while pulled := opened.pull(1_000, timeout=1.0):
                yield from pulled
                opened.acknowledge([one.ack_id for one in pulled])


def token_of(process: Process) -> str:
    """The name by which a worker signs what it writes, from its log."""
    found = [json.loads(line).get("worker") for line in process.log_text().splitlines() if line[:1] == "{"]
    return str(next(filter(None, found)))


def batch_of(document: Any) -> tuple[str, int]:
    """The worker that wrote a document, and which of its flushes."""
    token, number = document.fields["batch"].string_value.split("-")
    return token, int(number)


def groups_of(manifest: list[dict[str, Any]]) -> dict[str, str]:
    """The group of each valid event's id."""
    return {line["id"]: line["group"] for line in manifest if line["valid"]}


def valid_messages(manifest: list[dict[str, Any]]) -> Counter[str]:
    """How many messages of each group of valid events were published."""
    return Counter(line["group"] for line in manifest if line["valid"])
