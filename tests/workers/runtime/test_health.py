"""Health over HTTP: what a probe sees of the checks, and that the server leaves nothing behind."""

import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Any
from urllib.parse import urlsplit

import pytest

from replication.errors import ConfigError
from tests.support.polling import PATIENCE_S
from workers.runtime.health import HealthServer

Serve = Callable[..., HealthServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    started: list[HealthServer] = []

    def start(
        *,
        live: Mapping[str, Callable[[], str | None]] | None = None,
        ready: Mapping[str, Callable[[], str | None]] | None = None,
    ) -> HealthServer:
        server = HealthServer(live=live or {}, ready=ready or {})
        started.append(server)
        server.start(0, host="127.0.0.1")
        return server

    yield start
    for server in started:
        server.stop()


def probe(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_all_checks_fine_is_200(serve: Serve) -> None:
    server = serve(live={"loop": lambda: None}, ready={"database": lambda: None, "pubsub": lambda: None})
    fine = {"ok": True, "failing": {}, "version": metadata.version("firefleet")}
    assert probe(f"{server.url}/live") == (200, {**fine, "checks": ["loop"]})
    assert probe(f"{server.url}/ready") == (200, {**fine, "checks": ["database", "pubsub"]})


def test_a_failing_check_is_503_and_named_with_its_problem(serve: Serve) -> None:
    server = serve(ready={"database": lambda: "eu: deadline exceeded", "pubsub": lambda: None})
    status, body = probe(f"{server.url}/ready")
    assert (status, body["ok"], body["failing"]) == (503, False, {"database": "eu: deadline exceeded"})


def test_live_and_ready_are_independent(serve: Serve) -> None:
    """A worker without its database is not ready, but must not be killed for it."""
    server = serve(live={"loop": lambda: None}, ready={"database": lambda: "down"})
    assert probe(f"{server.url}/live")[0] == 200
    assert probe(f"{server.url}/ready")[0] == 503


def test_a_check_is_asked_at_every_probe(serve: Serve) -> None:
    problems: list[str | None] = ["down", None]
    server = serve(live={"loop": lambda: problems.pop(0)})
    assert probe(f"{server.url}/live")[0] == 503
    assert probe(f"{server.url}/live")[0] == 200


def test_a_check_that_raises_is_a_failing_check(serve: Serve) -> None:
    def broken() -> str | None:
        raise ValueError("no such thing")

    status, body = probe(f"{serve(live={'loop': broken}).url}/live")
    assert status == 503
    assert "no such thing" in body["failing"]["loop"]


def test_a_taken_port_is_a_config_error_that_names_the_option(serve: Serve) -> None:
    taken = urlsplit(serve().url).port
    assert taken is not None
    second = HealthServer(live={}, ready={})
    with pytest.raises(ConfigError, match="--health-port"):
        second.start(taken, host="127.0.0.1")
    second.stop()


def test_stop_ends_the_thread_and_frees_the_port(serve: Serve) -> None:
    server = serve()
    port = urlsplit(server.url).port
    # A probe's idle connection must not keep the server from ending.
    with socket.create_connection(("127.0.0.1", port or 0)):
        server.stop()
    assert "health" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port or 0), timeout=1)


def test_stop_twice_and_before_start_is_harmless() -> None:
    server = HealthServer(live={}, ready={})
    server.stop()
    server = HealthServer(live={}, ready={})
    server.start(0, host="127.0.0.1")
    server.stop()
    server.stop()
