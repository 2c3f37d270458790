"""What applying a batch wants done: the effects it yields, and what it is answered.

Applying is a generator of these, so that a worker drives it with real clients and threads, and a simulator
with one thread, a seed, and every interleaving. The idea is h11's: a protocol without I/O
(https://sans-io.readthedocs.io). A driver raises into the generator, where an effect failed so: `Transient`,
`ConditionFailed`, `Refused` (see `replication.errors`) or `Expired`.
"""

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

from replication.apply.plan import Conflict, Outcome
from replication.errors import FirefleetError, Transient
from replication.ports import Found, Message


class Expired(FirefleetError):
    """The read a write was decided on is too long ago for the write to be sent; nothing was written."""


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
    """Publish messages, to the changes' topic or the dead letters', and wait until Pub/Sub has them."""

    messages: Sequence[Message]
    dead_letters: bool = False


class Acknowledge(NamedTuple):
    """These deliveries are done."""

    ack_ids: Sequence[str]


class Postpone(NamedTuple):
    """Let these deliveries go, to be delivered again after some seconds; others are not held up by them."""

    ack_ids: Sequence[str]
    seconds: int


class Pause(NamedTuple):
    """Back off before the `attempt`-th repetition; hold the messages meanwhile."""

    attempt: int
    cause: str


class Observe(NamedTuple):
    """Count and log what happened."""

    observations: Sequence["Observation"]


Effect = Read | BatchWrite | Commit | Publish | Acknowledge | Postpone | Pause | Observe
Steps = Generator[Effect, Any, None]


class Observation(NamedTuple):
    """What became of one message.

    `commit_time` is the source's, in microseconds; `lag_us` the target's commit time minus that, None where
    nothing was written for it. `conflict`
    is what it decided, `faults` what was not believed of the metadata it met; `reason` and `text` say why it
    became a dead letter, `letter` is that one's id.
    """

    outcome: Outcome
    message_id: str
    source: str
    path: str = ""
    commit_time: int = 0
    lag_us: int | None = None
    conflict: Conflict | None = None
    faults: tuple[str, ...] = ()
    reason: str = ""
    text: str = ""
    letter: str = ""


def patiently(effect: Effect) -> Generator[Effect, Any, Any]:
    """Repeat an idempotent effect until it succeeds, backing off between."""
    attempt = 0
    while True:
        try:
            return (yield effect)
        except Transient as error:
            attempt += 1
            yield Pause(attempt, str(error))
