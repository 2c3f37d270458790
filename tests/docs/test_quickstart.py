"""The quickstart's code blocks, run as they stand: whoever copies them gets what the page says."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Block, Page
from tests.support.polling import eventually

QUICKSTART = Page(ROOT / "docs" / "quickstart.md")
README = Page(ROOT / "README.md")
START_S, STEP_S, STOP_S = 240, 240, 120


def by_title(page: Page) -> dict[str, Block]:
    return {block.title: block for block in page.blocks()}


def environment() -> dict[str, str]:
    """As in a terminal in which `.venv` is active and no emulator was ever named."""
    names = {"FIRESTORE_EMULATOR_HOST", "PUBSUB_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT", "FIREFLEET_CONFIG"}
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return kept | {"PATH": f"{Path(sys.executable).parent}:{kept['PATH']}"}


@contextmanager
def running(block: Block, folder: Path) -> Iterator[Path]:
    """A block in a terminal of its own, from its readiness to Ctrl-C; the file holds what it prints."""
    printed = folder / "terminal-1.txt"
    with printed.open("wb") as file:
        terminal = subprocess.Popen(
            ["bash", "-euc", block.text],
            cwd=folder,
            env=environment(),
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        eventually(lambda: "Running." in printed.read_text() or terminal.poll() is not None, START_S)
        assert terminal.poll() is None, printed.read_text()
        yield printed
        os.killpg(terminal.pid, signal.SIGINT)
        assert terminal.wait(STOP_S) == 0, printed.read_text()
    finally:
        if terminal.poll() is None:
            os.killpg(terminal.pid, signal.SIGKILL)
            terminal.wait()


def run(block: Block, folder: Path) -> str:
    ran = subprocess.run(
        ["bash", "-euc", block.text],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=STEP_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.emulator
@pytest.mark.timeout(START_S + 2 * STEP_S + STOP_S)
def test_the_quickstart_gives_a_fleet_that_replicates_and_settles_a_conflict(tmp_path: Path) -> None:
    blocks = by_title(QUICKSTART)
    (tmp_path / "hello.py").write_text(blocks["hello.py"].text, encoding="utf-8")
    with running(blocks["Terminal 1"], tmp_path) as printed:
        assert "TO us" in run(blocks["Terminal 2: probe"], tmp_path)
        told = run(blocks["Terminal 2: application"], tmp_path)
        assert "us has {'status': 'pending', 'total': 12}" in told or "us has {'total': 12," in told
        assert told.endswith("both have refunded\n")
        exported = blocks["Terminal 2: application"].text.splitlines()[0]
        assert exported in printed.read_text()


def test_the_readme_shows_the_same_lines_as_the_quickstart() -> None:
    shown = {title: block.text for title, block in by_title(README).items() if block.language == "sh"}
    assert set(shown) == {"Install", "Terminal 1", "Terminal 2: probe"}
    written = by_title(QUICKSTART)
    assert {title: written[title].text for title in shown} == shown
