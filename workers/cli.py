"""`firefleet`: one command a module, imported when it is run, so that `--help` answers at once.

Exit codes: 0 done, 1 found a difference or failed work, 2 usage or configuration. What goes wrong on purpose
(`FirefleetError`) ends in a message; a traceback is a bug.
"""

import importlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from replication.errors import ConfigError, FirefleetError

COMMANDS: Mapping[str, tuple[str, str]] = {
    "init": ("workers.init.command", "Write a first configuration, with comments, and its secret."),
    "dev": ("workers.dev.command", "Run a whole fleet on this machine, on emulators, until Ctrl-C."),
    "demo": (
        "workers.demo.command",
        "Run three replicas on this machine, with conflicts, and prove that they end equal.",
    ),
    "check": (
        "workers.setup.check",
        "Report what is wrong with the configuration and the cloud, with the remedies.",
    ),
    "provision": ("workers.setup.provision", "Create the topics and subscriptions that are missing."),
    "capture": (
        "workers.capture.command",
        "Receive Eventarc's events of all replicas and publish the changes.",
    ),
    "probe": ("workers.probe.command", "Send a change from each replica to all others and time its arrival."),
    "explain": ("workers.explain.command", "Say which rule applies to a document, and why."),
    "policy": ("workers.policy.command", "Prove that an application's own conflict policy is safe."),
    "replicate": (
        "workers.replicate.command",
        "Apply the other replicas' changes to one replica, until SIGTERM.",
    ),
    "analytics": (
        "workers.analytics.command",
        "Buffer one region's analytics events and write them in batches.",
    ),
    "publish": ("workers.publish.command", "Publish synthetic changes, for test harnesses."),
}
"""Each command, the module whose object `command` it is, and its line of help."""


class Failure(click.ClickException):
    """Work that failed; the text goes to standard error as it is, because it names its place itself."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        """Print the error's lines."""
        click.echo(self.message, file=file, err=file is None)


class Misconfigured(Failure):
    """A mistake in the configuration or the command line."""

    exit_code = 2


class CommandLine(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        command: click.Command = importlib.import_module(module).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # click's own asks every command for its help, and so imports them all.
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise Misconfigured(str(error)) from error
        except FirefleetError as error:
            raise Failure(str(error)) from error


@click.group(
    cls=CommandLine, context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]}
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar="FIREFLEET_CONFIG",
    default="fleet.yaml",
    show_default=True,
    show_envvar=True,
    help="The fleet's configuration.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    envvar="FIREFLEET_LOG_LEVEL",
    default="info",
    show_default=True,
    help="Log lines to standard error from this level up.",
)
@click.version_option(package_name="firefleet", message="firefleet %(version)s")
@click.pass_context
def main(ctx: click.Context, *, config: Path, log_level: str) -> None:
    """Active-active replication for Firestore databases in several regions."""
    # Not at the top: they are most of what `--help` would wait for.
    from workers import logs  # noqa: PLC0415
    from workers.config import ConfigFile  # noqa: PLC0415

    handler = logs.configure(log_level, project=os.environ.get("GOOGLE_CLOUD_PROJECT"))
    ctx.call_on_close(lambda: logging.getLogger().removeHandler(handler))
    ctx.obj = ConfigFile(config)
