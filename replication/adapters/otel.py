"""OpenTelemetry metrics as `Telemetry`, exported over OTLP (https://opentelemetry.io/docs/specs/otlp).

Where to and how is read from the standard variables (OTEL_EXPORTER_OTLP_ENDPOINT, …_PROTOCOL, …_HEADERS,
OTEL_METRIC_EXPORT_INTERVAL, OTEL_RESOURCE_ATTRIBUTES, OTEL_SDK_DISABLED); without an endpoint nothing is sent.
Histograms have explicit buckets chosen around the targets (lag 1 s, 5 s, 10 s, 30 s), so that the share of
changes within a target is exact, not interpolated. No global provider is set.
"""

import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpExporter
from opentelemetry.metrics import Counter, Histogram, Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from replication.errors import ConfigError
from replication.metrics import CLAMPED, METRICS, Metric
from replication.ports import Telemetry

T = TypeVar("T")

log = logging.getLogger("firefleet.telemetry")

SECONDS_BUCKETS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0),
    *(60.0, 120.0, 300.0),
)
SIZE_BUCKETS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
"""For histograms that count things; 500 is a pull's default limit."""

_CLOSE_SECONDS = 5.0
_CLOSE_SECONDS_DEAD = 0.5
"""For an endpoint where nothing listens: the exporters would go on trying, and the process is to end."""


class OtelTelemetry(Telemetry):
    """Metrics through one OpenTelemetry provider, which it owns; any number of threads may share it.

    A call takes about 7 µs: count a batch once, with its amount, rather than each of its changes.
    """

    def __init__(self, provider: MeterProvider, *, endpoint: str = "") -> None:
        self._provider = provider
        self._endpoint = endpoint
        self._meter: Meter = provider.get_meter("firefleet")
        self._lock = threading.Lock()
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}
        # The API names its gauge's class differently from release to release, and privately.
        self._gauges: dict[str, Any] = {}

    def count(self, name: str, amount: int = 1, /, **labels: str) -> None:
        """See `Telemetry.count`."""
        counter = self._counters.get(name) or self._made(self._counters, name, self._counter)
        counter.add(amount, labels)

    def measure(self, name: str, value: float, /, **labels: str) -> None:
        """See `Telemetry.measure`; a negative value counts as 0 and in `firefleet.clamped`."""
        # The SDK drops negative values without a word; NaN, which nothing compares to, would spoil the sum.
        if not value >= 0:
            self.count(CLAMPED, metric=name)
            value = 0.0
        histogram = self._histograms.get(name) or self._made(self._histograms, name, self._histogram)
        histogram.record(value, labels)

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        """See `Telemetry.gauge`; exported only for the intervals in which it was set."""
        gauge = self._gauges.get(name) or self._made(self._gauges, name, self._gauge)
        gauge.set(value, labels)

    def close(self, *, timeout: float = _CLOSE_SECONDS) -> None:
        """Send what has been measured and end, within about `timeout` seconds; what cannot go is logged.

        Takes about a second if nothing listens at the endpoint.
        """
        if self._endpoint and not _listens(self._endpoint):
            timeout = min(timeout, _CLOSE_SECONDS_DEAD)
        # On a separate thread, because an exporter may exceed its timeout: while it waits for its connection.
        closing = threading.Thread(target=self._shutdown, args=(timeout,), daemon=True, name="telemetry-close")
        closing.start()
        closing.join(timeout)
        if closing.is_alive():
            log.warning("The last metrics were not sent within %s s; is the OTLP endpoint reachable?", timeout)

    def _made(self, made: dict[str, T], name: str, make: Callable[[Metric], T]) -> T:
        """The instrument of this name, made once whichever thread asks first."""
        with self._lock:
            if name not in made:
                made[name] = make(METRICS[name])
            return made[name]

    def _counter(self, metric: Metric) -> Counter:
        return self._meter.create_counter(metric.name, unit=metric.unit, description=metric.text)

    def _gauge(self, metric: Metric) -> Any:
        return self._meter.create_gauge(metric.name, unit=metric.unit, description=metric.text)

    def _histogram(self, metric: Metric) -> Histogram:
        return self._meter.create_histogram(
            metric.name,
            unit=metric.unit,
            description=metric.text,
            explicit_bucket_boundaries_advisory=SECONDS_BUCKETS if metric.unit == "s" else SIZE_BUCKETS,
        )

    def _shutdown(self, timeout: float) -> None:
        try:
            self._provider.shutdown(timeout_millis=timeout * 1000)
        except Exception:  # the SDK raises bare Exceptions; metrics must not fail the work they measure
            log.warning("The last metrics were not sent", exc_info=True)


def open_telemetry(*, service: str, version: str = "") -> OtelTelemetry:
    """Telemetry of this process under the name `service` (OTEL_SERVICE_NAME overrides it), of a `version`.

    Raises `ConfigError` if a variable asks for a protocol that has no exporter.
    """
    try:
        exporter = _exporter(os.environ)
    except ValueError as error:  # an invalid number, in one of the variables that the exporters read themselves
        raise ConfigError(f"the OTEL_EXPORTER_OTLP_… variables: {error}; correct or remove them") from error
    # Two workers of one service must not write the same series: each process is an instance.
    attributes = {"service.instance.id": str(uuid.uuid4())}
    if not os.environ.get("OTEL_SERVICE_NAME"):
        attributes["service.name"] = service
    if version:
        attributes["service.version"] = version
    provider = MeterProvider(
        metric_readers=[PeriodicExportingMetricReader(exporter)] if exporter else [],
        resource=Resource.create(attributes),
        shutdown_on_exit=False,
    )
    return OtelTelemetry(provider, endpoint=_endpoint(os.environ) if exporter else "")


def _endpoint(environment: Mapping[str, str]) -> str:
    names = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return _first(environment, *names) or ""


def _listens(endpoint: str) -> bool:
    """Whether a connection to an endpoint (a URL, or host:port) can be opened just now."""
    try:
        parts = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=_CLOSE_SECONDS_DEAD).close()
    except (OSError, ValueError):
        return False
    return True


def _exporter(environment: Mapping[str, str]) -> MetricExporter | None:
    """The exporter that the standard variables ask for, or None; it reads the other variables itself."""
    disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if disabled or environment.get("OTEL_METRICS_EXPORTER") == "none":
        return None
    if not _endpoint(environment):
        return None
    protocol = _first(environment, "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    match protocol or "http/protobuf":
        case "http/protobuf":
            return HttpExporter()
        case "grpc":
            return GrpcExporter()
        case unknown:
            raise ConfigError(
                f"OTEL_EXPORTER_OTLP_PROTOCOL: {unknown!r} is not supported; use http/protobuf or grpc"
            )


def _first(environment: Mapping[str, str], *names: str) -> str | None:
    return next((environment[name] for name in names if environment.get(name)), None)
