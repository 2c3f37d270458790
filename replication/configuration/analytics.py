"""The `analytics:` section of `fleet.yaml`: event types, the buffer, the output.

The models are the settings themselves, as the core uses them: durations in microseconds, sizes in bytes. Every
mistake is reported as `analytics.types.swipe.key: what; remedy`, all of them at once.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)

from replication.configuration.fields import Duration, Spelled, TopicId, duration_schema
from replication.configuration.marked_yaml import Key
from replication.configuration.problems import Problem, explain
from replication.configuration.secrets import checked_secret, read_secret_file
from replication.documents.wire import MICROS
from replication.errors import ConfigError
from replication.limits import ACK_DEADLINE_S_MAX, ACK_DEADLINE_S_MIN, FILTER_BYTES_MAX

FLUSH_EVERY_US_MAX = 60_000_000
"""If longer, the health check would mistake a waiting worker for a stuck one."""
ACK_DEADLINE_US_MIN, ACK_DEADLINE_US_MAX = ACK_DEADLINE_S_MIN * MICROS, ACK_DEADLINE_S_MAX * MICROS
KEY_KINDS = ("string", "integer", "boolean")
"""What a dedupe key is made of: values that have one spelling."""

_SIZE = re.compile(r"([1-9][0-9]{0,5})(KB|MB)")
_SIZE_UNITS = {"KB": 1_000, "MB": 1_000_000}


def _bytes(value: Any) -> int:
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise ValueError(f"{value!r} is not a size; write a whole number and KB or MB, such as 32MB")
    return int(found[1]) * _SIZE_UNITS[found[2]]


def _between(low: int, high: int, remedy: str) -> AfterValidator:
    def check(value: int) -> int:
        if not low <= value <= high:
            raise ValueError(f"is out of bounds; {remedy}")
        return value

    return AfterValidator(check)


Size = Annotated[
    int,
    BeforeValidator(_bytes),
    WithJsonSchema({"type": "string", "pattern": f"^{_SIZE.pattern}$", "examples": ["900KB", "32MB"]}),
]
CollectionId = Annotated[
    str,
    Spelled(r"(?!__.*__$)[^/.\s][^/\s]{0,99}", "write one collection's id, such as analytics_events"),
]
Name = Annotated[
    str, Spelled("[A-Za-z][A-Za-z0-9_.-]{0,63}", "write letters, digits, '_', '-' and '.', a letter first")
]
Kind = Literal["string", "integer", "number", "boolean", "timestamp", "object", "array"]


def _default(text: str, description: str) -> Any:
    """A key whose default stands in the schema as it would in the file."""
    return Field(default=text, description=description)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True)


class Throttle(_Section):
    """How many events one user may send."""

    rate: float = Field(gt=0, le=1e6, description="Events a second and user, in the long run.")
    burst: int = Field(ge=1, le=1_000_000, description="Events a user may send at once.")
    sample: float = Field(
        default=0.0, ge=0, lt=1, description="The share of what exceeds it that is kept; 0 drops all of it."
    )


class TypeRules(_Section):
    """One type of event."""

    payload: dict[str, Kind] = Field(description="The payload's required fields, and the kind of each.")
    optional: dict[str, Kind] = Field(
        default_factory=dict, description="Fields that may be missing; those not named may hold anything."
    )
    key: list[str] = Field(
        default_factory=list,
        json_schema_extra={"uniqueItems": True},
        description="Fields that together name one happening: `user`, or required fields of the payload.",
    )
    window: Duration | None = Field(
        default=None, description="How long a key stays taken: windows of this length, by the events' own time."
    )
    ttl: Duration | None = Field(default=None, description="How long events are kept; default: forever.")
    throttle: Throttle | None = Field(default=None, description="How many events one user may send.")


class Flush(_Section):
    """When what is held is written: whichever comes first."""

    every: Annotated[
        Duration,
        _between(1, FLUSH_EVERY_US_MAX, "write at most 60s: a buffer is not an archive"),
        duration_schema(FLUSH_EVERY_US_MAX // MICROS),
    ] = _default("10s", "The longest an event waits.")
    events: int = Field(default=20_000, ge=1, le=1_000_000, description="Or as soon as so many are held.")
    bytes: Size = _default("32MB", "Or so many bytes.")


class Bound(_Section):
    """The most one worker holds; there it stops pulling."""

    events: int = Field(default=60_000, ge=1, le=5_000_000, description="Messages held, at most.")
    bytes: Size = _default("128MB", "Bytes held, at most.")


class Warehouse(_Section):
    """The anonymised copy."""

    topic: TopicId = Field(description="The topic that a BigQuery subscription drains.")
    key_env: str | None = Field(
        default=None, min_length=1, description="The environment variable that holds the pseudonyms' key."
    )
    key_file: str | None = Field(
        default=None, min_length=1, description="Or the file that holds it, from the configuration's folder."
    )
    users: list[str] = Field(
        default_factory=list, description="Payload fields that hold user ids too, at any depth."
    )
    drop: list[str] = Field(default_factory=list, description="Payload fields left out, at any depth.")


class Analytics(_Section):
    """The analytics workers' settings."""

    topic: TopicId = Field(default="analytics", description="The topic that applications publish to.")
    dead_letter_topic: TopicId | None = Field(default=None, description="Default: TOPIC-dead-letters.")
    collection: CollectionId = Field(default="analytics_events", description="Where documents are written.")
    layout: Literal["packed", "per-event"] = Field(
        default="packed", description="packed: up to 500 events a document; per-event: one document each."
    )
    types: dict[Name, TypeRules] = Field(min_length=1, description="Each event type's name, and its rules.")
    regions: dict[str, list[Name]] = Field(
        default_factory=dict, description="The regions each replica takes; default: its own id."
    )
    flush: Flush = Field(default_factory=Flush, description="When what is held is written.")
    buffer: Bound = Field(default_factory=Bound, description="The most one worker holds.")
    recent: int = Field(
        default=200_000, ge=0, le=10_000_000, description="Identities a worker remembers of what it wrote."
    )
    users: int = Field(
        default=100_000, ge=1, le=10_000_000, description="Users whose rates a worker remembers."
    )
    ack_deadline: Annotated[
        Duration,
        _between(ACK_DEADLINE_US_MIN, ACK_DEADLINE_US_MAX, "write 10s to 600s: Pub/Sub's limits"),
        duration_schema(ACK_DEADLINE_US_MAX // MICROS),
    ] = _default("60s", "The subscriptions' acknowledgement deadline.")
    warehouse: Warehouse | None = Field(default=None, description="The anonymised copy; default: none.")

    @property
    def dead_letters(self) -> str:
        """The id of the topic for events that cannot be taken."""
        return self.dead_letter_topic or f"{self.topic}-dead-letters"

    @property
    def dead_letter_subscription(self) -> str:
        """The id of the subscription that keeps them."""
        return f"{self.dead_letters}-all"

    def subscription(self, replica: str) -> str:
        """The id of the subscription that a replica's workers share. It must not be ordered."""
        return f"{self.topic}-{replica}"

    def subscription_filter(self, replica: str, replicas: Collection[str]) -> str:
        """The filter of that subscription: all but what is known to be another replica's.

        An event without a region, or of an unknown one, must reach some worker to be dead-lettered. No filter
        where it would be too long: workers look at the region themselves.
        """
        others = [region for other in replicas if other != replica for region in sorted(self.regions_of(other))]
        text = " AND ".join(f'NOT attributes.region = "{region}"' for region in others)
        return text if len(text.encode()) <= FILTER_BYTES_MAX else ""

    def regions_of(self, replica: str) -> frozenset[str]:
        """The regions whose events a replica stores."""
        return frozenset(self.regions.get(replica, [replica]))

    @property
    def ack_deadline_s(self) -> int:
        """The acknowledgement deadline in whole seconds, as Pub/Sub takes it."""
        return self.ack_deadline // 1_000_000


def analytics_schema() -> dict[str, Any]:
    """The JSON schema of the section, for editors; see `replication.configuration.schema`."""
    schema = Analytics.model_json_schema()
    text = {"type": "string"}
    schema["$defs"]["TypeRules"] |= {
        "if": {"required": ["key"], "properties": {"key": {"minItems": 1}}},
        "then": {"required": ["window"], "properties": {"window": text}},
        "else": {"properties": {"window": {"type": "null"}}},
    }
    schema["$defs"]["Warehouse"]["oneOf"] = [
        {"required": [name], "properties": {name: text}} for name in ("key_env", "key_file")
    ]
    return schema


def read_analytics(
    section: Mapping[str, Any], *, replicas: Collection[str], topic: str
) -> tuple[Analytics | None, list[Problem]]:
    """The settings, or None and what is wrong with them, each with its key below `analytics`.

    `replicas` are the fleet's ids, `topic` is the one of its changes.
    """
    try:
        settings = Analytics.model_validate(section)
    except ValidationError as error:
        return None, [explain(one, _section) for one in error.errors(include_url=False)]
    problems = list(_contradictions(settings, replicas, topic))
    return (None if problems else settings), problems


def parse_analytics(
    section: Mapping[str, Any] | None, *, replicas: Collection[str], topic: str, file: str = ""
) -> Analytics:
    """The settings; `ConfigError` has a line `file: analytics.key: what; remedy` for each mistake."""
    where = f"{file}: " if file else ""
    if section is None:
        raise ConfigError(
            f"{where}analytics: is missing; add `analytics:` with the `types` of events that are published"
        )
    settings, problems = read_analytics(section, replicas=replicas, topic=topic)
    if settings is None:
        lines = (
            f"{where}{'.'.join(map(str, ('analytics', *key)))}: {text}"
            for key, text in sorted(problems, key=lambda one: tuple(map(str, one[0])))
        )
        raise ConfigError("\n".join(lines))
    return settings


def warehouse_key(
    warehouse: Warehouse, *, environment: Mapping[str, str], read_file: Callable[[str], bytes]
) -> bytes:
    """The key of the pseudonyms; `read_file` gets the name as written.

    Raises `ConfigError` without the key's place in the file, which only the reader of the file knows.
    """
    if warehouse.key_env:
        where, remedy = warehouse.key_env, f'export {warehouse.key_env}="$(openssl rand -hex 32)"'
        secret = environment.get(warehouse.key_env, "").strip().encode()
        if not secret:
            raise ConfigError(f"the variable {where} is not set; set one key for all workers: {remedy}")
        return checked_secret(secret, where, remedy)
    return read_secret_file(warehouse.key_file or "", read_file)


def _contradictions(settings: Analytics, replicas: Collection[str], topic: str) -> Iterator[Problem]:
    for name, rules in settings.types.items():
        for key, text in _type_contradictions(rules):
            yield ("types", name, *key), text
    yield from _topic_contradictions(settings, topic)
    yield from _region_contradictions(settings, replicas)
    for name in ("events", "bytes"):
        if getattr(settings.buffer, name) < getattr(settings.flush, name):
            yield (
                ("buffer", name),
                f"is smaller than flush.{name}, which would never be reached; raise it, or lower that one",
            )
    warehouse = settings.warehouse
    if warehouse and bool(warehouse.key_env) == bool(warehouse.key_file):
        yield ("warehouse",), "name the pseudonyms' key once, with key_env or with key_file"
    if warehouse:
        for name in sorted(set(warehouse.users) & set(warehouse.drop)):
            yield ("warehouse", "users"), f"'{name}' is dropped as well; keep it in one of the two lists"


def _type_contradictions(rules: TypeRules) -> Iterator[Problem]:
    for name in sorted(set(rules.payload) & set(rules.optional)):
        yield ("optional",), f"'{name}' is required as well; keep it in one of the two"
    fields = {"user": "string", **rules.payload}
    usable = [name for name, kind in fields.items() if kind in KEY_KINDS]
    for name in rules.key:
        if name not in usable:
            why = f"is a {fields[name]}" if name in fields else "is not a required field"
            yield ("key",), f"'{name}' {why}; choose from {', '.join(usable)}"
    if len(set(rules.key)) < len(rules.key):
        yield ("key",), "names a field twice; name each once"
    if rules.key and rules.window is None:
        yield ("window",), "is missing; say how long a key stays taken, such as 24h"
    if rules.window is not None and not rules.key:
        yield ("window",), "means nothing without a key; add one, or remove it"


def _topic_contradictions(settings: Analytics, topic: str) -> Iterator[Problem]:
    names = [
        (("topic",), settings.topic),
        (("dead_letter_topic",), settings.dead_letters),
        (("warehouse", "topic"), settings.warehouse.topic if settings.warehouse else ""),
    ]
    taken = {topic: "the topic of the fleet's changes", f"{topic}-dead-letters": "that of its dead letters"}
    for key, name in names:
        if name in taken:
            yield key, f"'{name}' is {taken[name]} already; name another topic"
        elif name:
            taken[name] = ".".join(("analytics", *key))


def _region_contradictions(settings: Analytics, replicas: Collection[str]) -> Iterator[Problem]:
    for name in settings.regions:
        if name not in replicas:
            yield ("regions", name), f"'{name}' is not a replica; choose from {', '.join(replicas)}"
    first: dict[str, str] = {}
    for replica in replicas:
        for region in sorted(settings.regions_of(replica)):
            if region in first:
                yield (
                    ("regions", replica),
                    f"'{region}' is taken by '{first[region]}' already; give each region one replica",
                )
            first.setdefault(region, replica)


_SECTIONS: Mapping[str, type[BaseModel]] = {"flush": Flush, "buffer": Bound, "warehouse": Warehouse}


def _section(key: Key) -> type[BaseModel]:
    match key:
        case ("types", _):
            return TypeRules
        case ("types", _, "throttle"):
            return Throttle
        case (str() as name,):
            return _SECTIONS.get(name, Analytics)
        case _:
            return Analytics
