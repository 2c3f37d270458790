"""Read the conflict log: what met, what was kept, and by which policy.

The counterpart of `replication.apply.conflict_log`, which writes it and says how it is laid out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from replication.documents.plain import Documents
from replication.fleet.model import Fleet

COMPUTED = "computed"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two versions that met. `stamp` is in µs; no body where it was deleted or is kept in parts."""

    id: str
    origin: str
    stamp: int
    deleted: bool
    body: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the conflict log. `winner` is a side's id or `computed`."""

    id: str
    path: str
    policy: str
    winner: str
    time: datetime
    sides: tuple[Side, ...]

    @property
    def kept(self) -> str:
        """Whose write stayed: a replica's id, or `computed`."""
        return next((side.origin for side in self.sides if side.id == self.winner), COMPUTED)


def read_records(fleet: Fleet, documents: Documents) -> Iterator[Record]:
    """The conflicts that one replica's documents record; violations are left out.

    Each replica decides for itself; those that agree use one id.
    """
    for path, record in documents.items():
        collection, _, conflict = path.partition("/")
        if collection == fleet.codec.conflicts and "/" not in conflict and record["kind"] == "conflict":
            bodies = f"{path}/{fleet.codec.bodies}"
            sides = tuple(_side(version, documents, bodies) for version in record["versions"])
            yield Record(conflict, record["path"], record["policy"], record["winner"], record["time"], sides)


def _side(version: Mapping[str, Any], documents: Documents, bodies: str) -> Side:
    kept = documents.get(f"{bodies}/{version['id']}", {})
    return Side(version["id"], version["origin"], version["stamp"], version["deleted"], kept.get("body"))
