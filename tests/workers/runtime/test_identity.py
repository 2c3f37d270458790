"""How a process introduces itself, and what a worker says when nothing answers it."""

import json
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tests.support.polling import eventually
from workers.config import ConfigFile
from workers.local.emulators import free_port
from workers.runtime.identity import described, version

TEXT = """\
project: my-project
topic: changes
pubsub_emulator_host: 127.0.0.1:{port}
replicas:
  eu: {{database: app-eu, location: europe-west1, emulator_host: "127.0.0.1:{port}"}}
  us: {{database: app-us, location: us-central1, emulator_host: "127.0.0.1:{port}"}}
collections: [{{match: "{{document=**}}", mode: local}}]
analytics: {{types: {{swipe: {{payload: {{}}}}}}}}
"""


@pytest.fixture
def config(tmp_path: Path) -> ConfigFile:
    """Of a fleet on emulators that do not run."""
    path = tmp_path / "fleet.yaml"
    path.write_text(TEXT.format(port=free_port()))
    return ConfigFile(path, {})


def test_the_version_is_the_distributions() -> None:
    assert version() == metadata.version("firefleet")


def test_a_replica_is_described_with_its_database_and_where_that_is(config: ConfigFile) -> None:
    eu = config.load().replica("eu")
    assert described(eu) == f"eu (database app-eu of my-project, emulator {eu.emulator_host})"


@pytest.mark.parametrize(
    ("command", "doing"),
    [
        (
            ("replicate", "--replica", "eu"),
            "replicating to eu (database app-eu of my-project, emulator {host}) from changes-eu, 4 pullers",
        ),
        (
            ("analytics", "run", "--replica", "eu", "--threads", "3"),
            "writing analytics events to eu (database app-eu of my-project, emulator {host}) "
            "from analytics-eu, 3 pullers",
        ),
        (
            ("capture", "--host", "127.0.0.1", "--port", "0"),
            "capturing on port ",
        ),
    ],
)
def test_a_process_says_first_what_it_is_and_then_of_each_trouble_one_line(
    config: ConfigFile, tmp_path: Path, command: tuple[str, ...], doing: str
) -> None:
    configuration, log = config.load_all(), tmp_path / "log"
    arguments = ["-m", "firefleet", "--config", str(config.path), *command]
    with log.open("wb") as written:
        process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=written)
    try:
        wanted = 1 if command[0] == "capture" else 2
        eventually(lambda: len(lines(log)) >= wanted, timeout=60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
    told = lines(log)
    start = f"firefleet {version()}, config {configuration.fingerprint} ({config.path}), "
    assert told[0]["message"].startswith(
        start + doing.format(host=configuration.fleet.replica("eu").emulator_host)
    )
    assert (told[0]["version"], told[0]["config"]) == (version(), configuration.fingerprint)
    troubles = [line["message"] for line in told if "cannot be reached" in line["message"]]
    assert len(troubles) == wanted - 1
    assert all(text.startswith("Pub/Sub cannot be reached (0 ") for text in troubles)


def lines(log: Path) -> list[Any]:
    return [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
