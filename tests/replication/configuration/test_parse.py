"""The configuration: what a file means, and what each mistake in one says."""
# ruff: noqa: E501 - a message that is expected stands in one line, as it is printed

import json
import re
from dataclasses import replace
from typing import cast

import pytest

from conflict import Candidate, Custom, FieldRules, LastWriteWins, OnDelete, Policy, Precedence
from replication.configuration.parse import parse_fleet
from replication.configuration.schema import fleet_schema
from replication.errors import ConfigError
from replication.fleet.model import Fleet, Mode, Pull, Replica, Rule
from tests.support.config_files import GOOD, MISTAKES


def read_secret(name: str) -> bytes:
    if name != "fleet.secret":
        raise FileNotFoundError(2, "No such file or directory")
    return b"0123456789abcdef0123456789abcdef\n"


def load_custom(name: str) -> Policy:
    def decide(a: Candidate, b: Candidate) -> Candidate:
        return a

    return Custom(name=name, decide=decide)


def parse(text: str) -> Fleet:
    return parse_fleet(text, file="fleet.yaml", read_secret=read_secret, load_custom=load_custom)


def errors(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return str(caught.value).splitlines()


def test_the_documented_example_means_what_it_says() -> None:
    fleet = parse(GOOD)
    assert fleet.replicas["us"].project == "other-project"
    assert fleet.replicas["eu"].prefix == "projects/my-project/databases/app-eu/documents/"
    assert fleet.replicas["apac"].emulator_host == "127.0.0.1:8083"
    assert fleet.rules == (
        Rule(
            match="marketplace_orders/{order}",
            policy=Precedence(field="status", order=("pending", "approved", "rejected", "refunded")),
            lag_target=5.0,
        ),
        Rule(match="walletTransactions/{id}", mode=Mode.SINGLE_PRIMARY, primary="eu"),
        Rule(match="{document=**}"),
    )


def test_a_file_without_the_optional_keys_has_the_defaults_of_a_fleet() -> None:
    fleet = parse(GOOD)
    made = Fleet(project=fleet.project, topic=fleet.topic, replicas=fleet.replicas, rules=fleet.rules)
    assert fleet == made
    assert fleet.dead_letter_topic == "firestore-replication-dead-letters"
    assert fleet.dead_letter_subscription == "firestore-replication-dead-letters-all"
    assert (fleet.drift_limit_us, fleet.tombstone_retention_us) == (300_000_000, 864_000_000_000)
    assert fleet.conflict_retention_us == 2_592_000_000_000
    assert fleet.pull == Pull(threads=4, max_messages=500)
    assert (fleet.secret, fleet.expirations) == (None, "local")


def test_every_optional_key_is_taken_over() -> None:
    fleet = parse(
        GOOD.replace("_repl", "_sync").replace(
            "replicas:\n",
            "secret_file: fleet.secret\ndrift_limit: 10m\ntombstone_retention: 20d\nconflict_retention: 24h\n"
            "pull: {threads: 8, max_messages: 1000}\ndead_letter_topic: graveyard\nexpirations: replicate\n"
            "analytics: {topic: events, types: {swipe: {payload: {target: string}}}}\npubsub_emulator_host: localhost:8085\nreplicas:\n",
        )
    )
    assert fleet.secret == b"0123456789abcdef0123456789abcdef"
    assert (fleet.drift_limit_us, fleet.tombstone_retention_us) == (600_000_000, 1_728_000_000_000)
    assert fleet.conflict_retention_us == 86_400_000_000
    assert (fleet.pull, fleet.dead_letter_topic) == (Pull(threads=8, max_messages=1000), "graveyard")
    assert fleet.expirations == "replicate"
    assert fleet.pubsub_emulator_host == "localhost:8085"
    assert (fleet.codec.field, fleet.codec.secret, fleet.codec.drift_limit_us) == (
        "_sync",
        fleet.secret,
        600_000_000,
    )


@pytest.mark.parametrize(
    ("conflict", "policy"),
    [
        ("{policy: last-write-wins}", LastWriteWins()),
        (
            "{policy: precedence, field: level, order: [1, 2.5, high]}",
            Precedence(field="level", order=(1, 2.5, "high")),
        ),
        (
            "{policy: field-rules, fields: {a: max, b: min, c: union, d: lww}}",
            FieldRules(fields={"a": "max", "b": "min", "c": "union", "d": "lww"}),
        ),
    ],
)
def test_each_policy_is_built_from_its_keys(conflict: str, policy: Policy) -> None:
    text = re.sub(r"conflict: \{.*\}", f"conflict: {conflict}\n    on_delete: delete-wins", GOOD)
    rule = parse(text).rules[0]
    assert rule.policy == policy
    assert rule.on_delete is OnDelete.DELETE_WINS


def test_a_custom_policy_comes_from_the_loader() -> None:
    text = re.sub(r"conflict: \{.*\}", 'conflict: {policy: "custom: shop.policies:merge"}', GOOD)
    assert parse(text).rules[0].policy.name == "shop.policies:merge"


def test_without_a_loader_a_custom_policy_is_refused() -> None:
    text = re.sub(r"conflict: \{.*\}", 'conflict: {policy: "custom: shop.policies:merge"}', GOOD)
    with pytest.raises(ConfigError, match="cannot be loaded here"):
        parse_fleet(text, file="fleet.yaml", read_secret=read_secret)


def test_a_loaders_complaint_names_the_line() -> None:
    def refuse(name: str) -> Policy:
        raise ConfigError(f"importing '{name}' failed; install it")

    text = re.sub(r"conflict: \{.*\}", 'conflict: {policy: "custom: shop:merge"}', GOOD)
    with pytest.raises(ConfigError) as caught:
        parse_fleet(text, file="fleet.yaml", read_secret=read_secret, load_custom=refuse)
    assert str(caught.value) == (
        "fleet.yaml:11: collections.0.conflict.policy: importing 'shop:merge' failed; install it"
    )


@pytest.mark.parametrize(("good", "bad", "message"), MISTAKES)
def test_a_mistake_says_line_key_what_and_remedy(good: str, bad: str, message: str) -> None:
    assert good in GOOD
    lines = errors(GOOD.replace(good, bad, 1))
    assert any(message in line for line in lines), lines
    assert all(re.match(r"fleet\.yaml:\d+: \S+: \S.*[;:?]", line) for line in lines), lines


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "fleet.yaml:1: the file is empty; begin with"),
        ("# only a comment\n", "fleet.yaml:1: the file is empty;"),
        ("- a\n", "fleet.yaml:1: the file is not a mapping; write `key: value` lines"),
        ("\n\nhello", "fleet.yaml:3: the file is not a mapping;"),
        ("project: [a\ntopic: b", "fleet.yaml:2: this is not YAML: while parsing a flow sequence, expected"),
        ("a: b: c", "fleet.yaml:1: this is not YAML: mapping values are not allowed here;"),
        ("a: 1\n---\nb: 2", "fleet.yaml:2: this is not YAML: expected a single document"),
        ("a: *nowhere", "fleet.yaml:1: this is not YAML:"),
        ("a: !!python/object:os.system x", "fleet.yaml:1: this is not YAML: could not determine a constructor"),
        ("a: 2024-13-45", "fleet.yaml:1: a value cannot be read: month must be in 1..12; put dates"),
        ("a: b\nc: \x00", "fleet.yaml:2: this is not YAML: special characters are not allowed;"),
        ("replicas: {}\n" + GOOD.replace(GOOD[GOOD.index("replicas:") : GOOD.index("collections:")], ""),
         "fleet.yaml:1: replicas: is empty; write at least one"),
        (GOOD[: GOOD.index("collections:")] + "collections: []", "fleet.yaml:8: collections: is empty;"),
    ],
)  # fmt: skip
def test_what_is_no_configuration_at_all_says_so(text: str, message: str) -> None:
    assert any(line.startswith(message) for line in errors(text)), errors(text)


