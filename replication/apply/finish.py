"""What follows a round of writes: dead letters, messages to others, observations, the acknowledgement.

Only what has a durable outcome is finished; the rest waits for the next round. Whatever else a capability
does after a durable write is one function in `AFTER_STORE`, run in that order before the acknowledgement.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from replication.apply.effects import Observation, Steps
from replication.apply.outcomes import Outcome
from replication.apply.plan import Local, Plan
from replication.apply.sorting import Refusal, Waiting
from replication.apply.store import Results
from replication.apply.writes import Unit, push_back
from replication.changes.dead_letters import dead_letter, letter_id
from replication.effects import Acknowledge, Observe, Publish, patiently
from replication.errors import EventError, Reason
from replication.fleet.model import Target
from replication.limits import DOCUMENT_BYTES_MAX
from replication.ports import Message

TOO_LARGE_BYTES = DOCUMENT_BYTES_MAX - 64 * 1024
"""A refused write this large was refused for its size: Firestore counts somewhat otherwise than protobuf."""


class Decided(NamedTuple):
    """A document, what was found of it, and what was decided; `unit` holds the writes, where there are any."""

    document: Waiting
    local: Local
    plan: Plan
    unit: Unit | None


class Durable(NamedTuple):
    """A decided document whose outcome is durable; `commit_time` (µs) is None where nothing was written."""

    decided: Decided
    commit_time: int | None


def finish(decided: Sequence[Decided], results: Results, target: Target) -> Steps:
    """Finish what has a durable outcome; leave the rest to the next round."""
    durable: list[Durable] = []
    dead: list[Refusal] = []
    for item in decided:
        document = item.document
        if document.path in results.refused:
            dead += _refuse(item, results.refused[document.path], target)
        elif document.path in results.unsure:
            document.unsure = True
        elif document.path in results.raced:
            document.raced = True
        else:
            durable.append(Durable(item, results.written.get(document.path)))
    for follow in AFTER_STORE:
        yield from follow(durable, target)
    yield from _acknowledge(durable)
    yield from send_to_dead_letters(dead, target)


def tell_who_is_behind(durable: Sequence[Durable], target: Target) -> Steps:
    """Push back: publish the state here to the replicas whose merges were older."""
    messages: list[Message] = []
    for done in durable:
        if done.decided.plan.behind:
            messages += _push_backs(done.decided, done.commit_time, target)
    if messages:
        yield from patiently(Publish(messages))


AfterStore = Callable[[Sequence[Durable], Target], Steps]
AFTER_STORE: tuple[AfterStore, ...] = (tell_who_is_behind,)


def send_to_dead_letters(refusals: Sequence[Refusal], target: Target) -> Steps:
    """Publish messages that can never be applied with their reasons, then acknowledge them."""
    if not refusals:
        return
    letters = [
        dead_letter(refusal.received, refusal.error, target.replica.id, path=refusal.path)
        for refusal in refusals
    ]
    yield from patiently(Publish(letters, dead_letters=True))
    yield Observe([_observed(refusal, target) for refusal in refusals])
    yield Acknowledge([refusal.received.ack_id for refusal in refusals])


def _observed(refusal: Refusal, target: Target) -> Observation:
    received, error, path = refusal
    replica = received.message.attributes.get("replica", "")
    # Only a known replica's id becomes a label: made-up ones would be without end.
    source = replica if replica in target.fleet.replicas else ""
    return Observation(
        Outcome.DEAD_LETTER,
        received.id,
        source,
        path,
        reason=error.reason,
        text=str(error),
        letter=letter_id(received, target.replica.id),
    )


def _acknowledge(durable: Sequence[Durable]) -> Steps:
    observations: list[Observation] = []
    ack_ids: list[str] = []
    for item, commit_time in durable:
        observations += _observations(item, commit_time)
        due = item.document.due
        ack_ids += [done.received.ack_id for done in due]
        item.document.arrivals = item.document.arrivals[len(due) :]
    if ack_ids:
        yield Observe(observations)
        yield Acknowledge(ack_ids)


def _refuse(item: Decided, text: str, target: Target) -> list[Refusal]:
    document = item.document
    if len(document.due) > 1:
        # One of several changes is at fault: apply them one at a time, so that the others land.
        document.alone = True
        return []
    large = item.unit is not None and item.unit.bytes > TOO_LARGE_BYTES
    error = EventError(
        Reason.TOO_LARGE if large else Reason.INVALID,
        f"{document.path!r} cannot be written at {target.replica.id!r}"
        f"{f' (about {item.unit.bytes} bytes with its metadata)' if item.unit else ''}: {text}",
    )
    received = document.arrivals.pop(0).received
    return [Refusal(received, error, document.path)]


def _push_backs(item: Decided, commit_time: int | None, target: Target) -> list[Message]:
    local = item.local
    stands = commit_time or local.update_time or (local.tombstone.update_time if local.tombstone else 0)
    return [
        push_back(item.plan, local, target, receiver=receiver, commit_time=stands)
        for receiver in sorted(item.plan.behind)
    ]


def _observations(item: Decided, commit_time: int | None) -> list[Observation]:
    local = item.local
    fault = (local.document.fault,) if local.document and local.document.fault else ()
    conflicts = iter(item.plan.conflicts)
    observations = []
    for done, planned in zip(item.document.due, item.plan.outcomes, strict=True):
        change, outcome, landed = done.change, planned, commit_time
        if item.document.unsure and outcome is Outcome.DUPLICATE:
            # An earlier write of unknown outcome had landed.
            outcome, landed = Outcome.APPLIED, landed or local.update_time
        counts = outcome in (Outcome.APPLIED, Outcome.CONFLICT) and landed is not None
        observations.append(
            Observation(
                outcome,
                done.received.id,
                change.source,
                change.path,
                change.commit_time,
                lag_us=landed - change.commit_time if counts and landed else None,
                conflict=next(conflicts) if outcome in (Outcome.CONFLICT, Outcome.VIOLATION) else None,
                faults=change.faults + fault,
            )
        )
    return observations
