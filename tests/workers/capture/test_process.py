"""`firefleet capture` as a process, over real HTTP and gRPC."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.pubsub_v1.types import pubsub as pubsub_types

from replication.adapters.memory import MemoryTopic
from tests.support.capturing import NOW_US, HeldReads, Ledger, Served
from tests.support.polling import PATIENCE_S, eventually


class SlowPubsub:
    """Pub/Sub's Publish over real gRPC, which answers when the test says so."""

    def __init__(self) -> None:
        self.published: list[Any] = []
        self.answer = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(4))
        handler = grpc.unary_unary_rpc_method_handler(
            self._publish,
            request_deserializer=pubsub_types.PublishRequest.deserialize,
            response_serializer=pubsub_types.PublishResponse.serialize,
        )
        service = grpc.method_handlers_generic_handler("google.pubsub.v1.Publisher", {"Publish": handler})
        self._server.add_generic_rpc_handlers((service,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def _publish(self, request: Any, _context: Any) -> Any:
        self.published.extend(request.messages)
        self.answer.wait()
        return pubsub_types.PublishResponse(
            message_ids=[str(index) for index, _ in enumerate(request.messages)]
        )

    def stop(self) -> None:
        self.answer.set()
        self._server.stop(0).wait(10)


def announced_port(process: "subprocess.Popen[str]") -> int:
    """From the process's log; `pytest-timeout` ends a wait in vain, and an ended process ends the lines."""
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"capturing on port (\d+)", line):
            return int(found[1])
    raise AssertionError(f"capture ended with {process.wait()} before it listened")


class TestProcess:
    """`firefleet capture` itself, over real HTTP and gRPC."""

    @pytest.fixture
    def pubsub(self) -> Iterator[SlowPubsub]:
        fake = SlowPubsub()
        yield fake
        fake.stop()

    @pytest.fixture
    def process(self, pubsub: SlowPubsub, tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
        config = tmp_path / "fleet.yaml"
        config.write_text(
            "project: p\ntopic: changes\nreplicas:\n"
            "  eu: {database: app-eu, location: europe-west1, emulator_host: '127.0.0.1:1'}\n"
            "  us: {database: app-us, location: us-central1, emulator_host: '127.0.0.1:1'}\n"
            "collections:\n- match: '{document=**}'\n  mode: multi-primary\n"
        )
        command = ["--config", str(config), "capture", "--host", "127.0.0.1", "--port", "0"]
        process = subprocess.Popen(
            [sys.executable, "-c", "from workers.cli import main; main()", *command],
            env={**os.environ, "PUBSUB_EMULATOR_HOST": f"127.0.0.1:{pubsub.port}"},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process, f"http://127.0.0.1:{announced_port(process)}"
        finally:
            process.kill()
            process.communicate()

    def one_event(self, url: str) -> Served:
        source = HeldReads("p", "app-eu", now=lambda: NOW_US)
        topic = MemoryTopic(now=lambda: NOW_US)
        served = Served(url, {"eu": source}, topic.subscription("none"), Ledger())
        source.on_change(served.changes.append)
        served.of_write()
        return served

    def test_sigterm_lets_what_is_in_flight_end_and_exits_with_0(
        self, process: tuple["subprocess.Popen[str]", str], pubsub: SlowPubsub
    ) -> None:
        running, url = process
        served = self.one_event(url)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(served.deliver, served.changes[0])
            eventually(lambda: pubsub.published)
            running.send_signal(signal.SIGTERM)
            eventually(lambda: not up(served))
            assert not answer.done()
            assert running.poll() is None
            pubsub.answer.set()
            assert answer.result(PATIENCE_S).status == 204
        assert running.wait(PATIENCE_S) == 0
        assert [message.data for message in pubsub.published] == [served.changes[0].body]

    def test_sigterm_ends_it_even_if_pubsub_never_answers(
        self, process: tuple["subprocess.Popen[str]", str], pubsub: SlowPubsub
    ) -> None:
        """The event is not acknowledged: Eventarc sends it again. The soak measures how long it takes."""
        running, url = process
        served = self.one_event(url)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(served.deliver, served.changes[0])
            eventually(lambda: pubsub.published)
            running.send_signal(signal.SIGTERM)
            assert running.wait(PATIENCE_S) == 0
            assert answer.result(PATIENCE_S).status == 503


def up(served: Served) -> bool:
    try:
        return served.request("GET", "/live").status == 200
    except OSError:
        return False
