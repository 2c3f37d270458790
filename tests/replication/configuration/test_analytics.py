"""The `analytics:` section: its defaults, and every mistake with its key and remedy."""

from typing import Any

import pytest

from replication.configuration.analytics import (
    Warehouse,
    analytics_schema,
    parse_analytics,
    warehouse_key,
)
from replication.errors import ConfigError
from replication.limits import FILTER_BYTES_MAX
from tests.support.analytics import REPLICAS, TYPES, settings


def mistake(section: Any, **more: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_analytics(section, replicas=REPLICAS, topic="changes", **more)
    return str(caught.value)


def swipes(**changes: Any) -> dict[str, Any]:
    return {"types": {"swipe": {**TYPES["swipe"], **changes}}}


def test_what_is_left_out_has_the_documented_default() -> None:
    given = settings()
    assert (given.topic, given.dead_letters, given.dead_letter_subscription) == (
        "analytics",
        "analytics-dead-letters",
        "analytics-dead-letters-all",
    )
    assert (given.layout, given.flush.every, given.flush.bytes) == ("packed", 10_000_000, 32_000_000)
    assert given.subscription("eu") == "analytics-eu"
    assert given.ack_deadline_s == 60


def test_a_missing_section_says_what_to_add() -> None:
    assert mistake(None, file="fleet.yaml").startswith("fleet.yaml: analytics: is missing; add")


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ({}, "analytics.types: is missing; add it: Each event type's name, and its rules."),
        ({"types": {}}, "analytics.types: is empty; "),
        (
            swipes(key=["user", "nobody"]),
            "analytics.types.swipe.key: 'nobody' is not a required field; choose from user",
        ),
        (
            swipes(payload={"target": "object", "session": "string"}),
            "analytics.types.swipe.key: 'target' is a object; choose from user, session",
        ),
        (swipes(key=["user", "user"]), "analytics.types.swipe.key: names a field twice; name each once"),
        (
            swipes(window=None),
            "analytics.types.swipe.window: is missing; say how long a key stays taken, such as 24h",
        ),
        (swipes(key=[]), "analytics.types.swipe.window: means nothing without a key; add one, or remove it"),
        (
            swipes(window="1 day"),
            "analytics.types.swipe.window: '1 day' is not a duration; write a whole number",
        ),
        (swipes(optional={"target": "string"}), "analytics.types.swipe.optional: 'target' is required as well"),
        (
            swipes(payload={"x": "text"}),
            "analytics.types.swipe.payload.x: 'text' is none of the choices; write",
        ),
        (swipes(ttk="1d"), "analytics.types.swipe.ttk: unknown key 'ttk'; did you mean 'ttl'? known: payload"),
        (
            swipes(throttle={"rate": 0, "burst": 1}),
            "analytics.types.swipe.throttle.rate: 0: input should be greater than 0; Events a second and user",
        ),
        (
            swipes(throttle={"rate": 1.0, "burst": 1, "sample": 1.0}),
            "analytics.types.swipe.throttle.sample: 1.0: ",
        ),
        (
            {"types": TYPES, "flush": {"every": "2m"}},
            "analytics.flush.every: is out of bounds; write at most 60s",
        ),
        (
            {"types": TYPES, "flush": {"bytes": 5}},
            "analytics.flush.bytes: 5 is not a size; write a whole number and KB",
        ),
        (
            {"types": TYPES, "buffer": {"events": 10}},
            "analytics.buffer.events: is smaller than flush.events, which would never be reached; raise it",
        ),
        ({"types": TYPES, "layout": "rows"}, "analytics.layout: 'rows' is none of the choices; write"),
        (
            {"types": TYPES, "topic": "changes"},
            "analytics.topic: 'changes' is the topic of the fleet's changes already",
        ),
        (
            {"types": TYPES, "warehouse": {"topic": "analytics", "key_env": "K"}},
            "analytics.warehouse.topic: 'analytics' is analytics.topic already; name another topic",
        ),
        (
            {"types": TYPES, "warehouse": {"topic": "wh-events"}},
            "analytics.warehouse: name the pseudonyms' key once, with key_env or with key_file",
        ),
        (
            {
                "types": TYPES,
                "warehouse": {"topic": "wh-events", "key_env": "K", "users": ["a"], "drop": ["a"]},
            },
            "analytics.warehouse.users: 'a' is dropped as well; keep it in one of the two lists",
        ),
        (
            {"types": TYPES, "regions": {"mars": ["m"]}},
            "analytics.regions.mars: 'mars' is not a replica; choose from eu, us",
        ),
        (
            {"types": TYPES, "regions": {"eu": ["eu", "us"]}},
            "analytics.regions.us: 'us' is taken by 'eu' already; give each region one replica",
        ),
        ({"types": TYPES, "collection": "a/b"}, "analytics.collection: 'a/b' cannot be used here; write one"),
        ({"types": TYPES, "ack_deadline": "5s"}, "analytics.ack_deadline: is out of bounds; write 10s to 600s"),
    ],
)
def test_each_mistake_names_its_key_and_the_remedy(section: Any, line: str) -> None:
    assert line in mistake(section)


def test_several_mistakes_are_told_at_once_after_the_files_name() -> None:
    told = mistake({"types": TYPES, "layout": 1, "recent": -1}, file="fleet.yaml").splitlines()
    assert [line.split(": ")[1] for line in told] == ["analytics.layout", "analytics.recent"]
    assert all(line.startswith("fleet.yaml: ") for line in told)


def test_a_replicas_filter_lets_through_what_no_other_replica_is_known_to_take() -> None:
    given = settings(regions={"us": ["us", "latam"]})
    assert given.subscription_filter("us", REPLICAS) == 'NOT attributes.region = "eu"'
    assert (
        given.subscription_filter("eu", REPLICAS)
        == 'NOT attributes.region = "latam" AND NOT attributes.region = "us"'
    )


def test_a_filter_that_pubsub_would_refuse_is_left_out() -> None:
    replicas = [f"region-{number}" for number in range(20)]
    assert settings().subscription_filter("region-1", replicas) == ""
    assert len(settings().subscription_filter("eu", ["eu", *replicas[:5]]).encode()) <= FILTER_BYTES_MAX


def test_the_key_comes_from_the_environment_or_a_file_and_a_weak_one_is_refused() -> None:
    by_env = Warehouse(topic="warehouse", key_env="KEY")
    by_file = Warehouse(topic="warehouse", key_file="key")
    assert warehouse_key(by_env, environment={"KEY": " " + "k" * 16}, read_file=lambda _: b"") == b"k" * 16
    assert (
        warehouse_key(by_file, environment={}, read_file=lambda name: name.encode() * 8 + b"\n") == b"key" * 8
    )
    with pytest.raises(ConfigError, match=r"the variable KEY is not set; .* export KEY=.*openssl rand"):
        warehouse_key(by_env, environment={}, read_file=lambda _: b"")
    with pytest.raises(ConfigError, match=r"cannot read 'key' \(.*openssl rand -hex 32 > key"):
        warehouse_key(by_file, environment={}, read_file=missing)


def missing(name: str) -> bytes:
    raise FileNotFoundError(2, "No such file or directory", name)


def test_the_schema_describes_every_key_for_editors() -> None:
    described = analytics_schema()
    assert described["additionalProperties"] is False
    assert all("description" in one for one in described["properties"].values())
