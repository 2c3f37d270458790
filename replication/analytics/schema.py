"""What an event is: its JSON checked against its type's rules, and what makes two events the same.

One pydantic model a type, made once. An event has up to two identities, 16 bytes each: of its `id`, and of its
dedupe key within a window. Windows are of fixed length, aligned to 1970, by the event's own time: so every
worker, now or after a crash, gives an event the same identities, whatever it has seen before. (A window that
slides from the first event needs a memory that workers share.)
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple

import orjson
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from replication.configuration.analytics import Analytics, TypeRules
from replication.errors import EventError, Reason
from replication.ports import Message

PACK_BYTES_MAX = 900_000
"""Of one packed document's events, before compression: the document may have 1 MiB with all its fields."""
EVENT_BYTES_MAX = PACK_BYTES_MAX - 2
"""A larger event fits into no document, with the brackets around it."""
DEPTH_MAX = 20
"""Firestore's limit on maps and arrays inside one another; it also keeps recursion over a body shallow."""
TEXT_MAX = 128
"""Of an id and of a user, in characters: workers keep them in memory."""

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)").fullmatch
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_PROBLEMS_MAX = 3


class AnalyticsEvent(NamedTuple):
    """What a worker knows of a valid event without its body. `time` is its own, in microseconds.

    `identities` has that of the id, then that of the dedupe key where the type has one.
    """

    id: str
    type: str
    region: str
    user: str
    time: int
    identities: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class KeyRule:
    """Which fields make a type's dedupe key, and the length of its windows in microseconds."""

    fields: tuple[str, ...]
    window: int


def identity_of_id(event_id: str) -> bytes:
    """The identity an event has by its id, across types."""
    return _digest(["id", event_id])


