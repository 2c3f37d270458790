"""`firefleet`: one command a module, imported when it is run, so that `--help` answers at once.

Exit codes and last words are `workers.runtime.ending`'s.
"""

import importlib
from collections.abc import Mapping

import click

from workers.runtime.command_line import CommandLine, shared_options

COMMANDS: Mapping[str, tuple[str, str]] = {
    "init": ("workers.init.command", "Write a first configuration, with comments, and its secret."),
    "dev": ("workers.dev.command", "Run a whole fleet on this machine, on emulators, until Ctrl-C."),
    "demo": (
        "workers.demo.command",
        "Run three replicas on this machine, with conflicts, and prove that they end equal.",
    ),
    "check": (
        "workers.setup.check",
        "Report problems in the configuration and in Google Cloud, each with its remedy.",
    ),
    "provision": ("workers.setup.provision", "Create the topics and subscriptions that are missing."),
    "capture": (
        "workers.capture.command",
        "Receive Eventarc's events of all replicas and publish the changes.",
    ),
    "probe": ("workers.probe.command", "Send a change from each replica to all others and time its arrival."),
    "explain": ("workers.explain.command", "Show which rule applies to a document, and why."),
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


class Commands(CommandLine):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def find_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported; None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        command: click.Command = importlib.import_module(module).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # click's own asks every command for its help, and so imports them all.
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=Commands,
    params=shared_options(top=True),
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="firefleet", message="firefleet %(version)s")
def main() -> None:
    """Active-active replication for Firestore databases in several regions.

    --config and --log-level may stand before or after a command.
    """


if __name__ == "__main__":
    main(prog_name="firefleet")
