"""The demo's proof: what every replica holds, compared value by value, and the conflicts that were decided.

Pure: documents in, findings out. Two values are equal only if they are the same in type too: 1 is not 1.0.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from conflict.policies import FieldRules, Precedence
from replication.apply.conflict_reader import COMPUTED, Record, read_records
from replication.documents.plain import Documents
from replication.fleet.model import Fleet
from replication.verify.compare import Difference, Holding, application_documents, differences, holding


@dataclass(frozen=True, slots=True)
class Decided:
    """A conflict of the log, and what the document holds `now`."""

    record: Record
    now: Mapping[str, Any] | None


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


def compare(fleet: Fleet, databases: Mapping[str, Documents]) -> Proof:
    """Compare the databases' documents, and read their conflict logs."""
    contents = {replica: application_documents(fleet, one) for replica, one in databases.items()}
    conflicts = _conflicts(fleet, databases, contents)
    decided: dict[str, Counter[str]] = {}
    for conflict in conflicts:
        decided.setdefault(conflict.record.policy, Counter())[conflict.record.kept] += 1
    return Proof(
        tuple(holding(fleet, replica, databases[replica], content) for replica, content in contents.items()),
        tuple(differences(contents)),
        conflicts,
        decided,
    )


def _conflicts(
    fleet: Fleet, databases: Mapping[str, Documents], contents: Mapping[str, Documents]
) -> tuple[Decided, ...]:
    """The union of the replicas' conflict logs, in the order of time."""
    found: dict[str, Decided] = {}
    for replica, documents in databases.items():
        for record in read_records(fleet, documents):
            found.setdefault(record.id, Decided(record, contents[replica].get(record.path)))
    return tuple(sorted(found.values(), key=lambda decided: decided.record.time))


def example(proof: Proof, fleet: Fleet) -> Decided | None:
    """The conflict worth showing: both bodies there, and a policy that did not just keep the later write."""

    def telling(conflict: Decided) -> tuple[bool, ...]:
        record = conflict.record
        whole = all(side.body for side in record.sides)
        latest = max(record.sides, key=lambda side: side.stamp)
        ordered = isinstance(fleet.rule_for(record.path).policy, Precedence)
        return whole, ordered, record.winner not in {latest.id, COMPUTED}

    return max(proof.conflicts, key=telling, default=None)


def why(conflict: Record, fleet: Fleet) -> str:
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
