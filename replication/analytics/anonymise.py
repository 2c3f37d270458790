"""The copy of an event that may leave its region: without user ids and private fields.

User ids become pseudonyms: HMAC-SHA256 (RFC 2104) under a key that never leaves the workers, cut to 128 bits.
Equal ids give equal pseudonyms, so users can be counted and joined, and whoever lacks the key can neither name
one nor try a list of ids. Throw the key away, and the copies are anonymous for good.

`user` and the event's `id` (it may be made of the user's) always; with `warehouse.users` more fields. Each raw
id that is found there is replaced wherever else it appears in the payload, inside longer texts too.
"""

import hmac
import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from replication.analytics.buffer import HeldEvent
from replication.configuration.analytics import Warehouse
from replication.documents.wire import time_text
from replication.ports import Message

_PSEUDONYM_BYTES = 16


class Anonymiser:
    """Makes the warehouse's copies under one key."""

    def __init__(self, warehouse: Warehouse, key: bytes) -> None:
        self._key = key
        self._users = frozenset(warehouse.users)
        self._drop = frozenset(warehouse.drop)

    def copy(self, held: HeldEvent) -> Message:
        """The copy of one event. `key` in it is equal for events that are duplicates of one another."""
        event = held.event
        payload = orjson.loads(held.received.message.data)["payload"]
        raw = {event.user, *self._ids_in(payload)} - {""}
        # Longest first: one id may be the beginning of another.
        replacements = {one: self.pseudonym(one) for one in sorted(raw, key=len, reverse=True)}
        body = {
            "id": self._keyed(b"id", event.id.encode()),
            "key": self._keyed(b"key", event.identities[-1]),
            "type": event.type,
            "region": event.region,
            "user": replacements[event.user],
            "time": time_text(event.time),
            "payload": self._cleaned(payload, replacements),
        }
        if held.sampled < 1:
            body["sampled"] = held.sampled
        return Message(orjson.dumps(body), {"type": event.type, "region": event.region})

    def pseudonym(self, user: str) -> str:
        """What stands for a user in all copies."""
        return self._keyed(b"user", user.encode())

    def _keyed(self, domain: bytes, value: bytes) -> str:
        return hmac.digest(self._key, domain + b"\0" + value, "sha256")[:_PSEUDONYM_BYTES].hex()

    def _ids_in(self, value: Any) -> Iterator[str]:
        """Every raw id in the fields that hold user ids, at any depth."""
        if isinstance(value, dict):
            for name, inner in value.items():
                yield from _texts(inner) if name in self._users else self._ids_in(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from self._ids_in(inner)

    def _cleaned(self, value: Any, replacements: Mapping[str, str]) -> Any:
        match value:
            case dict():
                return {
                    _replaced(name, replacements): self._cleaned(inner, replacements)
                    for name, inner in value.items()
                    if name not in self._drop
                }
            case list():
                return [self._cleaned(inner, replacements) for inner in value]
            case str():
                return _replaced(value, replacements)
            case bool() | None:
                return value
            case _:
                return replacements.get(str(value), value)


def _texts(value: Any) -> Iterator[str]:
    """Every text and number at any depth of a value, as text."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield str(value)


def _replaced(text: str, replacements: Mapping[str, str]) -> str:
    if text in replacements:
        return replacements[text]
    if not any(raw in text for raw in replacements):
        return text
    # In one pass: an id must not be found again inside another one's pseudonym.
    return re.sub("|".join(map(re.escape, replacements)), lambda found: replacements[found[0]], text)
