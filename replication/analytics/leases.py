"""Which deliveries a worker holds, and when Pub/Sub must be asked to wait longer for them."""

from collections import OrderedDict
from collections.abc import Iterable


class Leases:
    """Held deliveries by when they were last extended. Times are monotonic seconds."""

    def __init__(self, *, deadline_s: float) -> None:
        # A third: two more tries before the deadline, should one fail.
        self._renew_s = deadline_s / 3
        self._renewed: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._renewed)

    def add(self, ack_ids: Iterable[str], *, now: float) -> None:
        """These have just been delivered."""
        for ack_id in ack_ids:
            self._renewed[ack_id] = now

    def drop(self, ack_ids: Iterable[str]) -> None:
        """These are acknowledged or released."""
        for ack_id in ack_ids:
            self._renewed.pop(ack_id, None)

    def due(self, *, now: float) -> list[str]:
        """What has to be extended now; taken to be extended by the caller."""
        due = []
        for ack_id, renewed in self._renewed.items():
            if now - renewed < self._renew_s:
                break  # in the order of their times
            due.append(ack_id)
        for ack_id in due:
            self._renewed.move_to_end(ack_id)
            self._renewed[ack_id] = now
        return due
