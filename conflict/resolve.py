"""Resolve a conflict: apply a policy to two concurrent versions.

A policy is a pure function `policy(a, b) -> a | b | fields`. It must be commutative, associative, idempotent
and quick, else replicas still converge, but on one of its answers (equal clocks fall back to the total
order); `conflict.laws` tests that. Deletes are decided by one rule for all policies.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol, assert_never

from conflict.version import Version, with_clock_of

Fields = Mapping[str, Any]
"""A document's fields as plain, read-only values: None, bool, int, float, str, bytes, datetime, list, dict,
`conflict.values.Reference` and `conflict.values.GeoPoint`."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One side of a conflict, as a policy sees it. `fields` is decoded only when it is looked at."""

    version: Version
    fields: Fields = field(default_factory=dict)

    @property
    def deleted(self) -> bool:
        """Whether this side deleted the document; a policy never sees one that did."""
        return self.version.deleted

    @property
    def stamp(self) -> int:
        """When it was written, in microseconds; never earlier than what its writer had seen."""
        return self.version.stamp

    @property
    def origin(self) -> str:
        """The replica it was written at."""
        return self.version.origin


class Policy(Protocol):
    """Chooses between two concurrent versions, or computes the fields that replace both.

    Returns `a`, `b`, or a mapping of fields. A value taken over unchanged from `a.fields` or `b.fields`
    keeps its exact stored form. Must not depend on the order of its arguments, nor on anything but them.
    """

    @property
    def name(self) -> str:
        """What the conflict log and the metrics call it."""
        ...

    def __call__(self, a: Candidate, b: Candidate, /) -> Candidate | Fields: ...


class OnDelete(StrEnum):
    """What happens when one side deleted the document and the other wrote it."""

    LWW = "lww"
    DELETE_WINS = "delete-wins"
    UPDATE_WINS = "update-wins"


@dataclass(frozen=True, slots=True, eq=False)
class Resolution:
    """How a conflict was resolved.

    `version` has both clocks. `winner` is the side whose body stays; None when `fields` replaces both.
    `failure` is what the policy raised, in which case last-write-wins decided.
    """

    version: Version
    winner: Candidate | None
    fields: Fields | None = None
    failure: Exception | None = None


def last_write(a: Candidate, b: Candidate) -> Candidate:
    """The side that is larger in the total order."""
    return a if a.version.total > b.version.total else b


def resolve(a: Candidate, b: Candidate, *, policy: Policy, on_delete: OnDelete = OnDelete.LWW) -> Resolution:
    """Resolve a conflict between two concurrent versions; never raises because of a policy.

    The result's digest is the winner's; that of computed fields is for the caller to set, who knows their
    stored form.
    """
    if a.deleted or b.deleted:
        return _keep(_settle_delete(a, b, on_delete), a, b)
    try:
        answer = policy(a, b)
        if answer is a or answer is b:
            return _keep(a if answer is a else b, a, b)
        if not isinstance(answer, Mapping):
            raise TypeError(f"the policy returned {type(answer).__name__}, not a side or fields")
    except Exception as failure:  # noqa: BLE001
        # A policy is the application's code: whatever it raises must not stop the stream. The conflict is
        # logged as failed, with both bodies.
        return replace(_keep(last_write(a, b), a, b), failure=failure)
    latest, earlier = (a, b) if last_write(a, b) is a else (b, a)
    version = with_clock_of(latest.version, earlier.version)._replace(mixed=True)
    return Resolution(version=version, winner=None, fields=answer)


def _keep(winner: Candidate, a: Candidate, b: Candidate) -> Resolution:
    loser = b if winner is a else a
    return Resolution(version=with_clock_of(winner.version, loser.version), winner=winner)


def _settle_delete(a: Candidate, b: Candidate, on_delete: OnDelete) -> Candidate:
    if a.deleted == b.deleted:
        return last_write(a, b)
    gone, kept = (a, b) if a.deleted else (b, a)
    match on_delete:
        case OnDelete.LWW:
            return last_write(a, b)
        case OnDelete.DELETE_WINS:
            return gone
        case OnDelete.UPDATE_WINS:
            return kept
        case _:
            assert_never(on_delete)
