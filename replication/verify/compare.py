"""Compare what replicas hold, value by value.

Pure: documents in, differences out. Two values are equal only if they are the same in type too: 1 is not 1.0.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from conflict.values import same, sort_key
from replication.documents.plain import Documents
from replication.documents.wire import collection_id
from replication.fleet.model import Fleet


@dataclass(frozen=True, slots=True)
class Holding:
    """What one replica holds: application documents by collection id, tombstones, one hash over all content."""

    replica: str
    collections: Mapping[str, int]
    tombstones: int
    digest: str

    @property
    def documents(self) -> int:
        """How many of the application's documents there are."""
        return sum(self.collections.values())


@dataclass(frozen=True, slots=True)
class Difference:
    """A document that is not the same everywhere; `fields` by replica, None where it is not there."""

    path: str
    fields: Mapping[str, Mapping[str, Any] | None]


def application_documents(fleet: Fleet, documents: Documents) -> Documents:
    """What the application wrote: no document of this system's, no metadata."""
    return {
        path: {name: value for name, value in fields.items() if name != fleet.metadata_field}
        for path, fields in documents.items()
        if not fleet.codec.owns(path)
    }


def differences(contents: Mapping[str, Documents]) -> Iterator[Difference]:
    """The documents that are not the same in all, by path."""
    first, *others = contents.values()
    for path in sorted(set().union(*contents.values())):
        if not all(_same(first.get(path), other.get(path)) for other in others):
            yield Difference(path, {replica: content.get(path) for replica, content in contents.items()})


def _same(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    if one is None or other is None:
        return one is other
    return same(dict(one), dict(other))


def holding(fleet: Fleet, replica: str, documents: Documents, content: Documents) -> Holding:
    """What a replica holds: `documents` with, `content` without what is this system's own."""
    tombstones = sum(path.startswith(f"{fleet.codec.tombstones}/") for path in documents)
    exact = repr(sorted((path, sort_key(dict(fields))) for path, fields in content.items()))
    digest = hashlib.blake2b(exact.encode(), digest_size=8).hexdigest()
    return Holding(replica, Counter(collection_id(path) for path in sorted(content)), tombstones, digest)
