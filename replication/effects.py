"""What a pure engine wants done: the effects it yields, and the answers it is sent.

Applying changes and flushing analytics events are generators of these, so that a worker drives them with real
clients and threads, and a simulator with one thread, a seed, and every interleaving. The idea is h11's: a
protocol without I/O (https://sans-io.readthedocs.io). When an effect fails, the driver raises the error into
the generator: `Transient`, `ConditionFailed`, `Refused` (see `replication.errors`) or `Expired`.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from replication.errors import ConditionFailed, FirefleetError, Refused, Transient
from replication.ports import Found, Message

E = TypeVar("E")
Observation = TypeVar("Observation")
R = TypeVar("R")


class Expired(FirefleetError):
    """The read that a write was decided on is too old to send the write; nothing was written."""


class Read(NamedTuple):
    """Read documents of a replica; answered by `Reading`."""

    replica: str
    paths: Sequence[str]


class Reading(NamedTuple):
    """What was found, in the order asked for; `at` is the driver's own mark of when the read began."""

    found: list[Found]
    at: float


class BatchWrite(NamedTuple):
    """Write documents at the target, each on its own; answered by a list of `Written`.

    `read_at` is the mark of the read they were decided on; None where they rest on no read.
    """

    writes: Sequence[Any]
    read_at: float | None


class Commit(NamedTuple):
    """Write documents at the target, all or none; answered by the commit time in microseconds."""

    writes: Sequence[Any]
    read_at: float


class Publish(NamedTuple):
    """Publish messages and wait until Pub/Sub has all of them: to the engine's own topic, or its dead letters.

    Raises the first failure; which of the others are published is then unknown.
    """

    messages: Sequence[Message]
    dead_letters: bool = False


class PublishEach(NamedTuple):
    """Publish messages as `Publish` does; answered by a list of what became of each.

    None for a message that Pub/Sub has, else `Transient` or `Refused`.
    """

    messages: Sequence[Message]
    dead_letters: bool = False


class Acknowledge(NamedTuple):
    """These deliveries are done."""

    ack_ids: Sequence[str]


class Postpone(NamedTuple):
    """Release these deliveries, to be delivered again after some seconds (0: at once); they delay no others."""

    ack_ids: Sequence[str]
    seconds: int


class Pause(NamedTuple):
    """Back off before the `attempt`-th repetition; hold the messages meanwhile."""

    attempt: int
    cause: str


class Observe(NamedTuple, Generic[Observation]):
    """Count and log what happened: observations of the engine's own kind."""

    observations: Sequence[Observation]


def patiently(effect: E) -> Generator[E | Pause, Any, Any]:
    """Repeat an idempotent effect until it succeeds, backing off between."""
    attempt = 0
    while True:
        try:
            return (yield effect)
        except Transient as error:
            attempt += 1
            yield Pause(attempt, str(error))


def drive(steps: Generator[E, Any, R], perform: Callable[[E], Any]) -> R:
    """Perform a generator's effects until it ends; returns what it returns.

    An error that an engine knows goes into the generator; any other one closes it, and is raised here.
    """
    answer: Any = None
    error: FirefleetError | None = None
    try:
        while True:
            try:
                effect = steps.send(answer) if error is None else steps.throw(error)
            except StopIteration as ended:
                result: R = ended.value
                return result
            answer = error = None
            try:
                answer = perform(effect)
            except (Transient, ConditionFailed, Refused, Expired) as failure:
                error = failure
    finally:
        steps.close()
