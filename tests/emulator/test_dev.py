"""From the first file to a measured change, as users type it: init, dev, the official client, probe, Ctrl-C."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.polling import eventually
from workers.local.emulators import free_port

MAIN = "from workers.cli import main; main(prog_name='firefleet')"
APPLICATION = """\
import sys, time
from google.cloud import firestore

eu = firestore.Client(project="my-project", database="app-eu")
us = firestore.Client(project="my-project", database="app-us")
eu.document("orders/1").set({"status": "pending"})
deadline = time.monotonic() + 60
while not us.document("orders/1").get().exists:
    assert time.monotonic() < deadline, "the order never arrived"
    time.sleep(0.1)
print(us.document("orders/1").get().get("status"))
"""


def firefleet(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", MAIN, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def mentioning(text: str) -> list[int]:
    """The processes whose command line holds a text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # it has ended meanwhile
            if text in command:
                found.append(int(entry.name))
    return found


@contextmanager
def dev(folder: Path, base: int) -> Iterator["subprocess.Popen[str]"]:
    """`firefleet dev`; killed at the end if it still runs."""
    out = folder / "dev.out"
    with (
        out.open("w") as sink,
        subprocess.Popen(
            [sys.executable, "-c", MAIN, "dev", "--port-base", str(base)],
            cwd=folder,
            stdout=sink,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    replicas = ("--replica", "eu=app-eu@europe-west1", "--replica", "us=app-us@us-central1")
    done = firefleet(tmp_path, "init", *replicas)
    assert done.returncode == 0, done.stderr
    return tmp_path


@pytest.mark.timeout(900)
def test_a_change_arrives_a_stopped_worker_is_named_and_nothing_is_left_running(
    folder: Path, quick_to_start: None
) -> None:
    base = free_port()
    config = f".firefleet/dev-{base}.yaml"
    out = folder / "dev.out"
    with dev(folder, base) as process:
        eventually(
            lambda: "Ctrl-C ends it" in out.read_text() or process.poll() is not None, timeout=240, every=0.1
        )
        printed = out.read_text()
        assert process.poll() is None, printed
        assert f"export FIRESTORE_EMULATOR_HOST=127.0.0.1:{base}\n" in printed
        exports = dict(
            line.split()[1].split("=") for line in printed.splitlines() if line.startswith("  export ")
        )
        application = subprocess.run(
            [sys.executable, "-c", APPLICATION],
            env={**os.environ, **exports},
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert (application.stdout, application.returncode) == ("pending\n", 0), application.stderr

        probed = firefleet(folder, "--config", config, "probe", "--timeout", "90s")
        assert probed.returncode == 0, probed.stdout + probed.stderr
        assert probed.stdout.startswith("FROM  TO eu")

        [worker] = [pid for pid in mentioning(f"{config} replicate --replica us") if os.getpgid(pid) == pid]
        # Not killed, which would have it started again.
        os.kill(worker, signal.SIGSTOP)
        probed = firefleet(folder, "--config", config, "probe", "--timeout", "30s")
        os.kill(worker, signal.SIGCONT)
        assert probed.returncode == 1, probed.stdout + probed.stderr
        assert "eu to us: nothing arrived at us: its worker is not running, or is behind." in probed.stdout
        assert "Try: firefleet replicate --replica us" in probed.stdout

        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert out.read_text().endswith("nothing is left running, and the documents are gone\n")
    assert eventually(lambda: not mentioning(str(base)), timeout=60)


def test_no_process_outlives_a_dev_that_is_killed(folder: Path) -> None:
    base = free_port()
    with dev(folder, base) as process:
        # Emulators, capture, the stand-in: each with a shell beside it, and `dev` itself.
        eventually(lambda: len(mentioning(str(base))) >= 5 or process.poll() is not None, timeout=90)
        assert process.poll() is None, (folder / "dev.out").read_text()
        process.kill()
    assert eventually(lambda: not mentioning(str(base)), timeout=60)
