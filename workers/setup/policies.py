"""What `firefleet check` says of an application's own policies: the laws, on documents of no particular shape.

Cheap and without the application's documents, so it finds gross mistakes only, such as an answer that depends
on the order of the arguments. `firefleet policy prove` is the thorough check.
"""

from collections.abc import Iterator
from typing import Any

from conflict.laws import LawBroken, assert_lawful
from conflict.policies import FieldRules, LastWriteWins, Precedence
from replication.configuration.findings import Finding, Level
from replication.fleet.model import Fleet, Rule

EXAMPLES: tuple[dict[str, Any], ...] = (
    {"status": "open", "count": 1, "tags": ["a"]},
    {"status": "done", "count": 7, "tags": ["b", "c"]},
)
SAMPLES = 6
_BUILT_IN = (LastWriteWins, Precedence, FieldRules)
_PREFIX = "custom: "


def diagnose_policies(fleet: Fleet) -> Iterator[Finding]:
    """A finding for each rule with the application's own policy."""
    for rule in fleet.rules:
        if not isinstance(rule.policy, _BUILT_IN):
            yield _judged(rule)


def _judged(rule: Rule) -> Finding:
    subject = f"collections: {rule.match}"
    name = rule.policy.name
    function = name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else "PACKAGE.MODULE:FUNCTION"
    remedy = (f"firefleet policy prove {function} --examples docs.jsonl",)
    try:
        assert_lawful(rule.policy, EXAMPLES, samples=SAMPLES)
    except LawBroken as broken:
        # One that is not total may only expect fields that every document of the collection has.
        level = Level.WARN if broken.law == "total" else Level.FAIL
        return Finding(level, subject, f"{name}: {str(broken).partition(chr(10))[0]}", remedy)
    return Finding(Level.OK, subject, f"{name} keeps the laws, on documents of no particular shape")