def test_all_mistakes_are_reported_together_in_the_files_order() -> None:
    lines = errors(GOOD.replace("location: us", "locaton: us").replace("5s", "5").replace("topic", "topik", 1))
    assert [line.split(":")[1] for line in lines] == ["1", "2", "6", "6", "12"]


def test_a_short_secret_is_refused() -> None:
    text = GOOD.replace("metadata_field: _repl", "secret_file: fleet.secret")
    with pytest.raises(ConfigError, match="holds 3 bytes, fewer than 16; write one with: openssl rand -hex 32"):
        parse_fleet(text, file="fleet.yaml", read_secret=lambda _: b"abc\n")


def test_an_alias_that_contains_itself_does_not_hang() -> None:
    with pytest.raises(ConfigError, match="unknown key 'me'"):
        parse(GOOD + "analytics: &a {me: *a}\n")


def test_a_merged_key_is_not_a_second_one() -> None:
    text = GOOD.replace(
        "{database: app-eu,   location: europe-west1}", "&base {database: app-eu, location: europe-west1}"
    )
    merged = parse(text.replace("{database: app-us,   location: us-central1,", "{<<: *base, database: app-us,"))
    assert merged.replicas["us"].location == "europe-west1"


def test_the_first_rule_that_matches_decides() -> None:
    fleet = parse(GOOD)
    assert fleet.rule_for("marketplace_orders/1") is fleet.rules[0]
    assert fleet.rule_for("walletTransactions/äöü\n") is fleet.rules[1]
    assert fleet.rule_for("walletTransactions/1/entries/2") is fleet.rules[2]
    assert fleet.rule_for("anything/at/all/deep") is fleet.rules[2]


