"""The shape of `fleet.yaml`: its keys, their types and defaults, and what each one means.

One key's value is checked here; what keys mean together is `replication.configuration.parse`'s. The
descriptions go into the JSON schema, for editors. A validator's text is the operator's: what is wrong, then the
remedy.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    WithJsonSchema,
)
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from replication.configuration.fields import Duration, Spelled, TopicId, up_to
from replication.configuration.marked_yaml import Key, Source
from replication.configuration.problems import explain, listed, unknown
from replication.documents.metadata import CLOCK_ENTRIES_MAX
from replication.fleet.paths import PATTERN_REGEX, Pattern, parse_pattern

DRIFT_LIMIT = "300s"
TOMBSTONE_RETENTION = "10d"
CONFLICT_RETENTION = "30d"
PULL_THREADS = 4
PULL_MESSAGES = 500
METADATA_FIELD = "_repl"
_PORT_MAX = 65_535
SCHEMA_ID = "urn:firefleet:fleet.yaml:0"
"""What the JSON schema calls itself; the number changes when a file that was right becomes wrong."""

_CUSTOM = re.compile(r"custom: *(?P<function>[A-Za-z_][\w.]*:[A-Za-z_][\w.]*)")
_POLICIES = ("last-write-wins", "precedence", "field-rules", "custom: package.module:function")


def _not_reserved(name: str) -> str:
    if name.startswith("__") and name.endswith("__"):
        raise ValueError(f"'{name}' is reserved by Firestore; choose a name such as {METADATA_FIELD}")
    return name


def _state(value: Any) -> Any:
    # YAML reads yes, no, on and off as booleans: a state that is one would never be found in a document.
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is not text or a number; put it in quotes")  # noqa: TRY004
    return value


def _pattern(value: Any) -> Pattern:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a pattern; write one such as carts/{{cart}}")  # noqa: TRY004
    return parse_pattern(value)


def _custom_function(value: str) -> str:
    found = _CUSTOM.fullmatch(value)
    if not found:
        raise ValueError(f"'{value}' names no function; write \"custom: package.module:function\"")
    return found["function"]


def _policy_tag(value: Any) -> str | None:
    name = value.get("policy") if isinstance(value, dict) else None
    if not isinstance(name, str):
        return None
    return "custom" if name.startswith("custom:") else name


def _known_policy(value: Any) -> Any:
    tag = _policy_tag(value)
    if tag == "custom" or tag in _POLICIES:
        return value
    if not isinstance(value, dict) or "policy" not in value:
        raise ValueError("names no policy; write {policy: last-write-wins} or another of " + listed(_POLICIES))
    raise PydanticCustomError(
        "unknown_policy", "{text}", {"text": unknown("policy", str(value["policy"]), _POLICIES)}
    )


ReplicaId = Annotated[
    str,
    Spelled(
        "[a-z][a-z0-9-]{0,29}",
        "a replica's id is part of subscription names: at most 30 of a-z, 0-9 and '-', a letter first",
    ),
]
ProjectId = Annotated[str, Spelled(r"[a-z][a-z0-9.:-]{0,62}", "write the project's id, such as my-project")]
DatabaseId = Annotated[
    str,
    Spelled(
        r"\(default\)|[a-z][a-z0-9-]{0,62}", "write a Firestore database's id, such as app-eu or (default)"
    ),
]
Location = Annotated[
    str, Spelled("[a-z][a-z0-9-]{1,62}", "write a Google Cloud location, such as europe-west1")
]
Address = Annotated[
    str, Spelled(rf"[^\s:/]+:{up_to(_PORT_MAX)}", 'write "host:port", such as "127.0.0.1:8080"')
]
State = Annotated[Any, BeforeValidator(_state), WithJsonSchema({"type": ["string", "number"]})]
FieldName = Annotated[
    str,
    AfterValidator(_not_reserved),
    Spelled(
        "(?!__.*__$)[A-Za-z_][A-Za-z0-9_]{0,99}", f"write letters, digits and '_', such as {METADATA_FIELD}"
    ),
]
PathPattern = Annotated[
    Pattern,
    BeforeValidator(_pattern),
    WithJsonSchema(
        {"type": "string", "pattern": PATTERN_REGEX, "examples": ["carts/{cart}/items/{item}", "{document=**}"]}
    ),
]


def _span(default: str, description: str) -> Any:
    """A key that holds a duration; its default stands in the schema as it would in the file."""
    return Field(default=default, description=description)


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True)


class ReplicaShape(_Shape):
    """One Firestore database."""

    database: DatabaseId = Field(description="The database's id.")
    location: Location = Field(description="Where the database is; its workers run there too.")
    project: ProjectId | None = Field(default=None, description="Its project; default: the file's.")
    emulator_host: Address | None = Field(
        default=None, description="host:port of a Firestore emulator instead."
    )


_TOP_LEVEL: JsonDict = {"pattern": "^[^.]*$"}
"""For the JSON schema: a field inside a map cannot be named; the policies themselves refuse it when made."""


class LastWriteWinsShape(_Shape):
    """The latest write stays."""

    policy: Literal["last-write-wins"]


class PrecedenceShape(_Shape):
    """The state that is further in an order stays."""

    policy: Literal["precedence"]
    field: str = Field(
        min_length=1, json_schema_extra=_TOP_LEVEL, description="The field that holds the state."
    )
    order: list[State] = Field(
        min_length=1,
        json_schema_extra={"uniqueItems": True},
        description="The states; the one further to the end stays.",
    )


class FieldRulesShape(_Shape):
    """Each field by a rule of its own; a field without one is kept from the latest write."""

    policy: Literal["field-rules"]
    fields: dict[str, Literal["max", "min", "union", "lww"]] = Field(
        min_length=1,
        json_schema_extra={"propertyNames": {"minLength": 1, **_TOP_LEVEL}},
        description="Field: rule.",
    )


class CustomShape(_Shape):
    """The application's own function."""

    policy: Annotated[
        str,
        AfterValidator(_custom_function),
        WithJsonSchema({"type": "string", "pattern": r"^custom: *[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"}),
    ] = Field(description='"custom: package.module:function"; it must be importable where the workers run.')


