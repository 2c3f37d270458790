"""The local fleet: a change goes the whole way through real processes, each can be killed and comes back."""

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from replication.adapters.pubsub import open_publisher
from replication.ports import Message
from tests.support.polling import PATIENCE_S, eventually
from workers.local.emulators import StartFailed, free_port
from workers.local.eventarc import Delivery
from workers.local.fleet import LocalFleet
from workers.local.process import Process


def file_server(folder: Path) -> Process:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        "--directory",
        str(folder),
        str(port),
    ]
    return Process("files", command, health=f"http://127.0.0.1:{port}/")


def alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        # A zombie that nobody has waited for yet is dead, too.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_killed_process_starts_again_on_its_port_and_keeps_its_log(tmp_path: Path) -> None:
    with file_server(tmp_path) as server:
        first = server.ready().pid
        assert server.get("/before")[0] == http.client.NOT_FOUND
        server.kill()
        assert server.returncode == -signal.SIGKILL
        assert server.get("/")[0] == 0
        server.restart()
        assert server.pid != first
        assert server.get("/after")[0] == http.client.NOT_FOUND
        log = server.log_text()
        assert log.index("/before") < log.index("/after")


def test_a_paused_process_answers_nobody_until_it_is_resumed(tmp_path: Path) -> None:
    with file_server(tmp_path) as server:
        server.ready()
        server.pause()
        assert server.get("/", timeout=0.3)[0] == 0
        server.resume()
        assert eventually(lambda: server.get("/")[0] == http.client.OK)


def test_a_terminated_process_gives_its_exit_code(tmp_path: Path) -> None:
    with file_server(tmp_path) as server:
        assert server.ready().terminate() == -signal.SIGTERM
        assert not server.running


def test_a_process_that_does_not_come_up_is_an_error_with_its_log() -> None:
    command = [sys.executable, "-c", "raise SystemExit('no luck today')"]
    words = r"unlucky ended with status 1; its log ends:\nno luck today"
    with (
        Process("unlucky", command, health=f"http://127.0.0.1:{free_port()}/") as unlucky,
        pytest.raises(StartFailed, match=words),
    ):
        unlucky.ready()


def test_no_process_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from workers.local.process import Process\n"
        "child = Process('sleeper', [sys.executable, '-c', 'import time; time.sleep(600)'], health='http://x/')\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.kill()
    assert eventually(lambda: not alive(child))


@pytest.fixture(scope="module")
def fleet() -> Iterator[LocalFleet]:
    rules: list[dict[str, Any]] = [
        {"match": "private/{id}", "mode": "local"},
        {"match": "{document=**}", "mode": "multi-primary"},
    ]
    with LocalFleet(
        replicas=("eu", "us"), emulators="one", collections=rules, delivery=Delivery(duplicate=0.5, seed=1)
    ) as running:
        yield running


def arrives(fleet: LocalFleet, replica: str, path: str, field: str, value: object) -> bool:
    client = fleet.client(replica)
    return eventually(lambda: (client.document(path).get().to_dict() or {}).get(field) == value, every=0.1)


@pytest.mark.emulator
def test_a_change_arrives_and_the_topic_shows_it_but_no_local_one(fleet: LocalFleet) -> None:
    reader = fleet.read_topic()
    eu = fleet.client("eu")
    eu.document("private/1").set({"n": 0})
    eu.document("orders/1").set({"n": 1})
    assert arrives(fleet, "us", "orders/1", "n", 1)
    eventually(reader.messages)
    assert {one.message.attributes["ce-document"] for one in reader.messages()} == {"orders/1"}
    assert eventually(lambda: fleet.undelivered() == 0)
    assert "FIRESTORE_EMULATOR_HOST" not in os.environ


@pytest.mark.emulator
def test_a_backlog_waits_for_a_stopped_worker_and_another_one_takes_it(fleet: LocalFleet) -> None:
    # Not killed: what a dead worker's last pull was given comes again only after its deadline of a minute.
    [worker] = fleet.workers["us"]
    assert worker.terminate() == 0
    fleet.client("eu").document("orders/2").set({"n": 2})
    fleet.start_worker("us")
    assert arrives(fleet, "us", "orders/2", "n", 2)
    worker.restart()
    assert worker.running


@pytest.mark.emulator
def test_dead_letters_are_seen_with_their_reason(fleet: LocalFleet) -> None:
    publisher = open_publisher(fleet.fleet.project, fleet.fleet.topic, emulator_host=fleet.pubsub.host)
    publisher.submit(Message(b"\xff\xff", {"replica": "eu", "kind": "write"})).result(PATIENCE_S)
    publisher.close()
    dead = eventually(fleet.dead_letters)
    assert {one.message.attributes["reason"] for one in dead} == {"undecodable"}


@pytest.mark.emulator
def test_the_triggers_can_go_straight_to_capture_with_an_emulator_for_each_replica() -> None:
    with LocalFleet(replicas=("eu", "us"), direct_triggers=True, secret="a secret of the fleet") as fleet:
        assert fleet.stand_in is None
        assert fleet.emulators["eu"].port != fleet.emulators["us"].port
        fleet.client("us").document("orders/1").set({"n": 1})
        assert arrives(fleet, "eu", "orders/1", "n", 1)
        pids = [fleet.capture.pid, *(one.pid for some in fleet.workers.values() for one in some)]
        assert all(map(alive, pids))
    assert not any(map(alive, pids))