def identity_of_key(rule: KeyRule, event_type: str, *, time: int, user: str, payload: Any) -> bytes:
    """The identity an event has by its dedupe key, in the window of the event's time (µs)."""
    values = [user if name == "user" else payload[name] for name in rule.fields]
    return _digest(["key", event_type, time // rule.window, *values])


def _digest(values: list[Any]) -> bytes:
    return hashlib.blake2b(orjson.dumps(values), digest_size=16).digest()


def event_micros(moment: datetime) -> int:
    """A moment as microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def parse_time(text: str) -> int:
    """RFC 3339 as microseconds since 1970, of an event that was checked before."""
    return event_micros(datetime.fromisoformat(text.upper()))


def _time_text(value: Any) -> Any:
    # pydantic would also take numbers, and dates alone.
    if not isinstance(value, str) or not _RFC3339(value):
        raise ValueError("is not a time; write RFC 3339, such as 2026-01-31T12:00:00Z")
    return value


_Time = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_time_text)]
_Text = Annotated[str, Field(min_length=1, max_length=TEXT_MAX)]
_KINDS: Mapping[str, Any] = {
    "string": str,
    "integer": int,
    "number": int | float,
    "boolean": bool,
    "timestamp": _Time,
    "object": dict[str, Any],
    "array": list[Any],
}


def _model(name: str, rules: TypeRules) -> type[BaseModel]:
    required: dict[str, Any] = {field: (_KINDS[kind], ...) for field, kind in rules.payload.items()}
    optional: dict[str, Any] = {field: (_KINDS[kind] | None, None) for field, kind in rules.optional.items()}
    # Field names of an application may be any text, also what pydantic keeps for itself: they are aliases.
    fields = {
        f"f{number}": (kind, Field(default, alias=field))
        for number, (field, (kind, default)) in enumerate({**required, **optional}.items())
    }
    strict = ConfigDict(strict=True, extra="ignore")
    payload: Any = create_model("Payload", __config__=strict, **fields)  # type: ignore[call-overload]
    event: dict[str, Any] = {
        "id": (_Text, ...),
        "type": (Literal[name], ...),
        "user": (_Text, ...),
        "time": (_Time, ...),
        "payload": (payload, ...),
    }
    model: type[BaseModel] = create_model("Event", __config__=ConfigDict(strict=True, extra="forbid"), **event)
    return model


@dataclass(frozen=True, slots=True)
class _Type:
    model: type[BaseModel]
    key: KeyRule | None


class Schema:
    """Checks messages against the types of one configuration, for the workers of one replica."""

    def __init__(self, settings: Analytics, *, replica: str, replicas: frozenset[str]) -> None:
        self._own = settings.regions_of(replica)
        self._elsewhere = frozenset(
            region for other in replicas if other != replica for region in settings.regions_of(other)
        )
        self._types = {
            name: _Type(_model(name, rules), key_rule(rules)) for name, rules in settings.types.items()
        }

    def is_foreign(self, message: Message) -> bool:
        """Whether another replica's workers get this event: filters let it through only on the emulator."""
        return message.attributes.get("region") in self._elsewhere

    def type_of(self, message: Message) -> str:
        """The type a message says it is, for metrics: `unknown` unless the configuration has it."""
        name = message.attributes.get("type", "")
        return name if name in self._types else "unknown"

    def decode(self, message: Message) -> AnalyticsEvent:
        """The event in a message; raises `EventError`."""
        region, event_type = self._attributes(message.attributes)
        rules = self._types[event_type]
        body = _parse(message.data)
        try:
            checked: Any = rules.model.model_validate(body)
        except ValidationError as error:
            raise EventError(Reason.INVALID, _problems(event_type, error)) from error
        time = event_micros(checked.time)
        identities: tuple[bytes, ...] = (identity_of_id(checked.id),)
        if rules.key is not None:
            payload = body["payload"]
            identities += (
                identity_of_key(rules.key, event_type, time=time, user=checked.user, payload=payload),
            )
        return AnalyticsEvent(checked.id, event_type, region, checked.user, time, identities)

    def _attributes(self, attributes: Mapping[str, str]) -> tuple[str, str]:
        for name in ("region", "type"):
            if not attributes.get(name):
                raise EventError(
                    Reason.MISSING_ATTRIBUTE, f"the message has no attribute '{name}'; publish it with one"
                )
        region, event_type = attributes["region"], attributes["type"]
        if region not in self._own:
            raise EventError(
                Reason.UNKNOWN_REGION,
                f"region '{region[:TEXT_MAX]}' belongs to no replica; add it to analytics.regions",
            )
        if event_type not in self._types:
            raise EventError(
                Reason.UNKNOWN_TYPE,
                f"event type '{event_type[:TEXT_MAX]}' is not in the configuration; add it to analytics.types",
            )
        return region, event_type


def key_rule(rules: TypeRules) -> KeyRule | None:
    """How a type's dedupe key is made; None where it has none."""
    return KeyRule(tuple(rules.key), rules.window) if rules.key and rules.window else None


def _parse(data: bytes) -> Any:
    if len(data) > EVENT_BYTES_MAX:
        raise EventError(
            Reason.TOO_LARGE, f"an event of {len(data)} bytes; at most {EVENT_BYTES_MAX} fit into a document"
        )
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise EventError(Reason.UNDECODABLE, f"the data is not JSON: {error}") from error
    # Few brackets cannot nest deep: only then is it worth looking.
    if data.count(b"{") + data.count(b"[") > DEPTH_MAX and _deeper(body, DEPTH_MAX):
        raise EventError(Reason.INVALID, f"its objects and arrays nest deeper than {DEPTH_MAX}")
    return body


def _deeper(value: Any, depth: int) -> bool:
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list):
        inner = value  # type: ignore[assignment]
    else:
        return False
    return depth == 0 or any(_deeper(one, depth - 1) for one in inner)


def _problems(event_type: str, error: ValidationError) -> str:
    """What is wrong, by field, without the values: they are in the dead letter, and may be personal."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    told = [f"{'.'.join(map(str, one['loc'])) or 'event'}: {one['msg']}" for one in found[:_PROBLEMS_MAX]]
    more = len(found) - len(told)
    return f"no valid '{event_type}': {'; '.join(told)}{f'; and {more} more' if more else ''}"
