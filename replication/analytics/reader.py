"""Read stored events, each once.

A worker that dies between a write and its acknowledgement leaves events that another one writes again: in the
per-event layout onto the same document's name, which changes nothing; in the packed layout into another packed
document. `read_events` leaves out what it has seen, by id and by dedupe key. Given the same documents in the
same order (by name, as Firestore lists them) it gives the same events.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from replication.analytics.packing import StoredEvent, events_in


@dataclass(slots=True)
class Tally:
    """What was read: documents, distinct events wanted, and stored copies of those that were left out."""

    documents: int = 0
    events: int = 0
    copies: int = 0


def read_events(
    documents: Iterable[Any], tally: Tally | None = None, *, wanted: Callable[[StoredEvent], bool] | None = None
) -> Iterator[StoredEvent]:
    """The distinct events, of those `wanted`, in documents (`google.firestore.v1`) of either layout.

    Counts in `tally`.

    Remembers 16 bytes for each identity it has seen: read a large collection type by type. Raises `PackError`
    for a document that holds no events.
    """
    tally = tally or Tally()
    seen: set[bytes] = set()
    for document in documents:
        tally.documents += 1
        for event in events_in(document):
            if wanted is not None and not wanted(event):
                continue
            if not seen.isdisjoint(event.identities):
                tally.copies += 1
                continue
            seen.update(event.identities)
            tally.events += 1
            yield event
