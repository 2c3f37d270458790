"""The fingerprint is the same for the same configuration, and another one for any other."""

from dataclasses import replace

import pytest

from conflict.policies import Custom, FieldRules, LastWriteWins, Precedence
from replication.configuration.analytics import parse_analytics
from replication.configuration.parse import Configuration, parse_fleet
from replication.fleet.fingerprint import fingerprint
from replication.fleet.model import Fleet, Rule
from tests.support.fleets import TEXT, fleet

FLEET = fleet()


def with_policy(policy: object) -> Fleet:
    return replace(FLEET, rules=(Rule(match="{document=**}", policy=policy),))  # type: ignore[arg-type]


def test_the_order_of_keys_comments_and_spelt_out_defaults_change_nothing() -> None:
    lines = TEXT.strip().splitlines()
    head, rest = lines[:2], lines[2:]
    other = "\n".join(["drift_limit: 5m  # the default", *rest, *reversed(head)])
    assert parse_fleet(other, file="x", read_secret=lambda _: b"").fingerprint == FLEET.fingerprint
    swapped = dict(reversed(list(FLEET.replicas.items())))
    assert replace(FLEET, replicas=swapped).fingerprint == FLEET.fingerprint


def test_it_does_not_depend_on_the_secret_or_on_where_emulators_are() -> None:
    replicas = {name: replace(one, emulator_host="a:1") for name, one in FLEET.replicas.items()}
    moved = replace(FLEET, secret=b"0123456789abcdef", replicas=replicas, pubsub_emulator_host="a:2")
    assert moved.fingerprint == FLEET.fingerprint


@pytest.mark.parametrize(
    "changed",
    [
        replace(FLEET, topic="other"),
        replace(FLEET, metadata_field="_v"),
        replace(FLEET, rules=FLEET.rules[1:]),
        replace(FLEET, rules=tuple(reversed(FLEET.rules))),
        replace(FLEET, replicas={**FLEET.replicas, "eu": replace(FLEET.replicas["eu"], database="eu2")}),
        replace(FLEET, tombstone_retention_us=1),
        replace(FLEET, expirations="replicate"),
    ],
)
def test_every_setting_that_matters_changes_it(changed: Fleet) -> None:
    assert changed.fingerprint != FLEET.fingerprint


def test_policies_are_told_apart_by_their_parameters_and_names() -> None:
    class Own:
        def __init__(self, name: str) -> None:
            self.name = name

    policies = [
        LastWriteWins(),
        Precedence(field="status", order=("a", "b")),
        Precedence(field="status", order=("b", "a")),
        FieldRules(fields={"n": "max"}),
        Custom(name="custom: a:b", decide=lambda a, _b: a),
        Custom(name="custom: a:c", decide=lambda a, _b: a),
        Own("one"),
        Own("two"),
    ]
    assert len({with_policy(policy).fingerprint for policy in policies}) == len(policies)


def test_its_value_is_pinned() -> None:
    """Processes of several releases compare it: another value would say that their files differ."""
    assert fingerprint({"b": [1, "x", None], "a": {"k": True}}) == "2aa1a8fe"


def test_the_analytics_section_changes_the_configurations_fingerprint() -> None:
    section = parse_analytics({"types": {"swipe": {"payload": {}}}}, replicas=tuple(FLEET.replicas), topic="t")
    assert Configuration(FLEET).fingerprint == FLEET.fingerprint
    assert Configuration(FLEET, section).fingerprint != FLEET.fingerprint
