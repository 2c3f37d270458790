"""The documentation as the tests read it: pages, their code blocks, inline code, links and headings."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
REPOSITORY = "https://github.com/firefleet/firefleet/blob/main/"
_MARKDOWN = MarkdownIt("commonmark").enable("table")
_TITLE = re.compile(r'title="([^"]+)"')
_NOT_IN_A_SLUG = re.compile(r"[^\w\- ]")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: its language, its title where it has one, its text, and where it stands."""

    language: str
    title: str
    text: str
    where: str

    def __str__(self) -> str:
        return self.where


@dataclass(frozen=True, slots=True)
class Page:
    """One Markdown file."""

    path: Path

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    def blocks(self) -> Iterator[Block]:
        """The fenced blocks, in order."""
        for token in self._tokens():
            if token.type == "fence":
                language, _, rest = token.info.strip().partition(" ")
                title = _TITLE.search(rest)
                yield Block(language, title[1] if title else "", token.content, self._where(token))

    def inline_code(self) -> Iterator[tuple[str, str]]:
        """Each `code` in the prose, with the line its paragraph begins at."""
        for token in self._tokens():
            for child in token.children or ():
                if child.type == "code_inline":
                    yield child.content, self._where(token)

    def links(self) -> Iterator[str]:
        """The targets of all links and pictures."""
        for token in self._tokens():
            for child in token.children or ():
                target = child.attrGet("href") or child.attrGet("src")
                if target:
                    yield str(target)

    def anchors(self) -> set[str]:
        """The headings' anchors, as GitHub makes them."""
        tokens = list(self._tokens())
        return {
            slug("".join(child.content for child in following.children or ()))
            for token, following in pairwise(tokens)
            if token.type == "heading_open"
        }

    def _tokens(self) -> Iterator[Token]:
        yield from _MARKDOWN.parse(self.path.read_text(encoding="utf-8"))

    def _where(self, token: Token) -> str:
        return f"{self}:{token.map[0] + 1 if token.map else 0}"


def slug(heading: str) -> str:
    """A heading's anchor."""
    return _NOT_IN_A_SLUG.sub("", heading.lower()).replace(" ", "-")


PAGES = tuple(Page(path) for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]))
BLOCKS = tuple(block for page in PAGES for block in page.blocks())
