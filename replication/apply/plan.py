"""Decide what becomes of one document at one replica: pure, from what was read and what arrived.

Rules and table: "Applying" in ARCHITECTURE.md. Changes of one document are applied one after the
other in memory, starting from the local state, and written once. Do not fold the changes with each other
first: that loses writes, because no one ever wrote the merge of two changes.
"""

from collections.abc import Sequence
from typing import NamedTuple, assert_never

from conflict.policies import LastWriteWins
from conflict.reconcile import Relation, reconcile
from conflict.resolve import Candidate, Resolution, resolve
from conflict.version import Version, with_clock_of
from replication.apply.outcomes import Conflict, ConflictKind, Outcome, State
from replication.changes.decode import Change
from replication.changes.envelope import Kind
from replication.documents.metadata import MetadataCodec
from replication.documents.plain import BodyFields, body_of
from replication.documents.stored import Snapshot, Tombstone, version_at
from replication.fleet.model import Mode, Rule


class Local(NamedTuple):
    """What a replica holds of one document, as read. Times in microseconds.

    `tombstone` is None where it was not read: nothing deletes the document, and it exists, or is taken never
    to have existed, which the guard of its create proves.
    """

    path: str
    document: Snapshot | None
    tombstone: Tombstone | None
    read_time: int

    @property
    def update_time(self) -> int:
        """The document's; 0 if it does not exist."""
        return self.document.update_time if self.document else 0

    def state(self, replica: str) -> State | None:
        """The state found at `replica`; None where nothing is known of the document."""
        if self.document is not None:
            return State(version_at(self.document, replica), self.document.body)
        if self.tombstone is not None and self.tombstone.version is not None:
            return State(self.tombstone.version, None)
        return None


class Plan(NamedTuple):
    """What to do about one document.

    `state` is what stands in the end, `writes` whether it has to be written, `merged` whether the write
    resolves a conflict; `outcomes` has one entry per change; `behind` are the replicas to send `state` to.
    """

    state: State | None
    writes: bool
    merged: bool
    outcomes: tuple[Outcome, ...]
    conflicts: tuple[Conflict, ...] = ()
    behind: frozenset[str] = frozenset()


class _Step(NamedTuple):
    """One change applied to one state. `merged`: this step merged two histories."""

    state: State | None
    outcome: Outcome
    merged: bool = False
    conflict: Conflict | None = None
    sender_behind: bool = False


class _Case(NamedTuple):
    """What a document's changes are decided by."""

    rule: Rule
    codec: MetadataCodec
    primary: State | None


def plan(
    changes: Sequence[Change],
    local: Local,
    *,
    replica: str,
    rule: Rule,
    codec: MetadataCodec,
    primary: State | None = None,
) -> Plan:
    """Decide what becomes of the document that `changes` are of, at `replica`, where it is `local`.

    `codec` gives a computed body its digest, and names the field that no policy may compute. `primary` is the
    primary's own state, read after `local`; looked at only for violations.
    """
    case = _Case(rule, codec, primary)
    start = local.state(replica)
    state, merged = start, False
    outcomes: list[Outcome] = []
    conflicts: list[Conflict] = []
    behind: set[str] = set()
    for change in changes:
        step = _apply(change, state, case)
        state, merged = step.state, merged or step.merged
        outcomes.append(step.outcome)
        if step.conflict is not None:
            conflicts.append(step.conflict)
        if step.sender_behind and change.source != replica:
            behind.add(change.source)
    return Plan(
        state,
        writes=state is not start,
        merged=merged,
        outcomes=tuple(outcomes),
        conflicts=tuple(conflicts),
        behind=frozenset(behind),
    )


def _apply(change: Change, local: State | None, case: _Case) -> _Step:
    if change.kind is Kind.VIOLATION:
        return _revert(change, local, case)
    incoming = State(change.version, change.body)
    if local is None:
        return _Step(incoming, Outcome.APPLIED)
    if case.rule.mode is Mode.SINGLE_PRIMARY:
        return _follow_primary(incoming, local, case.rule)
    relation = reconcile(incoming.version, local.version)
    match relation:
        case Relation.DESCENDS:
            return _Step(incoming, Outcome.APPLIED)
        case Relation.ANCESTOR:
            # A merge that is older than the state here: no one else will send that to its replica.
            return _Step(local, Outcome.STALE, sender_behind=change.kind is Kind.MERGED)
        case Relation.SAME:
            return _Step(local, Outcome.DUPLICATE)
        case Relation.TIED_ABOVE:
            return _Step(incoming, Outcome.APPLIED, merged=True)
        case Relation.TIED_BELOW:
            return _Step(local, Outcome.STALE)
        case Relation.SUPERSEDES:
            return _Step(_keep(incoming, local), Outcome.APPLIED, merged=True)
        case Relation.SUPERSEDED:
            return _Step(_keep(local, incoming), Outcome.STALE, merged=True)
        case Relation.CONCURRENT:
            return _resolve_concurrent(change.path, incoming, local, case)
        case _:
            assert_never(relation)


