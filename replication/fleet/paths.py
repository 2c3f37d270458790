"""Patterns of document paths, as Firestore's security rules write them.

    carts/{cart}                 the documents of one collection
    carts/{cart}/items/{item}    the documents of a subcollection
    carts/{rest=**}              every document below `carts`, at any depth
    {document=**}                every document

`{name}` stands for one segment, `{name=**}` for the rest of the path, none or more segments, as in the rules'
version 2 (https://firebase.google.com/docs/rules/rules-language#match); only documents are matched, never
collections. Narrower than the rules: the rest comes last.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_ONE = re.compile(r"\{[A-Za-z_]\w*\}")
_REST = re.compile(r"\{[A-Za-z_]\w*=\*\*\}")
_PART = rf"(?:{_ONE.pattern}|[^/{{}}*]+)"
PATTERN_REGEX = rf"^(?:(?:{_PART}/)*{_REST.pattern}|{_PART}/{_PART}(?:/{_PART}/{_PART})*)$"
"""What `parse_pattern` accepts, for the JSON schema."""
EVERY_DOCUMENT_REGEX = rf"^(?:{_ONE.pattern}/){{0,2}}{_REST.pattern}$"
"""The patterns that match every document: a document's path has two segments or more."""
_FRESH = "\0"
"""A segment that no pattern spells out: Firestore allows no such id."""


class PatternError(ValueError):
    """Not a pattern; the text says what is wrong and the remedy."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed pattern: one entry a segment, None for `{name}`; `rest` when it ends in `{name=**}`.

    `text` is how it was written; patterns that match the same documents are equal.
    """

    segments: tuple[str | None, ...]
    rest: bool
    text: str = field(compare=False)

    def __str__(self) -> str:
        return self.text

    @property
    def regex(self) -> str:
        """A regular expression, without capturing groups, that fully matches the documents' relative paths."""
        body = "/".join("[^/]+" if segment is None else re.escape(segment) for segment in self.segments)
        if not self.rest:
            return body
        return f"{body}(?:/.+)?" if body else ".+"

    def covers(self, other: "Pattern") -> bool:
        """Whether every document that `other` matches is matched by this one too.

        Exact: one witness for each depth is enough, because a segment that `other` leaves open can be a fresh
        one, and beyond the deeper pattern's end both treat every depth alike.
        """
        matches = re.compile(self.regex, re.DOTALL).fullmatch
        return all(matches(path) for path in other._witnesses(len(self.segments)))

    def _witnesses(self, depth: int) -> Iterator[str]:
        fixed = [_FRESH if segment is None else segment for segment in self.segments]
        longest = max(len(fixed), depth) + 2 if self.rest else len(fixed)
        for length in range(len(fixed), longest + 1):
            if length > 0 and length % 2 == 0:
                yield "/".join(fixed + [_FRESH] * (length - len(fixed)))


EVERY_DOCUMENT = Pattern(segments=(), rest=True, text="{document=**}")


def parse_pattern(text: str) -> Pattern:
    """Parse a pattern; raises `PatternError`."""
    if text.startswith("/") or text.endswith("/"):
        raise PatternError(f"'{text}' begins or ends with '/'; write it as '{text.strip('/')}'")
    *first, last = text.split("/")
    rest = bool(_REST.fullmatch(last))
    segments = tuple(_segment(text, part) for part in (first if rest else [*first, last]))
    if not rest and len(segments) % 2:
        raise PatternError(f"'{text}' is a collection, not its documents; write '{text}/{{document}}'")
    return Pattern(segments=segments, rest=rest, text=text)


def _segment(text: str, part: str) -> str | None:
    """The literal that one segment stands for; None for `{name}`."""
    if _ONE.fullmatch(part):
        return None
    if _REST.fullmatch(part):
        raise PatternError(f"'{part}' is not at the end of '{text}'; the rest of a path can only come last")
    if not part:
        raise PatternError(f"'{text}' has an empty segment; separate segments with one '/'")
    if set(part) & set("{}*"):
        raise PatternError(
            f"'{part}' in '{text}' is not a segment; write a plain id, {{name}}, or {{name=**}} for the rest"
        )
    return part
