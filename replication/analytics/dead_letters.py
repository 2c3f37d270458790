"""Dead-letter messages that can never be stored: publish them unchanged, then acknowledge them."""

from collections import Counter
from collections.abc import Sequence

from replication.analytics.effects import DeadLettered, LetterRefused, Rejected, Steps
from replication.analytics.job import Job
from replication.changes.dead_letters import dead_letter
from replication.effects import Acknowledge, Observe, Pause, Postpone, PublishEach
from replication.errors import Refused


def dead_letter_all(rejected: Sequence[Rejected], job: Job) -> Steps:
    """Try until the dead-letter topic has them all; release those that it refuses for good."""
    attempt = 0
    while rejected:
        letters = [dead_letter(received, error, job.replica) for received, error in rejected]
        outcomes = yield PublishEach(letters, dead_letters=True)
        done: list[Rejected] = []
        again: list[Rejected] = []
        refused: list[LetterRefused] = []
        released: list[str] = []
        cause = ""
        for item, outcome in zip(rejected, outcomes, strict=True):
            match outcome:
                case None:
                    done.append(item)
                case Refused():
                    refused.append(LetterRefused(item.received.id, outcome))
                    released.append(item.received.ack_id)
                case _:
                    cause = str(outcome)
                    again.append(item)
        if done:
            yield Acknowledge([item.received.ack_id for item in done])
            yield Observe([DeadLettered(_amounts(done, job), done[0])])
        if refused:
            yield Observe(refused)
            yield Postpone(released, 0)
        rejected = again
        if again:
            attempt += 1
            yield Pause(attempt, cause)


def _amounts(done: Sequence[Rejected], job: Job) -> Counter[tuple[str, str]]:
    return Counter((item.error.reason.value, job.schema.type_of(item.received.message)) for item in done)
