"""What a worker remembers beyond what it holds: what it wrote lately, and how fast each user sends.

Both are bounded and forget the oldest. Forgetting costs efficiency or strictness, never an event: a forgotten
identity is found again by the document's name or by the reader, a forgotten user starts with a full bucket.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from replication.configuration.analytics import Throttle
from replication.documents.wire import MICROS


class Recent:
    """The identities of the last `size` events that were stored."""

    def __init__(self, size: int) -> None:
        self._size = size
        # Ordered, because a plain dictionary takes ever longer to find its first entry.
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, identity: bytes) -> bool:
        return identity in self._seen

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, identities: Iterable[bytes]) -> None:
        """Remember these; what was added longest ago is forgotten."""
        for identity in identities:
            self._seen[identity] = None
        while len(self._seen) > self._size:
            self._seen.popitem(last=False)


class TokenBuckets:
    """A token bucket for each type and user (https://en.wikipedia.org/wiki/Token_bucket), `users` at most.

    Time is the messages' publish time: a backlog that is processed in seconds was still sent over minutes,
    and is judged by that. A message delivered late sees the bucket as of the latest one before it.
    """

    def __init__(self, rules: Mapping[str, Throttle | None], *, users: int) -> None:
        self._rules = rules
        self._users = users
        self._buckets: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, event_type: str, user: str, *, time: int) -> bool:
        """Take a token for an event published at `time` (µs); False if none is left."""
        rule = self._rules.get(event_type)
        if rule is None:
            return True
        key = (event_type, user)
        tokens, last = self._buckets.pop(key, (float(rule.burst), time))
        now = max(time, last)
        tokens = min(float(rule.burst), tokens + (now - last) / MICROS * rule.rate)
        allowed = tokens >= 1
        self._buckets[key] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > self._users:
            self._buckets.popitem(last=False)
        return allowed
