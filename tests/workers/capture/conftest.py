"""Running captures, stopped at the end of each test."""

from collections.abc import Iterator

import pytest

from replication.ports import Publisher
from tests.support.capturing import Serve, Served, in_memory
from workers.capture.app import LIMITS, Limits
from workers.runtime.serving import ServerThread


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[ServerThread] = []

    def start(*, publisher: Publisher | None = None, limits: Limits = LIMITS) -> Served:
        served, server = in_memory(publisher=publisher, limits=limits)
        servers.append(server)
        return served

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def served(serve: Serve) -> Served:
    return serve()
