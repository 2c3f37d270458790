"""Reads the configuration: the file, the secret, the application's own policies, the environment.

The only place that does; `replication.configuration.parse` says what the text means.
"""

import dataclasses
import importlib
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from conflict.policies import Custom
from conflict.resolve import Policy
from replication.configuration.ends import FIRESTORE_VARIABLE, PUBSUB_VARIABLE, require_one_kind
from replication.configuration.marked_yaml import Key, read_yaml
from replication.configuration.parse import Configuration, parse_configuration
from replication.errors import ConfigError, Fault
from replication.fleet.model import Fleet, Replica

STANDARD_INPUT = Path("-")
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):[0-9]{1,5}")
"""As the emulators' own tools print it, which may be an IPv6 address in brackets."""


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """Where the configuration is; nothing is read before `load`, because not every command needs it.

    The path `-` is standard input; other files are then found from the folder the process was started in.
    """

    path: Path
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    _texts: list[str] = field(default_factory=list, init=False, repr=False, compare=False)
    """What was read, once: standard input cannot be read again."""

    @property
    def name(self) -> str:
        """The file's name in errors."""
        return "standard input" if self.path == STANDARD_INPUT else str(self.path)

    def error(self, problems: Iterable[tuple[Key, str]]) -> ConfigError:
        """The error for problems at keys of this file, with a line for each."""
        return read_yaml(self._text(), file=self.name).error(problems)

    def load(self) -> Fleet:
        """The fleet of `load_all`."""
        return self.load_all().fleet

    def load_all(self) -> Configuration:
        """Read it; raises `ConfigError`.

        The emulators' variables stand in for what the file does not name. A fleet that is partly on emulators
        and partly in the cloud is refused.
        """
        parsed = parse_configuration(
            self._text(), file=self.name, read_secret=self._read_secret, load_custom=load_custom
        )
        fleet = self._on_emulators(parsed.fleet)
        require_one_kind(fleet, file=self.name)
        return dataclasses.replace(parsed, fleet=fleet)

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
            raise ConfigError(f"{variable}: '{address}' is not an address; write host:port, as 127.0.0.1:8080")
        return address

    def values(self) -> Mapping[str, Any]:
        """What the file says, as it says it."""
        values: Mapping[str, Any] = read_yaml(self._text(), file=self.name).value
        return values

    def rule_lines(self) -> tuple[int, ...]:
        """The line on which each rule of `collections` begins, in a file that `load` accepts."""
        source = read_yaml(self._text(), file=self.name)
        return tuple(source.line(("collections", at)) for at in range(len(source.value["collections"])))

    def _text(self) -> str:
        if not self._texts:
            self._texts.append(self._read())
        return self._texts[0]

    def _read(self) -> str:
        try:
            if self.path == STANDARD_INPUT:
                return sys.stdin.buffer.read().decode("utf-8")
            return self.path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            text = f"not text in UTF-8 ({error.reason}); save it as UTF-8"
            raise ConfigError.of([Fault(self.name, 0, "", text)]) from error
        except OSError as error:
            text = (
                f"cannot read the configuration ({error.strerror}); "
                "name the file with --config or FIREFLEET_CONFIG"
            )
            raise ConfigError.of([Fault(self.name, 0, "", text)]) from error

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
            "install its package, under a name that nothing else has, where firefleet is installed: "
            "`pip install ./shop-policies` in every image that runs capture or a worker"
        ) from error
    policy = getattr(module, function_name, None)
    if policy is None:
        raise ConfigError(f"'{module_name}' has no '{function_name}'; name a function of that module")
    if isinstance(policy, type) or not callable(policy):
        raise ConfigError(f"'{name}' is not a function; name one that takes two candidates")
    if isinstance(getattr(policy, "name", None), str):
        return cast(Policy, policy)
    return Custom(name=f"custom: {name}", decide=policy)
