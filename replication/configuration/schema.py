"""The JSON schema of the configuration file, for editors."""

from collections.abc import Sequence
from typing import Any

from replication.configuration.analytics import analytics_schema
from replication.configuration.fleet import SCHEMA_ID, FleetShape
from replication.fleet.model import Mode
from replication.fleet.paths import EVERY_DOCUMENT_REGEX


def fleet_schema() -> dict[str, Any]:
    """The JSON schema of the file, for editors.

    It rejects what the loader rejects, except what no schema can say: references from one part of the file to
    another (a primary that is not a replica, a rule that can never match, a database twice), and files that are
    missing.
    """
    schema = FleetShape.model_json_schema()
    section = analytics_schema()
    schema["$defs"] |= section.pop("$defs", {})
    what = FleetShape.model_fields["analytics"].description
    schema["properties"]["analytics"] = {"description": what, "anyOf": [section, {"type": "null"}]}
    # Where one matches every document and is not the last, the loader says that a later one never matches.
    schema["properties"]["collections"]["contains"] = {
        "properties": {"match": {"pattern": EVERY_DOCUMENT_REGEX}}
    }
    schema["$defs"]["RuleShape"]["allOf"] = [
        _in_mode(Mode.SINGLE_PRIMARY, required=["primary"], absent=["conflict", "on_delete"]),
        _in_mode(Mode.MULTI_PRIMARY, absent=["primary"]),
        _in_mode(Mode.LOCAL, absent=["primary", "conflict", "on_delete", "lag_target"]),
    ]
    _close(schema)
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, "$id": SCHEMA_ID, **schema, "title": "firefleet"}


def _close(schema: Any) -> None:
    """Refuse the keys that match no pattern, wherever a mapping's keys have one."""
    if isinstance(schema, dict):
        if "patternProperties" in schema:
            schema.setdefault("additionalProperties", False)
        for part in schema.values():
            _close(part)
    elif isinstance(schema, list):
        for part in schema:
            _close(part)


def _in_mode(mode: Mode, *, absent: Sequence[str], required: Sequence[str] = ()) -> dict[str, Any]:
    """The part of a rule's schema that says which keys its mode needs, and which mean nothing in it."""
    then: dict[str, Any] = {name: {"type": "null"} for name in absent}
    then |= {name: {"type": "string"} for name in required}
    return {
        "if": {"properties": {"mode": {"const": mode.value}}},
        "then": {"properties": then, "required": list(required)},
    }
