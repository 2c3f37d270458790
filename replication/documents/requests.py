"""How many documents fit into one request to Firestore."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

REQUEST_BYTES_MAX = 3_500_000
"""Firestore's emulator refuses requests over 4 MiB; production takes 10."""
REQUEST_DOCUMENTS_MAX = 500


class Sized(Protocol):
    """What takes some bytes of a request."""

    @property
    def bytes(self) -> int:
        """How many."""


S = TypeVar("S", bound=Sized)


def chunks(units: Iterable[S], documents_max: int) -> Iterator[list[S]]:
    """Cut units into requests of at most so many, and of a size that Firestore takes."""
    chunk: list[S] = []
    size = 0
    for unit in units:
        if chunk and (len(chunk) == documents_max or size + unit.bytes > REQUEST_BYTES_MAX):
            yield chunk
            chunk, size = [], 0
        chunk.append(unit)
        size += unit.bytes
    if chunk:
        yield chunk
