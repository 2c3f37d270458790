"""Reads the configuration: the file, the secret, the application's own policies, the environment.

The only place that does; `replication.configuration.parse` says what the text means.
"""

import dataclasses
import importlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from conflict.policies import Custom
from conflict.resolve import Policy
from replication.configuration.ends import FIRESTORE_VARIABLE, PUBSUB_VARIABLE, require_one_kind
from replication.configuration.marked_yaml import read_yaml
from replication.configuration.parse import Fleet, Replica, parse_fleet
from replication.errors import ConfigError

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):[0-9]{1,5}")
"""As the emulators' own tools print it, which may be an IPv6 address in brackets."""


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """Where the configuration is; nothing is read before `load`, because not every command needs it."""

    path: Path
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    def load(self) -> Fleet:
        """Read it; raises `ConfigError`.

        The emulators' variables stand in for what the file does not name. A fleet that is partly on emulators
        and partly in the cloud is refused.
        """
        parsed = parse_fleet(
            self._text(), file=str(self.path), read_secret=self._read_secret, load_custom=load_custom
        )
        fleet = self._on_emulators(parsed)
        require_one_kind(fleet, file=str(self.path))
        return fleet

    def _on_emulators(self, fleet: Fleet) -> Fleet:
        pubsub, firestore = self._address(PUBSUB_VARIABLE), self._address(FIRESTORE_VARIABLE)

        def placed(replica: Replica) -> Replica:
            return dataclasses.replace(replica, emulator_host=replica.emulator_host or firestore)

        return dataclasses.replace(
            fleet,
            pubsub_emulator_host=fleet.pubsub_emulator_host or pubsub,
            replicas={name: placed(replica) for name, replica in fleet.replicas.items()},
        )

    def _address(self, variable: str) -> str | None:
        address = self.environment.get(variable)
        if not address:
            return None
        if not _ADDRESS.fullmatch(address):
            raise ConfigError(f"{variable}: '{address}' is no address; write host:port, such as 127.0.0.1:8080")
        return address

    def values(self) -> Mapping[str, Any]:
        """What the file says, as it says it."""
        values: Mapping[str, Any] = read_yaml(self._text(), file=str(self.path)).value
        return values

    def rule_lines(self) -> tuple[int, ...]:
        """The line on which each rule of `collections` begins, in a file that `load` accepts."""
        source = read_yaml(self._text(), file=str(self.path))
        return tuple(source.line(("collections", at)) for at in range(len(source.value["collections"])))

    def _text(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{self.path}: not text in UTF-8 ({error.reason}); save it as UTF-8") from error
        except OSError as error:
            raise ConfigError(
                f"{self.path}: cannot read the configuration ({error.strerror}); "
                "name the file with --config or FIREFLEET_CONFIG"
            ) from error

    def _read_secret(self, name: str) -> bytes:
        """A secret's file is found from the configuration's folder, wherever the process was started."""
        return (self.path.parent / name).read_bytes()


def load_custom(name: str) -> Policy:
    """Import `package.module:function` as a policy; raises `ConfigError`.

    A ready policy (an instance with a `name`) is taken as it is, a plain function under its own name.
    """
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        # Whatever the application's module raises while it is imported is a mistake in the configuration.
        raise ConfigError(
            f"importing '{module_name}' failed ({type(error).__name__}: {error}); "
            "install the package that holds it where firefleet is installed, under a name of its own: "
            "`pip install ./shop-policies` in every image that runs capture or a worker"
        ) from error
    policy = getattr(module, function_name, None)
    if policy is None:
        raise ConfigError(f"'{module_name}' has no '{function_name}'; name a function of that module")
    if isinstance(policy, type) or not callable(policy):
        raise ConfigError(f"'{name}' is no function; name one that takes two candidates")
    if isinstance(getattr(policy, "name", None), str):
        return cast(Policy, policy)
    return Custom(name=f"custom: {name}", decide=policy)
