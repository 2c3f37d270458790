"""What `firefleet dev` runs: a configuration, put on emulators at ports that stay the same."""

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from replication.configuration.first import checked
from replication.configuration.fleet import ReplicaId
from replication.errors import ConfigError
from workers.config import ConfigFile
from workers.local.fleet import Layout

FOLDER = Path(".firefleet")
PORT_BASE = 8700
"""Not near 8080, where an emulator that is started by hand listens."""
PORTS_MAX = 65_535
_FIXED = ("firestore", "pubsub", "capture", "eventarc")
_TITLES = {
    "firestore": "the Firestore emulator",
    "pubsub": "the Pub/Sub emulator",
    "eventarc": "the stand-in for Eventarc",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """The fleet to run. `origin` says where its rules come from; `config` is None for the built-in ones."""

    replicas: tuple[str, ...]
    origin: str
    config: Mapping[str, Any] | None
    analytics: bool


def plan(config: ConfigFile, replicas: str | None) -> Plan:
    """Take the configuration file's fleet; without a file, or with `replicas` (ids and commas), a plain one.

    Raises `ConfigError` for a file with mistakes, and where a file other than the default one is missing.
    """
    if replicas is not None:
        return Plan(_ids(replicas), "every document is replicated, the later write wins", None, False)
    if not config.path.exists() and config.path == Path("fleet.yaml"):
        text = "no fleet.yaml here: every document is replicated, the later write wins"
        return Plan(("eu", "us", "apac"), text, None, False)
    # Whatever emulators the environment names: these databases go to emulators of their own.
    configuration = replace(config, environment={}).load_all()
    values = _with_absolute_files(config.values(), config.path.parent.absolute())
    return Plan(
        tuple(configuration.fleet.replicas),
        f"rules of {config.path}",
        values,
        configuration.analytics is not None,
    )


def _with_absolute_files(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The configuration's values, whose files are found from another folder too."""
    moved = dict(values)
    if moved.get("secret_file"):
        moved["secret_file"] = str(folder / moved["secret_file"])
    warehouse = (moved.get("analytics") or {}).get("warehouse") or {}
    if warehouse.get("key_file"):
        key_file = str(folder / warehouse["key_file"])
        moved["analytics"] = {**moved["analytics"], "warehouse": {**warehouse, "key_file": key_file}}
    return moved


def _ids(text: str) -> tuple[str, ...]:
    found = tuple(checked(ReplicaId, each.strip(), "--replicas") for each in text.split(","))
    if len(set(found)) < len(found):
        raise ConfigError(f"--replicas: '{text}' names a replica twice; name each once")
    return found


class Ports:
    """A fixed port for each process: from `base` on, in the order of their names."""

    def __init__(self, base: int, plan: Plan) -> None:
        workers = [f"replicate-{replica}-1" for replica in plan.replicas]
        analytics = [f"analytics-{replica}" for replica in plan.replicas] if plan.analytics else []
        names = (*_FIXED, *workers, *analytics)
        if base + len(names) - 1 > PORTS_MAX:
            raise ConfigError(f"--port-base: {base} leaves no room for {len(names)} ports; choose a lower one")
        self._ports = {name: base + at for at, name in enumerate(names)}

    def __call__(self, name: str) -> int:
        return self._ports[name]

    def check(self) -> None:
        """Raise `ConfigError` for the first port that is taken."""
        for name, port in self._ports.items():
            try:
                # As the servers do; without it the last run's closed connections would count as taken.
                socket.create_server(("127.0.0.1", port)).close()
            except OSError as error:
                raise ConfigError(
                    f"--port-base: port {port}, for {_TITLES.get(name, name)}, cannot be used "
                    f"({os.strerror(error.errno or 0)}); is another `firefleet dev` running? Stop it, or "
                    "choose other ports with --port-base"
                ) from error


def config_path(base: int) -> Path:
    """Where the configuration of a running fleet is written: one file for each range of ports."""
    return FOLDER / ("dev.yaml" if base == PORT_BASE else f"dev-{base}.yaml")


def prepare_folder() -> None:
    """Create the folder, which git ignores as a whole."""
    try:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / ".gitignore").write_text("*\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{FOLDER}: cannot write there ({error.strerror}); start `firefleet dev` in a folder of yours"
        ) from error


def layout(plan: Plan, ports: Ports, *, path: Path, environment: Mapping[str, str]) -> Layout:
    """The local fleet of a plan: one Firestore emulator for all replicas.

    One, because Google's client takes the address of one emulator for its whole process.
    """
    replicas: Sequence[str] = plan.replicas
    return Layout(
        replicas=replicas,
        emulators="one",
        config=plan.config,
        config_path=path,
        analytics=plan.analytics,
        environment=environment,
        port=ports,
    )
