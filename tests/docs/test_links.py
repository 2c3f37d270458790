"""Every link of the documentation leads somewhere, and the site builds without a warning."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, REPOSITORY, ROOT, Page
from workers.cli import COMMANDS


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    # A process of its own: mkdocs changes the logging of the one it runs in.
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return folder


def test_the_site_builds_in_strict_mode_with_every_page(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages <= {path.parent.name for path in site.rglob("index.html")}


def test_the_commands_page_has_every_command(site: Path) -> None:
    text = (site / "commands" / "index.html").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"firefleet {name} [OPTIONS]" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_within_the_repository_leads_to_a_file_and_a_heading(page: Page) -> None:
    assert broken_links(page) == []


def test_a_link_to_no_file_or_no_heading_is_found(tmp_path: Path) -> None:
    page = Page(tmp_path / "page.md")
    page.path.write_text(
        "# One `two`, three\n[a](#one-two-three) [b](#four) [c](none.md) [d](page.md) [e](https://example.com/x)\n"
        f"[f]({REPOSITORY}README.md#maturity) [g]({REPOSITORY}README.md#nothing)\n",
        encoding="utf-8",
    )
    assert broken_links(page) == ["#four", "none.md", f"{REPOSITORY}README.md#nothing"]


def broken_links(page: Page) -> list[str]:
    """The links into the repository that lead nowhere; others are not followed."""
    broken = []
    for link in page.links():
        local = link.removeprefix(REPOSITORY)
        if "://" in local or local.startswith("mailto:"):
            continue
        base = ROOT if local != link else page.path.parent
        name, _, anchor = local.partition("#")
        target = (base / name).resolve() if name else page.path
        if not target.exists() or (anchor and anchor not in Page(target).anchors()):
            broken.append(link)
    return broken
