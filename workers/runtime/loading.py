"""Load a configuration for a process that is about to change data, or say why it must not start.

One place decides: what `replication.configuration.soundness` calls a failure is a failed `firefleet check`, and
no process starts with it.
"""

from collections.abc import Iterator

from replication.configuration.findings import Finding, Level
from replication.configuration.parse import Configuration
from replication.configuration.soundness import diagnose_config
from replication.errors import ConfigError
from workers.config import ConfigFile

READABLE_BY_OTHERS = 0o077


def load_for_work(config: ConfigFile) -> Configuration:
    """Load the configuration for a process that is about to change data.

    Raises `ConfigError` with everything that `firefleet check` reports as a failure of the configuration.
    """
    configuration = config.load_all()
    failures = [each for each in diagnose_config(configuration) if each.level is Level.FAIL]
    if failures:
        raise ConfigError("\n".join(_told(each, config) for each in failures))
    return configuration


def _told(finding: Finding, config: ConfigFile) -> str:
    return "\n    ".join([f"{config.name}: {finding.subject}: {finding.text}", *finding.remedy])


def diagnose_surroundings(configuration: Configuration, config: ConfigFile) -> Iterator[Finding]:
    """Findings about the files and the environment besides the configuration, on this machine."""
    fleet, analytics = configuration.fleet, configuration.analytics
    if fleet.secret_file is not None:
        yield from _readable_secret(fleet.secret_file, config)
    if analytics is not None and analytics.warehouse is not None:
        name = analytics.warehouse.key_env
        if name is not None and not config.environment.get(name):
            yield Finding(
                Level.WARN,
                "analytics.warehouse.key_env",
                f"{name} is not set here; an analytics worker does not start without it",
                (
                    "# make one key for all analytics workers, and keep it: pseudonyms follow from it",
                    f'export {name}="$(openssl rand -hex 32)"',
                ),
            )


def _readable_secret(name: str, config: ConfigFile) -> Iterator[Finding]:
    path = config.path.parent / name
    try:
        mode = path.stat().st_mode & 0o777
    except OSError as error:
        # It was read a moment ago: whoever changes it now should know.
        yield Finding(Level.WARN, "secret_file", f"cannot look at {path} ({error.strerror})")
        return
    if mode & READABLE_BY_OTHERS:
        text = f"{path} has mode {mode:04o}: other users of this machine can read it, and forge versions"
        yield Finding(Level.WARN, "secret_file", text, (f"chmod 600 {path}",))
    else:
        yield Finding(Level.OK, "secret_file", f"{name}, readable by its owner alone")
