"""A small receiver of OTLP metrics over HTTP (https://opentelemetry.io/docs/specs/otlp/#otlphttp).

Binary protobuf only, metrics only: what the workers of the demo send.
"""

import gzip
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from workers.runtime.serving import BodyTooLarge, ServerThread, read_body

PATH = "/v1/metrics"
PROTOBUF = "application/x-protobuf"
BODY_BYTES_MAX = 8 * 1024 * 1024


def build_app(take: Callable[[Any], None]) -> Starlette:
    """The receiver as an ASGI application; `take` gets each request, and must not block."""

    async def metrics(request: Request) -> Response:
        try:
            body = await read_body(request.receive, bytes_max=BODY_BYTES_MAX)
            if request.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            take(ExportMetricsServiceRequest.FromString(body))
        except BodyTooLarge as error:
            return Response(str(error), status_code=413)
        except (DecodeError, gzip.BadGzipFile, EOFError) as error:
            return Response(f"not an ExportMetricsServiceRequest: {error}", status_code=400)
        return Response(ExportMetricsServiceResponse().SerializeToString(), media_type=PROTOBUF)

    return Starlette(routes=[Route(PATH, metrics, methods=["POST"])])


class Receiver:
    """The receiver in a separate thread."""

    def __init__(self, take: Callable[[Any], None]) -> None:
        self._server = ServerThread(build_app(take), name="otlp", grace_s=1)

    def start(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        self._server.start()

    def stop(self) -> None:
        """Stop listening."""
        self._server.stop()

    def environment(self, *, interval_ms: int) -> dict[str, str]:
        """What makes a process send its metrics here, every `interval_ms`."""
        return {
            "OTEL_SDK_DISABLED": "false",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": self._server.url + PATH,
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf",
            "OTEL_METRIC_EXPORT_INTERVAL": str(interval_ms),
        }
