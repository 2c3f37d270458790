"""Synthetic analytics events for any configuration: Zipf users, duplicates, wrong ones, and a manifest.

What is generated follows from the seed and the settings alone, except for times. A duplicate repeats an event
as a retrying publisher does (the same bytes), or as an impatient user does: another id, the same dedupe key in
the same window. Wrong events are wrong in every way that a worker distinguishes.

The manifest has a line for each message: `message` (also the message's attribute `event`), `id`, `group` (equal
for duplicates of one another), `type`, `user`, `valid`. It is what a harness compares the outcome with.
"""

import itertools
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from replication.configuration.analytics import Analytics, TypeRules
from replication.documents.wire import time_text
from replication.ports import Message

USERS = 10_000
ZIPF_EXPONENT = 1.1
"""The most active user sends about a seventh of all events, the hundredth a thousandth."""
DUPLICATES, INVALID = 0.10, 0.01
_RECENT = 2_000


class Generated(NamedTuple):
    """One message, and its line of the manifest."""

    message: Message
    line: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What to generate: shares of duplicates and of invalid events, and of how many users."""

    duplicates: float = DUPLICATES
    invalid: float = INVALID
    users: int = USERS


@dataclass(frozen=True, slots=True)
class _Made:
    body: dict[str, Any]
    group: str


class Generator:
    """Makes messages for the workers of one region. `now` gives microseconds since 1970."""

    def __init__(
        self, settings: Analytics, *, region: str, seed: int, now: Callable[[], int], mix: Mix | None = None
    ) -> None:
        self._types = settings.types
        self._region = region
        self._now = now
        self._mix = mix or Mix()
        self._random = random.Random(seed)  # noqa: S311  test data, not a secret
        self._run = f"{self._random.getrandbits(32):08x}"
        weights = (1 / rank**ZIPF_EXPONENT for rank in range(1, self._mix.users + 1))
        self._weights = list(itertools.accumulate(weights))
        self._recent: deque[_Made] = deque(maxlen=_RECENT)
        self._number = 0

    def messages(self, count: int) -> Iterator[Generated]:
        """The next `count` messages."""
        for _ in range(count):
            self._number += 1
            draw = self._random.random()
            if draw < self._mix.invalid:
                yield self._wrong()
            elif draw < self._mix.invalid + self._mix.duplicates and self._recent:
                yield self._repeated()
            else:
                made = self._made()
                self._recent.append(made)
                yield self._generated(made.body, made.group)

    def _made(self) -> _Made:
        name = self._random.choice(sorted(self._types))
        event_id = f"{self._run}-{self._number}"
        body = {
            "id": event_id,
            "type": name,
            "user": f"user-{self._rank():06d}",
            "time": time_text(self._now()),
            "payload": self._payload(self._types[name]),
        }
        return _Made(body, event_id)

    def _rank(self) -> int:
        [rank] = self._random.choices(range(self._mix.users), cum_weights=self._weights)
        return rank

    def _payload(self, rules: TypeRules) -> dict[str, Any]:
        # A field of the key differs from event to event, so that a duplicate is one on purpose.
        return {
            name: self._unique(kind) if name in rules.key else self._value(kind)
            for name, kind in rules.payload.items()
        }

    def _unique(self, kind: str) -> Any:
        bits = self._random.getrandbits(48)
        return {"integer": bits, "boolean": bool(bits % 2)}.get(kind, f"{bits:012x}")

    def _value(self, kind: str) -> Any:
        draw = self._random
        match kind:
            case "string":
                return draw.choice(("left", "right", "home", "profile", "settings", "größer", "日本"))
            case "integer":
                return draw.randrange(1_000)
            case "number":
                return round(draw.uniform(0, 100), 2)
            case "boolean":
                return draw.random() < 0.5
            case "timestamp":
                return time_text(self._now())
            case "object":
                return {"os": draw.choice(("ios", "android", "web")), "version": draw.randrange(50)}
            case _:
                return [draw.randrange(10) for _ in range(draw.randrange(4))]

    def _repeated(self) -> Generated:
        made = self._random.choice(self._recent)
        body = made.body
        if self._types[body["type"]].key and self._random.random() < 0.3:
            body = {**body, "id": f"{self._run}-{self._number}"}
        return self._generated(body, made.group)

    def _wrong(self) -> Generated:
        made = self._made()
        body, attributes = dict(made.body), {"region": self._region, "type": made.body["type"]}
        data: bytes | None = None
        match self._random.randrange(7):
            case 0:
                data = orjson.dumps(body)[:-9]
            case 1:
                del body["user"]
            case 2:
                body["payload"] = None
            case 3:
                body["time"] = "yesterday"
            case 4:
                attributes["type"] = "no-such-type"
            case 5:
                del attributes["region"]
            case _:
                body["id"] = ""
        return self._generated(body, made.group, attributes=attributes, data=data, valid=False)

    def _generated(
        self,
        body: dict[str, Any],
        group: str,
        *,
        attributes: dict[str, str] | None = None,
        data: bytes | None = None,
        valid: bool = True,
    ) -> Generated:
        if attributes is None:
            attributes = {"region": self._region, "type": body["type"]}
        message = f"{self._run}-m{self._number}"
        line = {
            "message": message,
            "id": body.get("id"),
            "group": group,
            "type": body["type"],
            "user": body.get("user"),
            "valid": valid,
        }
        sent = data if data is not None else orjson.dumps(body)
        return Generated(Message(sent, {**attributes, "event": message}), line)
