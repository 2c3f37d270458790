"""Planted faults of the analytics engine, and the hunt for each: proof that the rules of the world see them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple
from unittest.mock import patch

from replication.analytics.buffer import Buffer, Fate
from replication.effects import Acknowledge, PublishEach
from replication.errors import Refused, Transient
from replication.ports import Status, Written
from tests.simulation.analytics.runner import live

FLUSH: Any = import_module("replication.analytics.flush")
INTAKE: Any = import_module("replication.analytics.intake")

TRIES_MAX = 400


@contextmanager
def _planted(owner: Any, name: str, new: Any) -> Iterator[None]:
    with patch.object(owner, name, new):
        yield


def acknowledged_before_stored() -> AbstractContextManager[None]:
    store = FLUSH._store

    def early(units: Sequence[Any], job: Any, output: Any) -> Any:
        yield Acknowledge([held.received.ack_id for unit in units for held in unit.members])
        return (yield from store(units, job, output))

    return _planted(FLUSH, "_store", early)


def unknown_taken_for_landed() -> AbstractContextManager[None]:
    write, record = FLUSH._write, FLUSH._record

    def landed(units: Sequence[Any], request: Any, job: Any, output: Any) -> Any:
        try:
            yield from write(units, request, job, output)
        except Transient:
            present = [unit for unit in units if unit.path in request.waiting]
            yield from record(present, [Written(Status.OK, 1)] * len(present), request, job, output)

    return _planted(FLUSH, "_write", landed)


def busy_taken_for_written() -> AbstractContextManager[None]:
    record = FLUSH._record

    def ignoring(units: Any, outcomes: Any, request: Any, job: Any, output: Any) -> Any:
        known = [Written(Status.OK, 1) if outcome.code == 14 else outcome for outcome in outcomes]
        yield from record(units, known, request, job, output)

    return _planted(FLUSH, "_record", ignoring)


def refused_events_delay_their_flush() -> AbstractContextManager[None]:
    store = FLUSH._store

    def giving_up(units: Any, job: Any, output: Any) -> Any:
        refused = yield from store(units, job, output)
        yield from FLUSH._give_up(refused, job)
        return []

    return _planted(FLUSH, "_store", giving_up)


def refused_events_dropped() -> AbstractContextManager[None]:
    def dropping(refused: Any, job: Any) -> Any:
        if refused:
            yield Acknowledge([item.held.received.ack_id for item in refused])

    return _planted(FLUSH, "_give_up", dropping)


def copies_acknowledged_at_once() -> AbstractContextManager[None]:
    offer = Buffer.offer

    def hasty(self: Buffer, *given: Any) -> Fate:
        fate = offer(self, *given)
        return Fate.DUPLICATE if fate is Fate.COPY else fate

    return _planted(Buffer, "offer", hasty)


def warehouse_after_the_acknowledgement() -> AbstractContextManager[None]:
    settle = FLUSH._settle

    def late(written: Any, present: Any, request: Any, job: Any) -> Any:
        steps = settle(written, present, request, job)
        answer: Any = None
        delayed: list[Any] = []
        while (effect := _next(steps, answer)) is not None:
            if isinstance(effect, PublishEach):
                delayed.append(effect)
                answer = [None] * len(effect.messages)
            else:
                answer = yield effect
        for effect in delayed:
            yield effect

    return _planted(FLUSH, "_settle", late)


def copies_published_without_a_second_try() -> AbstractContextManager[None]:
    def once(held: Any, job: Any) -> Any:
        yield PublishEach([job.anonymiser.copy(event) for event in held])

    return _planted(FLUSH, "_pass_on", once)


def refused_letters_acknowledged() -> AbstractContextManager[None]:
    dead_letter_all = INTAKE.dead_letter_all

    def careless(rejected: Any, job: Any) -> Any:
        steps = dead_letter_all(rejected, job)
        answer: Any = None
        while (effect := _next(steps, answer)) is not None:
            answer = yield effect
            if isinstance(effect, PublishEach):
                answer = [None if isinstance(outcome, Refused) else outcome for outcome in answer]

    return _planted(INTAKE, "dead_letter_all", careless)


def unfinished_events_forgotten() -> AbstractContextManager[None]:
    return _planted(Buffer, "unsettled", lambda _self, _held: [])


def copies_of_stored_events_forgotten() -> AbstractContextManager[None]:
    stored = Buffer.stored
    return _planted(Buffer, "stored", lambda self, held: stored(self, held)[:1])


def pulls_beyond_the_bound() -> AbstractContextManager[None]:
    return _planted(Buffer, "reserve", lambda _self, limit: limit)


def _next(steps: Any, answer: Any) -> Any:
    """The next effect of steps; None at their end."""
    try:
        return steps.send(answer)
    except StopIteration:
        return None


@dataclass(frozen=True, slots=True)
class Fault:
    """A planted fault, the knobs its hunt forces, and the rule that finds it."""

    name: str
    plant: Callable[[], AbstractContextManager[None]]
    rule: str
    knobs: Mapping[str, Any] = field(default_factory=dict)


class Found(NamedTuple):
    """The seed that found a fault, after how many histories, and the rule it broke."""

    seed: int
    tries: int
    rule: str


FAULTS: tuple[Fault, ...] = (
    Fault("acknowledged before stored", acknowledged_before_stored, "durable_before_acknowledged"),
    Fault(
        "unknown outcomes taken for landed",
        unknown_taken_for_landed,
        "durable_before_acknowledged",
        {"failures": 150},
    ),
    Fault(
        "a busy database taken for written",
        busy_taken_for_written,
        "durable_before_acknowledged",
        {"failures": 150},
    ),
    Fault(
        "refused events delay their flush",
        refused_events_delay_their_flush,
        "refused_delay_no_others",
        {"cursed": 150, "documents_max": 1},
    ),
    Fault("refused events dropped", refused_events_dropped, "durable_before_acknowledged", {"cursed": 150}),
    Fault("copies acknowledged at once", copies_acknowledged_at_once, "durable_before_acknowledged"),
    Fault(
        "the warehouse's copy after the acknowledgement",
        warehouse_after_the_acknowledgement,
        "copies",
        {"crashes": 15, "failures": 0, "throttled": False},
    ),
    Fault(
        "the warehouse's copy without a second try",
        copies_published_without_a_second_try,
        "copies",
        {"failures": 150},
    ),
    Fault(
        "refused dead letters acknowledged",
        refused_letters_acknowledged,
        "durable_before_acknowledged",
        {"failures": 150, "letters_down": False},
    ),
    Fault("unfinished events forgotten", unfinished_events_forgotten, "comes_to_rest", {"stops": 15}),
    Fault("copies of stored events forgotten", copies_of_stored_events_forgotten, "comes_to_rest"),
    Fault("pulls beyond the bound", pulls_beyond_the_bound, "bounded", {"buffer": 6, "limit": 30}),
)


def hunt(fault: Fault, *, tries_max: int = TRIES_MAX) -> Found | None:
    """Plant a fault and live histories until one breaks a rule; None if none does."""
    with fault.plant():
        for seed in range(tries_max):
            if wrong := live(seed, **fault.knobs).wrong:
                return Found(seed, seed + 1, wrong[0][0])
    return None
