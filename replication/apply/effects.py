"""What applying a batch yields: effects of `replication.effects`, and its own observations."""

from collections.abc import Generator
from typing import Any, NamedTuple

from replication.apply.outcomes import Conflict, Outcome
from replication.effects import Acknowledge, BatchWrite, Commit, Observe, Pause, Postpone, Publish, Read


class Observation(NamedTuple):
    """What became of one message.

    `commit_time` is the source's, in microseconds; `lag_us` the target's commit time minus that, None where
    nothing was written for it. `conflict` is what it decided, `faults` what was not believed of the metadata it
    met; `reason` and `text` say why it became a dead letter, `letter` is that one's id.
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


Effect = Read | BatchWrite | Commit | Publish | Acknowledge | Postpone | Pause | Observe[Observation]
Steps = Generator[Effect, Any, None]
