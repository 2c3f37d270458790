"""The outbox: capture's publisher, and whether it works."""

import time

from replication.errors import FirefleetError
from replication.ports import Message, Publisher
from workers.runtime.publishing import publish_in_loop

UNREADY_S = 30.0
"""After a failed publish; then an instance gets another chance."""


class Outbox:
    """The publisher as seen from the event loop; remembers whether it works."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._problem = ""
        self._problem_at = 0.0

    async def send(self, message: Message) -> None:
        """Return when Pub/Sub has the message. Raises `Transient` or `Refused`."""
        try:
            await publish_in_loop(self._publisher, message)
        except FirefleetError as error:
            self._problem, self._problem_at = str(error), time.monotonic()
            raise
        self._problem = ""

    def problem(self) -> str | None:
        """The last publish's failure, while it is recent."""
        recent = time.monotonic() - self._problem_at < UNREADY_S
        return self._problem if self._problem and recent else None