def _keep(winner: State, other: State) -> State:
    return winner._replace(version=with_clock_of(winner.version, other.version))


def _resolve_concurrent(path: str, incoming: State, local: State, case: _Case) -> _Step:
    if incoming.version.same_content(local.version):
        larger, smaller = (
            (incoming, local) if incoming.version.order > local.version.order else (local, incoming)
        )
        return _Step(_keep(larger, smaller), Outcome.DUPLICATE, merged=True)
    state, failure = _resolved(incoming, local, case)
    conflict = Conflict(
        path,
        ConflictKind.CONFLICT,
        sides=(incoming, local),
        winner=state,
        policy=case.rule.policy.name,
        failure=failure,
    )
    return _Step(state, Outcome.CONFLICT, merged=True, conflict=conflict)


def _resolved(incoming: State, local: State, case: _Case) -> tuple[State, str | None]:
    rule = case.rule
    ours, theirs = BodyFields(local.body), BodyFields(incoming.body)
    a, b = Candidate(local.version, ours), Candidate(incoming.version, theirs)
    resolution = resolve(a, b, policy=rule.policy, on_delete=rule.on_delete)
    failure = resolution.failure
    if resolution.fields is not None:
        try:
            body = body_of(resolution.fields, ours, theirs, reserved=case.codec.field)
        except Exception as error:  # noqa: BLE001
            # As in `resolve`: the fields are the application's, and a lazy mapping may raise anything.
            resolution, failure = resolve(a, b, policy=LastWriteWins()), error
        else:
            return State(resolution.version._replace(digest=case.codec.digest(body)), body), None
    return _winning(resolution, a, local, incoming), repr(failure) if failure else None


def _winning(resolution: Resolution, a: Candidate, local: State, incoming: State) -> State:
    winner = local if resolution.winner is a else incoming
    return State(resolution.version, winner.body)


def _follow_primary(incoming: State, local: State, rule: Rule) -> _Step:
    """Only the primary writes, so only its component of the clock says which is newer."""
    mine, theirs = _primary_dot(incoming, rule), _primary_dot(local, rule)
    if mine > theirs:
        return _Step(incoming, Outcome.APPLIED)
    if mine < theirs:
        return _Step(local, Outcome.STALE)
    if incoming.version.same_content(local.version):
        return _Step(local, Outcome.DUPLICATE)
    # The same write of the primary, but the local copy was altered or deleted since.
    return _Step(incoming, Outcome.APPLIED)


def _primary_dot(state: State, rule: Rule) -> int:
    return state.version.clock.get(rule.primary or "", 0)


def _revert(change: Change, local: State | None, case: _Case) -> _Step:
    """Put the primary's document, or its absence, back over a write that was not the primary's."""
    violating = State(change.version, change.body)
    rule = case.rule
    right = case.primary or State(Version({}, 0, rule.primary or "", 0, deleted=True), None)
    conflict = Conflict(
        change.path,
        ConflictKind.VIOLATION,
        sides=(violating, right),
        winner=right,
        policy="single-primary",
        primary=rule.primary or "",
    )
    if _stands(local, right, rule):
        return _Step(local, Outcome.VIOLATION, conflict=conflict)
    return _Step(right, Outcome.VIOLATION, conflict=conflict)


def _stands(local: State | None, right: State, rule: Rule) -> bool:
    """Whether the local state needs no reverting: it is the primary's, or already newer than what was read.

    The same content is not enough: a copy that has lost the primary's dot would give way to the primary's
    older writes when they are delivered again.
    """
    if local is None:
        return right.version.deleted
    mine, its = _primary_dot(local, rule), _primary_dot(right, rule)
    return mine > its or (mine == its and right.version.same_content(local.version))
