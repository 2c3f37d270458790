"""The demo's proof: what every replica holds, compared value by value, and the conflicts that were decided.

Pure: documents in, findings out. Two values are equal only if they are the same in type too: 1 is not 1.0.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from conflict.policies import FieldRules, Precedence
from conflict.values import same, sort_key
from replication.configuration.parse import Fleet
from replication.documents.wire import collection_id
from workers.demo.backend import Documents

COMPUTED = "computed"


@dataclass(frozen=True, slots=True)
class Holding:
    """What one replica holds: application documents by collection id, tombstones, one hash over all content."""

    replica: str
    collections: Mapping[str, int]
    tombstones: int
    digest: str

    @property
    def documents(self) -> int:
        """How many documents of the application's there are."""
        return sum(self.collections.values())


@dataclass(frozen=True, slots=True)
class Difference:
    """A document that is not the same everywhere; `fields` by replica, None where it is not there."""

    path: str
    fields: Mapping[str, Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two versions that met. `stamp` is in µs; no body where it was deleted or is kept in parts."""

    id: str
    origin: str
    stamp: int
    deleted: bool
    body: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Decided:
    """One record of the conflict log. `winner` is a side's id or `computed`; `now` what the document holds."""

    id: str
    path: str
    policy: str
    winner: str
    time: datetime
    sides: tuple[Side, ...]
    now: Mapping[str, Any] | None

    @property
    def kept(self) -> str:
        """Whose write stayed: a replica's id, or `computed`."""
        return next((side.origin for side in self.sides if side.id == self.winner), COMPUTED)


@dataclass(frozen=True, slots=True)
class Proof:
    """The finding."""

    holdings: tuple[Holding, ...]
    differences: tuple[Difference, ...]
    conflicts: tuple[Decided, ...]
    decided: Mapping[str, Counter[str]] = field(default_factory=dict)
    """By policy: how often each replica's write stayed, or a body was computed."""

    @property
    def equal(self) -> bool:
        """Whether all replicas hold the same."""
        return not self.differences


def prove(fleet: Fleet, databases: Mapping[str, Documents]) -> Proof:
    """Compare the databases' documents, and read their conflict logs."""
    contents = {replica: application_documents(fleet, one) for replica, one in databases.items()}
    conflicts = _conflicts(fleet, databases, contents)
    decided: dict[str, Counter[str]] = {}
    for conflict in conflicts:
        decided.setdefault(conflict.policy, Counter())[conflict.kept] += 1
    return Proof(
        tuple(_holding(fleet, replica, databases[replica], content) for replica, content in contents.items()),
        tuple(differences(contents)),
        conflicts,
        decided,
    )


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


def _holding(fleet: Fleet, replica: str, documents: Documents, content: Documents) -> Holding:
    tombstones = sum(path.startswith(f"{fleet.codec.tombstones}/") for path in documents)
    exact = repr(sorted((path, sort_key(dict(fields))) for path, fields in content.items()))
    digest = hashlib.blake2b(exact.encode(), digest_size=8).hexdigest()
    return Holding(replica, Counter(collection_id(path) for path in sorted(content)), tombstones, digest)


def _conflicts(
    fleet: Fleet, databases: Mapping[str, Documents], contents: Mapping[str, Documents]
) -> tuple[Decided, ...]:
    """The union of the replicas' conflict logs: each decides for itself, and those that agree use one id."""
    found: dict[str, Decided] = {}
    for replica, documents in databases.items():
        for path, record in documents.items():
            collection, _, conflict = path.partition("/")
            if collection == fleet.codec.conflicts and "/" not in conflict and record["kind"] == "conflict":
                bodies = f"{path}/{fleet.codec.bodies}"
                sides = tuple(_side(version, documents, bodies) for version in record["versions"])
                now = contents[replica].get(record["path"])
                found.setdefault(conflict, _decided(conflict, record, sides, now))
    return tuple(sorted(found.values(), key=lambda one: one.time))


def _decided(
    conflict: str, record: Mapping[str, Any], sides: tuple[Side, ...], now: Mapping[str, Any] | None
) -> Decided:
    return Decided(conflict, record["path"], record["policy"], record["winner"], record["time"], sides, now)


def _side(version: Mapping[str, Any], documents: Documents, bodies: str) -> Side:
    kept = documents.get(f"{bodies}/{version['id']}", {})
    return Side(version["id"], version["origin"], version["stamp"], version["deleted"], kept.get("body"))


def example(proof: Proof, fleet: Fleet) -> Decided | None:
    """The conflict worth showing: both bodies there, and a policy that did not just keep the later write."""

    def telling(conflict: Decided) -> tuple[bool, ...]:
        whole = all(side.body for side in conflict.sides)
        latest = max(conflict.sides, key=lambda side: side.stamp)
        ordered = isinstance(fleet.rule_for(conflict.path).policy, Precedence)
        return whole, ordered, conflict.winner not in {latest.id, COMPUTED}

    return max(proof.conflicts, key=telling, default=None)


def why(conflict: Decided, fleet: Fleet) -> str:
    """In a sentence: by what rule that side stayed."""
    earlier, later = sorted(conflict.sides, key=lambda side: side.stamp)
    apart = f"{(later.stamp - earlier.stamp) / 1000:.1f} ms"
    policy = fleet.rule_for(conflict.path).policy
    if any(side.deleted for side in conflict.sides):
        rule = "a delete against a write: the later one stays"
    elif isinstance(policy, Precedence) and conflict.kept != COMPUTED:
        order = " < ".join(map(str, policy.order))
        rule = f"the {policy.field} that is further in the order stays, whichever came last ({order})"
    elif isinstance(policy, FieldRules):
        rules = ", ".join(f"{name}: {rule}" for name, rule in policy.fields.items())
        rule = f"field by field ({rules}; the rest from the later write)"
    else:
        rule = "the later commit stays"
    return f"{rule}; {later.origin} wrote {apart} after {earlier.origin}"
