"""Merging candidates as a replica does, and what must come out equal at every replica."""

from typing import Any

from conflict.policies import FieldRules, LastWriteWins, Precedence
from conflict.resolve import Candidate, OnDelete, Policy, resolve
from conflict.values import sort_key
from conflict.version import NO_CONTENT

POLICIES: list[Policy] = [
    LastWriteWins(),
    Precedence("status", ["pending", "approved", "rejected"]),
    FieldRules({"n": "max", "tags": "union"}),
    FieldRules({"n": "min", "tags": "max", "status": "lww"}),
    FieldRules({"n": "union", "note": "union", "status": "min"}),
]


def sealed(side: Candidate) -> Candidate:
    """With the digest of its own fields, as every stored version has."""
    digest = NO_CONTENT if side.deleted else repr(sort_key(side.fields)).encode()
    return Candidate(side.version._replace(digest=digest), side.fields)


def merge(a: Candidate, b: Candidate, *, policy: Policy, on_delete: OnDelete = OnDelete.LWW) -> Candidate:
    """What a replica holds after it has settled the conflict."""
    resolution = resolve(a, b, policy=policy, on_delete=on_delete)
    assert resolution.failure is None
    if resolution.winner is not None:
        return Candidate(resolution.version, resolution.winner.fields)
    assert resolution.fields is not None
    return sealed(Candidate(resolution.version, resolution.fields))


def state(side: Candidate) -> tuple[Any, ...]:
    """All that replicas must agree on."""
    version = side.version
    return (sort_key(side.fields), dict(version.clock), *version.total)
