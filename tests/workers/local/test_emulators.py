"""The emulators are found, started, frozen and stopped, and none survives the process that started it."""

import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest

from replication.adapters.firestore import open_database
from replication.adapters.rpc import open_channel
from replication.documents.wire import Write
from replication.errors import Transient
from replication.fleet.model import Replica
from tests.support.polling import PATIENCE_S, eventually
from workers.local.emulators import (
    FirestoreEmulator,
    Missing,
    PubsubEmulator,
    StartFailed,
    free_port,
    locate,
)
from workers.runtime.triggers import register_trigger, trigger_id


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def fake_java(folder: Path, version: str) -> Path:
    java = folder / "java" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2024-01-01' >&2\n")
    java.chmod(0o755)
    return java.parent.parent


def fake_sdk(folder: Path) -> Path:
    for launcher in (
        "platform/cloud-firestore-emulator/cloud_firestore_emulator",
        "platform/pubsub-emulator/bin/cloud-pubsub-emulator",
    ):
        path = folder / "sdk" / launcher
        path.parent.mkdir(parents=True)
        path.touch()
    return folder / "sdk"


def test_an_sdk_named_by_the_environment_is_used(tmp_path: Path) -> None:
    home, root = fake_java(tmp_path, "21.0.1"), fake_sdk(tmp_path)
    found = locate({"CLOUDSDK_ROOT_DIR": str(root), "JAVA_HOME": str(home), "PATH": ""})
    assert found.firestore.is_relative_to(root)
    assert found.pubsub.is_relative_to(root)
    assert found.java == home / "bin" / "java"


@pytest.mark.parametrize("version", ["1.8.0_402", "10.0.2"])
def test_a_java_that_is_too_old_is_named_with_the_remedy(tmp_path: Path, version: str) -> None:
    home, root = fake_java(tmp_path, version), fake_sdk(tmp_path)
    with pytest.raises(Missing, match=r"need Java 11; .*/bin/java is Java (8|10)\. To get the emulators"):
        locate({"CLOUDSDK_ROOT_DIR": str(root), "JAVA_HOME": str(home), "PATH": ""})


def test_without_java_the_error_says_how_to_get_everything() -> None:
    with pytest.raises(Missing, match=r"Java.*gcloud components install cloud-firestore-emulator pubsub-emul"):
        locate({"PATH": ""})


@pytest.mark.emulator
def test_several_start_side_by_side_and_stop_closes_their_ports() -> None:
    with FirestoreEmulator.launch() as one, FirestoreEmulator.launch() as two, PubsubEmulator.launch() as three:
        running = [one, two, three]
        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(lambda emulator: emulator.ready(), running)) == running
        assert all(listens(emulator.port) for emulator in running)
        one.stop()
        assert (one.running, two.running, three.running) == (False, True, True)
        one.stop()
    assert not any(listens(emulator.port) for emulator in running)


@pytest.mark.emulator
def test_one_that_does_not_come_up_fails_with_its_log_and_leaves_nothing() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        emulator = FirestoreEmulator.launch(port=taken.getsockname()[1])
        with pytest.raises(
            StartFailed, match=r"(?s)Firestore emulator on 127\.0\.0\.1.*log ends:.*BindException"
        ):
            emulator.ready(timeout=PATIENCE_S)
        assert not emulator.running


@pytest.mark.emulator
@pytest.mark.parametrize("paused", [False, True])
def test_none_survives_the_kill_of_the_process_that_started_it(paused: bool) -> None:
    program = (
        "from workers.local.emulators import FirestoreEmulator\n"
        "emulator = FirestoreEmulator.start()\n"
        f"if {paused}: emulator.pause()\n"
        "print(emulator.port, flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        try:
            port = int(parent.stdout.readline())
            assert listens(port)
        finally:
            os.kill(parent.pid, signal.SIGKILL)
    eventually(lambda: not listens(port))


@pytest.mark.emulator
def test_a_paused_one_answers_nothing_and_goes_on_with_its_data_when_resumed(project: str) -> None:
    with FirestoreEmulator.start() as emulator:
        database = open_database(
            Replica(
                id="eu",
                project=project,
                database="app-eu",
                location="europe-west1",
                emulator_host=emulator.host,
            )
        )
        try:
            write = Write(update={"name": f"{database.prefix}orders/1"})
            assert database.commit([write], timeout=PATIENCE_S) > 0
            emulator.pause()
            with pytest.raises(Transient):
                database.read(["orders/1"], timeout=0.2)
            emulator.resume()
            assert database.read(["orders/1"], timeout=PATIENCE_S)[0].document is not None
        finally:
            database.close()


class Functions(BaseHTTPRequestHandler):
    """Answers every event and keeps its `ce-document`."""

    seen: "list[tuple[str, str]]"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.seen.append((self.path, self.headers["ce-document"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Nothing on the terminal."""


@pytest.mark.emulator
def test_a_registered_trigger_sends_each_write_once_and_reset_forgets_documents(project: str) -> None:
    seen: list[tuple[str, str]] = []
    handler = type("Handler", (Functions,), {"seen": seen})
    port = free_port()
    with (
        ThreadingHTTPServer(("127.0.0.1", port), handler) as server,
        FirestoreEmulator.start(functions_emulator=f"127.0.0.1:{port}") as emulator,
    ):
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        replica = Replica(
            id="eu", project=project, database="app-eu", location="europe-west1", emulator_host=emulator.host
        )
        database = open_database(replica)
        try:
            register_trigger(replica, emulator.host)
            register_trigger(replica, emulator.host)
            for path in ("orders/1", "orders/2"):
                database.commit([Write(update={"name": database.prefix + path})], timeout=PATIENCE_S)
            expected = [
                (f"/functions/projects/{project}/triggers/{trigger_id(replica)}", f"orders/{number}")
                for number in (1, 2)
            ]
            eventually(lambda: len(seen) >= 2)
            assert seen == expected
            emulator.reset(project, "app-eu")
            assert database.read(["orders/1"], timeout=PATIENCE_S)[0].document is None
        finally:
            database.close()
            server.shutdown()
            thread.join()


@pytest.mark.emulator
def test_a_stopped_one_refuses_connections() -> None:
    emulator = PubsubEmulator.start()
    emulator.stop()
    with open_channel(emulator.host) as channel, pytest.raises(grpc.FutureTimeoutError):
        grpc.channel_ready_future(channel).result(timeout=0.3)
