"""What commands print to a terminal of 80 columns, and the same to a pipe."""

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

FIREFLEET = [sys.executable, "-m", "workers"]
SECONDS = 60
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
CONFIG = """\
project: my-project-with-a-long-name
topic: changes
pubsub_emulator_host: 127.0.0.1:1
replicas:
  eu: {database: app-eu, location: europe-west1, emulator_host: "127.0.0.1:1"}
  us: {database: app-us, location: us-central1, emulator_host: "127.0.0.1:1"}
collections:
  - {match: "{document=**}", mode: multi-primary}
"""
START = "gcloud beta emulators pubsub start --host-port=127.0.0.1:1 --project=my-project-with-a-long-name"


class Terminal:
    """A process on a terminal of its own, and what it has printed there."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (50, 80))
        environment = {**os.environ, "TERM": "xterm-256color"}
        environment.pop("COLUMNS", None)
        self.process = subprocess.Popen(
            [*FIREFLEET, *arguments], stdin=slave, stdout=slave, stderr=slave, env=environment
        )
        os.close(slave)
        self.text = ""

    def read(self) -> bool:
        """Read on; False when it has ended and everything is read."""
        try:
            part = os.read(self._master, 65_536)
        except OSError:  # Linux's way to say that the other end is closed
            return False
        self.text += ESCAPES.sub("", part.decode(errors="replace")).replace("\r\n", "\n")
        return bool(part)

    def read_until(self, wanted: str) -> None:
        """Read until something was printed."""
        while wanted not in self.text:
            assert self.read(), f"ended without {wanted!r}: {self.text[-2_000:]}"

    def ended(self) -> int:
        """Read to the end; the exit code."""
        while self.read():
            pass
        return self.process.wait(SECONDS)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    opened = Terminal(arguments)
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.yaml"
    path.write_text(CONFIG)
    return path


def test_a_report_fits_the_terminal_and_its_commands_can_be_copied(config: Path) -> None:
    with terminal("check", "--config", str(config)) as opened:
        assert opened.ended() == 1
    assert max(map(len, opened.text.splitlines())) <= 80
    commands = opened.text.split("To fix it:")[1].replace("\\\n", "")
    assert shlex.split(START) in [shlex.split(line, comments=True) for line in commands.splitlines()]


def test_piped_each_finding_and_command_is_one_line_without_colours(config: Path) -> None:
    done = subprocess.run(
        [*FIREFLEET, "check", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert f"  {START}" in lines
    assert [line for line in lines if line.endswith(" ")] == []
    assert "\x1b" not in done.stdout
    [databases] = [line for line in lines if "database" in line]
    assert databases.split() == [
        *("fail", "eu", "database,", "us", "database"),
        *("the", "Firestore", "emulator", "at", "127.0.0.1:1", "does", "not", "answer"),
    ]


def test_verbose_shows_every_finding(config: Path) -> None:
    done = subprocess.run(
        [*FIREFLEET, "check", "--verbose", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert len([line for line in done.stdout.splitlines() if "UNAVAILABLE" in line]) == 2


def test_ctrl_c_leaves_the_live_view_and_says_how_far_it_was() -> None:
    with terminal("demo", "--backend", "memory", "--changes", "2000") as opened:
        opened.read_until("writes")
        opened.process.send_signal(signal.SIGINT)
        assert opened.ended() == 130
    *_, last_words = opened.text.strip().splitlines()
    said = r"interrupted after \d+ s at '.+' with .+ of .+ writes done; nothing is left running"
    assert re.fullmatch(said, last_words)
    assert "The fleet starts" in opened.text[opened.text.rindex("firefleet demo") :]
