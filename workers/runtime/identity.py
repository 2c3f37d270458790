"""How a process introduces itself: version, configuration, and what it is about to do."""

import importlib.metadata
import logging
from functools import cache

from replication.configuration.parse import Configuration
from replication.fleet.model import Replica
from workers.config import ConfigFile


@cache
def version() -> str:
    """The installed distribution's version; `unknown` where the code runs without being installed."""
    try:
        return importlib.metadata.version("firefleet")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def introduce(
    log: logging.Logger, config: ConfigFile, configuration: Configuration, doing: str, **fields: str
) -> None:
    """Write the line a process starts with; `fields` are for programs that read the log."""
    log.info(
        "firefleet %s, config %s (%s), %s",
        version(),
        configuration.fingerprint,
        config.name,
        doing,
        extra={"version": version(), "config": configuration.fingerprint, **fields},
    )


def described(replica: Replica) -> str:
    """A replica with its database, in words."""
    emulator = f", emulator {replica.emulator_host}" if replica.emulator_host else ""
    return f"{replica.id} (database {replica.database} of {replica.project}{emulator})"
