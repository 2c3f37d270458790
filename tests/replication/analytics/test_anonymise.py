"""The copy that leaves the region: nothing private in it, and still one user is one user."""

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from replication.analytics.anonymise import Anonymiser
from replication.configuration.analytics import Warehouse
from tests.support.analytics import held, swipe, view

KEY = b"k" * 32
WAREHOUSE = Warehouse(topic="warehouse", key_env="K", users=["target", "friends"], drop=["ip", "message"])


def copy(body: dict[str, Any], *, key: bytes = KEY, sampled: float = 1.0) -> dict[str, Any]:
    sent = Anonymiser(WAREHOUSE, key).copy(held(body, sampled=sampled))
    assert dict(sent.attributes) == {"type": body["type"], "region": "eu"}
    parsed: dict[str, Any] = orjson.loads(sent.data)
    return parsed


def test_user_ids_are_pseudonyms_wherever_they_stand() -> None:
    payload = {
        "target": "robert",
        "session": "s-annette-1",
        "friends": ["carol", {"best": 4711}],
        "nested": [{"target": "robert", "text": "robert wrote to annette, not to carol"}],
        "number": 4711,
    }
    made = copy(swipe("annette:1", user="annette", payload=payload))
    text = orjson.dumps(made).decode()
    assert not [raw for raw in ("annette", "robert", "carol", "4711") if raw in text]
    assert made["payload"]["target"] == made["payload"]["nested"][0]["target"]
    assert made["payload"]["target"] != made["user"]
    assert made["payload"]["session"] == f"s-{made['user']}-1"


def test_dropped_fields_are_gone_at_any_depth() -> None:
    payload = {
        "page": "p",
        "millis": 1,
        "ip": "10.0.0.1",
        "device": {"ip": "10.0.0.2", "os": ["x", {"message": "m"}]},
    }
    made = copy(view(payload=payload))
    assert made["payload"] == {"page": "p", "millis": 1, "device": {"os": ["x", {}]}}


def test_what_is_not_private_stays() -> None:
    made = copy(view("e", payload={"page": "home", "millis": 5, "t": True, "n": None, "f": 0.5}), sampled=0.1)
    assert made["payload"] == {"page": "home", "millis": 5, "t": True, "n": None, "f": 0.5}
    assert (made["type"], made["region"], made["time"]) == ("page_view", "eu", "2027-01-15T08:00:00Z")
    assert made["sampled"] == 0.1


def test_one_user_has_one_pseudonym_under_one_key_and_another_under_another() -> None:
    one, again = copy(view("a", user="annette")), copy(view("b", user="annette"))
    other, rekeyed = copy(view("a", user="robert")), copy(view("a", user="annette"), key=b"x" * 32)
    assert one["user"] == again["user"]
    assert len({one["user"], other["user"], rekeyed["user"]}) == 3
    assert one["id"] != again["id"]


def test_duplicates_share_a_key_and_others_do_not() -> None:
    payload = {"target": "t", "session": "s"}
    first, again = copy(swipe("a", payload=payload)), copy(swipe("b", payload=payload))
    assert first["key"] == again["key"] != copy(swipe("c"))["key"]
    assert copy(view("a"))["key"] == copy(view("a"))["key"]


# Capitals, so that no name is by chance a key of the record ("region").
NAMES = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÜ日本", min_size=6, max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 99) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.just("ip"), inner, max_size=3),
    max_leaves=10,
)


@given(NAMES, NAMES, JSON, st.data())
def test_no_raw_user_id_is_left_in_the_bytes(user: str, target: str, extra: Any, data: st.DataObject) -> None:
    said = data.draw(st.sampled_from([user, target, f"<{user}>", f"{target}{user}", f"{user}{user}"]))
    body = swipe(user=user, payload={"target": target, "session": "1", "said": said, user: extra, "x": extra})
    raw = Anonymiser(WAREHOUSE, KEY).copy(held(body)).data.decode()
    assert user not in raw
    assert target not in raw
    assert '"ip"' not in raw
