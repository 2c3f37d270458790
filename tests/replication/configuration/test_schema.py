"""The JSON schema of `fleet.yaml` objects to what the loader rejects, and to nothing else."""

import contextlib
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from conflict import LastWriteWins
from replication.configuration.parse import parse_fleet
from replication.configuration.schema import fleet_schema
from replication.errors import ConfigError
from tests.support.config_files import GOOD, MISTAKES

SCHEMA = fleet_schema()

ONLY_THE_LOADER_KNOWS = (
    "stands here a second time",
    "this key is not read as text",
    "is replica 'eu' already",
    "is not a replica; choose one of",
    "is the topic itself",
    "never matches",
    "cannot read 'missing.key'",
)
"""What refers to another part of the file or to the disk, or is gone when YAML has been read."""

TYPES = "types: {view: {payload: {page: string}}}"

WRONG_ANALYTICS = [
    "{}",
    "{types: {}}",
    "{types: {view: {}}}",
    "{types: {'1view': {payload: {}}}}",
    "{types: {view: {payload: {page: text}}}}",
    "{types: {view: {payload: {page: string}, key: [page]}}}",
    "{types: {view: {payload: {page: string}, window: 24h}}}",
    "{types: {view: {payload: {page: string}, key: [page, page], window: 24h}}}",
    "{types: {view: {payload: {}, throttle: {rate: 0, burst: 1}}}}",
    f"{{{TYPES}, flush: {{every: 61s}}}}",
    f"{{{TYPES}, flush: {{every: 2m}}}}",
    f"{{{TYPES}, buffer: {{bytes: 128}}}}",
    f"{{{TYPES}, ack_deadline: 11m}}",
    f"{{{TYPES}, collection: a/b}}",
    f"{{{TYPES}, collection: __x__}}",
    f"{{{TYPES}, topic: a}}",
    f"{{{TYPES}, layout: loose}}",
    f"{{{TYPES}, warehouse: {{topic: warehouse}}}}",
    f"{{{TYPES}, warehouse: {{topic: warehouse, key_env: K, key_file: k}}}}",
]
RIGHT_ANALYTICS = [
    f"{{{TYPES}}}",
    "{types: {view: {payload: {page: string}, key: [user, page], window: 24h, ttl: 90d}}}",
    f"{{{TYPES}, flush: {{every: 60s}}, ack_deadline: 10m, regions: {{eu: [eu, uk]}}}}",
    f"{{{TYPES}, warehouse: {{topic: warehouse, key_env: K, users: [liker]}}}}",
]
PRECEDENCE = "precedence, field: status, order: [pending, approved, rejected, refunded]"
RIGHT = [
    ("metadata_field: _repl", "drift_limit: 315360000s"),
    ("metadata_field: _repl", "tombstone_retention: 3650d"),
    ("metadata_field: _repl", "pull: {threads: 64, max_messages: 1000}"),
    ("metadata_field: _repl", "analytics:"),
    ("metadata_field: _repl", "pubsub_emulator_host: localhost:65535"),
    ("app-eu", "(default)"),
    ("primary: eu", "primary: eu\n    conflict:"),
    ("walletTransactions/{id}", "a/{b}/c/d/{rest=**}"),
    ("walletTransactions/{id}", "größe/{id}"),
    ("{document=**}", "{collection}/{document=**}"),
    ("[pending, approved, rejected, refunded]", "[1, 2.5, '3']"),
    (PRECEDENCE, '"custom: shop.policies:merge"'),
    (PRECEDENCE, "field-rules, fields: {a: max}"),
]  # fmt: skip


def objections(text: str) -> list[str]:
    """What the schema says of a file."""
    return [each.message for each in Draft202012Validator(SCHEMA).iter_errors(yaml.safe_load(text))]


def loads(text: str) -> bool:
    """Whether the loader takes a file. Every secret can be read, every policy can be loaded."""
    with contextlib.suppress(ConfigError):
        parse_fleet(
            text, file="f", read_secret=lambda _: b"0123456789abcdef", load_custom=lambda _: LastWriteWins()
        )
        return True
    return False


def with_analytics(section: str) -> str:
    return f"{GOOD}analytics: {section}\n"


def test_it_is_a_schema_with_a_name() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$id"].startswith("urn:firefleet:")


@pytest.mark.parametrize(
    ("good", "bad"),
    [(good, bad) for good, bad, said in MISTAKES if not any(one in said for one in ONLY_THE_LOADER_KNOWS)],
)
def test_it_rejects_what_the_loader_rejects(good: str, bad: str) -> None:
    text = GOOD.replace(good, bad, 1)
    assert not loads(text)
    assert objections(text)


@pytest.mark.parametrize("section", WRONG_ANALYTICS)
def test_it_rejects_an_analytics_section_that_the_loader_rejects(section: str) -> None:
    assert not loads(with_analytics(section))
    assert objections(with_analytics(section))


@pytest.mark.parametrize(
    "text",
    [GOOD, *(GOOD.replace(old, new, 1) for old, new in RIGHT), *map(with_analytics, RIGHT_ANALYTICS)],
)
def test_what_the_loader_takes_is_right_by_it_too(text: str) -> None:
    assert loads(text)
    assert objections(text) == []


def duration(text: str) -> dict[str, Any]:
    return {**yaml.safe_load(GOOD), "drift_limit": text}


@pytest.mark.parametrize("unit_max", ["315360000s", "5256000m", "87600h", "3650d"])
def test_ten_years_is_the_longest_duration_in_every_unit(unit_max: str) -> None:
    number, unit = int(unit_max[:-1]), unit_max[-1]
    validator = Draft202012Validator(SCHEMA)
    valid = {
        each: validator.is_valid(duration(f"{each}{unit}"))
        for each in (0, 1, 9, number - 1, number, number + 1)
    }
    assert [each for each, right in valid.items() if not right] == [0, number + 1]