def test_a_fleet_made_without_a_last_rule_says_so() -> None:
    fleet = replace(parse(GOOD), rules=(Rule(match="a/{b}"),))
    with pytest.raises(ConfigError, match="no rule matches c/d; end the rules with one for"):
        fleet.rule_for("c/d")


def test_replicas_are_found_by_id_and_by_database() -> None:
    fleet = parse(GOOD)
    assert fleet.replica("us") is fleet.replicas["us"]
    assert fleet.replica_of("other-project", "app-us") is fleet.replicas["us"]
    assert fleet.replica_of("my-project", "app-us") is None
    with pytest.raises(ConfigError, match="no replica 'de' in the config; choose one of eu, us, apac"):
        fleet.replica("de")


def test_the_subscription_and_its_filter_are_the_contracts() -> None:
    fleet = parse(GOOD)
    assert fleet.subscription("us") == "firestore-replication-us"
    assert fleet.subscription_filter("us") == (
        '(NOT attributes:to AND (NOT attributes.replica = "us" OR attributes.heal = "1")) OR attributes.to = "us"'
    )


def test_the_longest_id_a_file_may_have_fits_into_a_filter_and_a_longer_one_is_refused() -> None:
    fleet = parse(GOOD.replace("  us: ", f"  {'u' * 30}: "))
    assert len(fleet.subscription_filter("u" * 30)) <= 256
    with pytest.raises(ConfigError, match="longer than Pub/Sub's 256 bytes; give the replica a shorter id"):
        fleet.subscription_filter("u" * 100)


def test_the_secret_is_not_printed() -> None:
    fleet = parse(GOOD.replace("metadata_field: _repl", "secret_file: fleet.secret"))
    assert fleet.secret
    assert fleet.secret.decode() not in repr(fleet)


def test_the_schema_describes_every_key_and_writes_durations_as_text() -> None:
    schema = fleet_schema()
    json.dumps(schema)
    for shape in (schema, *schema["$defs"].values()):
        described = {key: value for key, value in shape["properties"].items() if key != "policy"}
        assert all("description" in value for value in described.values()), shape["title"]
        assert shape["additionalProperties"] is False
    assert schema["properties"]["tombstone_retention"]["default"] == "10d"
    assert schema["required"] == ["project", "topic", "replicas", "collections"]
    assert re.fullmatch(schema["properties"]["drift_limit"]["pattern"], "300s")


def test_a_replicas_own_id_is_its_key() -> None:
    replica = cast(Replica, parse(GOOD).replica_of("my-project", "app-eu"))
    assert (replica.id, replica.location) == ("eu", "europe-west1")
