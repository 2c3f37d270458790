"""Where a fleet is reached: everything on emulators, or everything in the cloud.

A mix is always a mistake, and the worst there is: a worker would apply an emulator's messages to a production
database.
"""

from collections.abc import Mapping

from replication.errors import ConfigError
from replication.fleet.model import Fleet

PUBSUB_VARIABLE = "PUBSUB_EMULATOR_HOST"
FIRESTORE_VARIABLE = "FIRESTORE_EMULATOR_HOST"
"""The variables of Google's own clients."""


def require_one_kind(fleet: Fleet, *, file: str) -> None:
    """Raise `ConfigError` where only some ends are emulators; `file` is the configuration's name."""
    ends: Mapping[str, str | None] = {
        "Pub/Sub": fleet.pubsub_emulator_host,
        **{f"replica {name}": replica.emulator_host for name, replica in fleet.replicas.items()},
    }
    emulators = [f"{end} ({host})" for end, host in ends.items() if host]
    cloud = [end for end, host in ends.items() if not host]
    if emulators and cloud:
        raise ConfigError(
            f"{file}: emulators and the cloud are mixed: {_listed(emulators)} on an emulator, "
            f"{_listed(cloud)} in the cloud; for emulators only, set {PUBSUB_VARIABLE} and "
            f"{FIRESTORE_VARIABLE}, or `pubsub_emulator_host` and every replica's `emulator_host`; "
            "for the cloud, unset all of them"
        )


def _listed(ends: list[str]) -> str:
    if len(ends) == 1:
        return f"{ends[0]} is"
    return f"{', '.join(ends[:-1])} and {ends[-1]} are"
