"""Metrics arrive at an OTLP receiver as they were named and measured, and never disturb the work."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.sdk.metrics import MeterProvider

from replication.adapters.otel import SECONDS_BUCKETS, SIZE_BUCKETS, OtelTelemetry, open_telemetry
from replication.errors import ConfigError
from tests.support.polling import PATIENCE_S
from workers.local.emulators import free_port


class Receiver(BaseHTTPRequestHandler):
    """An OTLP receiver over HTTP that keeps what it is sent."""

    requests: list[ExportMetricsServiceRequest]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.path == "/v1/metrics"
        self.requests.append(ExportMetricsServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Nothing on the terminal."""


@contextmanager
def http_receiver(requests: list[ExportMetricsServiceRequest]) -> Iterator[str]:
    handler = type("Handler", (Receiver,), {"requests": requests})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def grpc_receiver(requests: list[ExportMetricsServiceRequest]) -> Iterator[str]:
    def export(request: Any, _: grpc.ServicerContext) -> Any:
        requests.append(request)
        return ExportMetricsServiceResponse()

    handler = grpc.unary_unary_rpc_method_handler(
        export,
        request_deserializer=ExportMetricsServiceRequest.FromString,
        response_serializer=ExportMetricsServiceResponse.SerializeToString,
    )
    service = "opentelemetry.proto.collector.metrics.v1.MetricsService"
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.stop(grace=None).wait()


@pytest.fixture(autouse=True)
def _no_variables_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


def metrics(requests: list[ExportMetricsServiceRequest]) -> dict[str, Any]:
    return {
        metric.name: metric
        for request in requests
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def attributes(point: Any) -> dict[str, str]:
    return {one.key: one.value.string_value for one in point.attributes}


@pytest.mark.parametrize(("protocol", "receiver"), [("http/protobuf", http_receiver), ("grpc", grpc_receiver)])
def test_names_attributes_values_and_buckets_arrive_when_it_is_closed(
    protocol: str, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[ExportMetricsServiceRequest] = []
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    with receiver(requests) as endpoint:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        telemetry = open_telemetry(service="firefleet-replicate", version="1.2.3")
        telemetry.count("firefleet.changes", outcome="applied", source="eu")
        telemetry.count("firefleet.changes", 2, outcome="applied", source="eu")
        telemetry.measure("firefleet.replication.lag", 1.5, source="eu", target="us")
        telemetry.measure("firefleet.batch.size", 500, target="us")
        telemetry.gauge("firefleet.inflight", 7, target="us")
        telemetry.gauge("firefleet.inflight", 3, target="us")
        telemetry.close()
    found = metrics(requests)
    (changes,) = found["firefleet.changes"].sum.data_points
    assert (changes.as_int, attributes(changes)) == (3, {"outcome": "applied", "source": "eu"})
    assert found["firefleet.replication.lag"].unit == "s"
    (lag,) = found["firefleet.replication.lag"].histogram.data_points
    assert (tuple(lag.explicit_bounds), lag.sum, lag.count) == (SECONDS_BUCKETS, 1.5, 1)
    assert attributes(lag) == {"source": "eu", "target": "us"}
    (size,) = found["firefleet.batch.size"].histogram.data_points
    assert (tuple(size.explicit_bounds), size.sum) == (SIZE_BUCKETS, 500)
    (inflight,) = found["firefleet.inflight"].gauge.data_points
    assert (inflight.as_int or inflight.as_double) == 3
    resource = {one.key: one.value.string_value for one in requests[0].resource_metrics[0].resource.attributes}
    assert resource["service.name"] == "firefleet-replicate"
    assert resource["service.version"] == "1.2.3"
    assert resource["service.instance.id"]


@pytest.mark.parametrize("target", [1.0, 5.0, 10.0, 30.0, 60.0])
def test_every_lag_target_and_alert_threshold_is_a_bucket_bound(target: float) -> None:
    assert target in SECONDS_BUCKETS
    assert sorted(SECONDS_BUCKETS) == list(SECONDS_BUCKETS)


def test_a_value_below_zero_or_nan_counts_as_zero_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[ExportMetricsServiceRequest] = []
    with http_receiver(requests) as endpoint:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        telemetry = open_telemetry(service="test")
        for value in (-0.001, float("nan"), 0.0, 2.0):
            telemetry.measure("firefleet.replication.lag", value)
        telemetry.close()
    found = metrics(requests)
    (lag,) = found["firefleet.replication.lag"].histogram.data_points
    assert (lag.count, lag.sum, lag.bucket_counts[0]) == (4, 2.0, 3)
    (clamped,) = found["firefleet.clamped"].sum.data_points
    assert (clamped.as_int, attributes(clamped)) == (2, {"metric": "firefleet.replication.lag"})


def test_threads_share_one_instrument_and_no_value_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[ExportMetricsServiceRequest] = []
    with http_receiver(requests) as endpoint:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        telemetry = open_telemetry(service="test")
        start = threading.Barrier(4)

        def work(_: int) -> None:
            start.wait()
            for _ in range(250):
                telemetry.count("firefleet.changes", outcome="applied")

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        telemetry.close()
    (changes,) = metrics(requests)["firefleet.changes"].sum.data_points
    assert changes.as_int == 1_000


def test_without_an_endpoint_it_works_and_sends_nothing() -> None:
    telemetry = open_telemetry(service="test")
    telemetry.count("firefleet.changes")
    telemetry.measure("firefleet.replication.lag", 1)
    telemetry.gauge("firefleet.inflight", 1)
    telemetry.close()


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_an_endpoint_that_is_away_does_not_keep_a_process_from_ending(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporter would try for an hour."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    telemetry = open_telemetry(service="test")
    telemetry.count("firefleet.changes")
    closing = threading.Thread(target=lambda: telemetry.close(timeout=0.5), daemon=True)
    closing.start()
    closing.join(PATIENCE_S)
    assert not closing.is_alive()


class Provider(MeterProvider):
    """Notes how long it was given to send the last metrics."""

    def __init__(self) -> None:
        super().__init__(shutdown_on_exit=False)
        self.given: list[float] = []

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        self.given.append(timeout_millis)


def test_an_endpoint_where_nothing_listens_is_not_waited_for() -> None:
    provider = Provider()
    with http_receiver([]) as endpoint:
        OtelTelemetry(provider, endpoint=endpoint).close(timeout=60)
    dead = f"127.0.0.1:{free_port()}"
    for endpoint in (f"http://{dead}", dead, "http://nonexistent.invalid", "http://:x", "http://"):
        OtelTelemetry(provider, endpoint=endpoint).close(timeout=60)
    assert provider.given == [60_000, *[500] * 5]


def test_a_variable_that_is_no_number_is_an_error_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")
    with pytest.raises(ConfigError, match=r"OTEL_EXPORTER_OTLP_… variables: .*'soon'; correct or remove them"):
        open_telemetry(service="test")


def test_a_protocol_without_an_exporter_is_an_error_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    with pytest.raises(
        ConfigError, match=r"OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json'.*use http/protobuf or grpc"
    ):
        open_telemetry(service="test")


@pytest.mark.parametrize(
    ("variable", "value"), [("OTEL_SDK_DISABLED", "true"), ("OTEL_METRICS_EXPORTER", "none")]
)
def test_the_standard_switches_turn_it_off(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[ExportMetricsServiceRequest] = []
    with http_receiver(requests) as endpoint:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv(variable, value)
        telemetry = open_telemetry(service="test")
        telemetry.count("firefleet.changes")
        telemetry.close()
    assert requests == []
