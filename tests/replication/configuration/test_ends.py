"""A fleet is on emulators as a whole or not at all."""

from dataclasses import replace

import pytest

from replication.configuration.ends import require_one_kind
from replication.errors import ConfigError
from replication.fleet.model import Fleet
from tests.support.fleets import fleet

CLOUD = fleet()


def placed(*, pubsub: str | None = None, **hosts: str) -> Fleet:
    """The fleet with some of its ends on emulators."""
    replicas = {name: replace(one, emulator_host=hosts.get(name)) for name, one in CLOUD.replicas.items()}
    return replace(CLOUD, replicas=replicas, pubsub_emulator_host=pubsub)


def test_all_in_the_cloud_or_all_on_emulators_is_fine() -> None:
    require_one_kind(CLOUD, file="fleet.yaml")
    require_one_kind(placed(pubsub="a:1", eu="b:2", us="b:2", apac="c:3"), file="fleet.yaml")
    assert not CLOUD.emulated
    assert placed(pubsub="a:1", eu="b:2", us="b:2", apac="c:3").emulated


@pytest.mark.parametrize(
    ("mixed", "told"),
    [
        (
            placed(pubsub="a:1"),
            "Pub/Sub (a:1) is on an emulator, replica eu, replica us and replica apac are in the cloud",
        ),
        (
            placed(eu="b:2", us="b:2", apac="b:2"),
            "replica eu (b:2), replica us (b:2) and replica apac (b:2) are on an emulator, "
            "Pub/Sub is in the cloud",
        ),
        (
            placed(pubsub="a:1", eu="b:2", us="b:2"),
            "Pub/Sub (a:1), replica eu (b:2) and replica us (b:2) are on an emulator, "
            "replica apac is in the cloud",
        ),
    ],
)
def test_a_mix_names_which_end_is_what_and_the_remedy(mixed: Fleet, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        require_one_kind(mixed, file="fleet.yaml")
    assert str(refused.value).startswith(f"fleet.yaml: emulators and the cloud are mixed: {told}; ")
    assert "set PUBSUB_EMULATOR_HOST and FIRESTORE_EMULATOR_HOST" in str(refused.value)