Conflict = Annotated[
    Annotated[LastWriteWinsShape, Tag("last-write-wins")]
    | Annotated[PrecedenceShape, Tag("precedence")]
    | Annotated[FieldRulesShape, Tag("field-rules")]
    | Annotated[CustomShape, Tag("custom")],
    Discriminator(_policy_tag),
    BeforeValidator(_known_policy),
]


class RuleShape(_Shape):
    """What happens to the documents a pattern matches; the first rule that matches decides."""

    match: PathPattern = Field(description="Path pattern: {x} is one segment, {x=**} the rest.")
    mode: Literal["multi-primary", "single-primary", "local"] = Field(
        description="multi-primary: every replica takes writes; single-primary: one does; "
        "local: never leaves its replica."
    )
    primary: str | None = Field(default=None, description="The one replica that takes writes (single-primary).")
    conflict: Conflict | None = Field(
        default=None,
        description="How concurrent writes are resolved (multi-primary); default: last-write-wins.",
    )
    on_delete: Literal["lww", "delete-wins", "update-wins"] | None = Field(
        default=None, description="What stays of a concurrent delete and write (multi-primary); default: lww."
    )
    lag_target: Duration | None = Field(default=None, description="How soon a change should be everywhere.")


class PullShape(_Shape):
    """How a worker pulls."""

    threads: int = Field(default=PULL_THREADS, ge=1, le=64, description="Pulling threads of one worker.")
    max_messages: int = Field(
        default=PULL_MESSAGES, ge=1, le=1000, description="Messages of one pull, at most."
    )


class FleetShape(_Shape):
    """firefleet's configuration: replicas, and what is replicated between them."""

    project: ProjectId = Field(description="The project of the topics, and of replicas that name none.")
    topic: TopicId = Field(description="The Pub/Sub topic that changes are published to.")
    dead_letter_topic: TopicId | None = Field(default=None, description="Default: TOPIC-dead-letters.")
    metadata_field: FieldName = Field(default=METADATA_FIELD, description="The field of versions.")
    replicas: dict[ReplicaId, ReplicaShape] = Field(
        min_length=1, max_length=CLOCK_ENTRIES_MAX, description="Each replica's id, and its database."
    )
    collections: list[RuleShape] = Field(
        min_length=1, description="The rules, in order; the last matches {document=**}."
    )
    secret_file: str | None = Field(
        default=None, min_length=1, description="A file with the secret that keys the versions' seal."
    )
    drift_limit: Duration = _span(DRIFT_LIMIT, "How far a version may be ahead of its document's commit time.")
    tombstone_retention: Duration = _span(
        TOMBSTONE_RETENTION, "How long a delete is remembered: longer than any redelivery."
    )
    conflict_retention: Duration = _span(
        CONFLICT_RETENTION, "How long a conflict's record and bodies are kept."
    )
    pull: PullShape = Field(default_factory=PullShape, description="How workers pull.")
    expirations: Literal["local", "replicate"] = Field(
        default="local", description="Deletes by Firestore's TTL: each replica expires its own, or replicated."
    )
    analytics: dict[str, Any] | None = Field(default=None, description="The analytics workers' settings.")
    pubsub_emulator_host: Address | None = Field(default=None, description="host:port of a Pub/Sub emulator.")


_CONFLICTS: dict[int | str, type[_Shape]] = {
    "last-write-wins": LastWriteWinsShape,
    "precedence": PrecedenceShape,
    "field-rules": FieldRulesShape,
    "custom": CustomShape,
}


def read_shape(source: Source) -> FleetShape:
    """Check each value by itself; raises `ConfigError` with one line for each mistake."""
    try:
        return FleetShape.model_validate(source.value)
    except ValidationError as error:
        raise source.error(explain(one, _model) for one in error.errors(include_url=False)) from error


def _model(key: Key) -> type[BaseModel]:
    """The shape of the mapping that stands at a key."""
    match key:
        case ("replicas", _):
            return ReplicaShape
        case ("pull",):
            return PullShape
        case ("collections", _):
            return RuleShape
        case ("collections", _, "conflict", tag):
            return _CONFLICTS[tag]
        case _:
            return FleetShape
