"""`firefleet check`: problems in the configuration and in Google Cloud, each with the command that fixes it.

Changes nothing. Asks as the credentials it runs with: run it as the workers' service account to see what
they may do.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace

import click
import orjson
from rich.text import Text

from replication.adapters.inspection import CloudInspection
from replication.configuration.findings import Finding, Level
from replication.configuration.schema import fleet_schema
from replication.configuration.soundness import diagnose_config
from replication.errors import ConfigError
from replication.words import counted
from workers.config import ConfigFile
from workers.runtime.ending import FAILED, MISUSED
from workers.runtime.loading import diagnose_surroundings
from workers.runtime.output import print_json, print_table
from workers.setup.diagnosis import diagnose_cloud
from workers.setup.policies import diagnose_policies

_STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red", Level.UNKNOWN: "dim"}
_COMMAND_WIDTH = 78
_NAMED_MAX = 5
"""As many subjects of one cause are named; more are counted."""


def examine(config: ConfigFile, *, offline: bool) -> tuple[list[Finding], int]:
    """Everything there is to say about a fleet, and the exit code; `offline` asks no one.

    Without credentials, which is a mistake in how it was started, what the configuration says is still said.
    """
    configuration = config.load_all()
    found = [
        *diagnose_config(configuration),
        *diagnose_surroundings(configuration, config),
        *diagnose_policies(configuration.fleet),
    ]
    try:
        if not offline:
            with closing(CloudInspection(configuration.fleet)) as cloud:
                found.extend(diagnose_cloud(configuration, cloud))
    except ConfigError as error:
        return [*found, Finding(Level.FAIL, "Google Cloud", str(error))], MISUSED
    return found, FAILED if any(each.level is Level.FAIL for each in found) else 0


def _report(found: Sequence[Finding], *, verbose: bool) -> None:
    shown = found if verbose else list(_grouped(found))
    print_table(
        ("", "what", "finding"),
        ((Text(each.level, style=_STYLES[each.level]), each.subject, each.text) for each in shown),
    )
    counts = Counter(each.level for each in found)
    click.echo("\n" + ", ".join(f"{counts[level]} {level}" for level in Level if counts[level]))
    commands = dict.fromkeys(command for each in found for command in each.remedy)
    if commands:
        click.echo("\nTo fix it:")
    for each_command in commands:
        for line in _folded(each_command) if sys.stdout.isatty() else [each_command]:
            click.echo(f"  {line}")


def _grouped(found: Sequence[Finding]) -> Iterator[Finding]:
    """One finding for all of one cause, where the first of them stands."""
    subjects: dict[tuple[Level, str], list[str]] = {}
    for each in found:
        subjects.setdefault((each.level, each.cause), []).append(each.subject)
    for each in found:
        alike = subjects[each.level, each.cause]
        if not each.cause or len(alike) == 1:
            yield each
        elif each.subject == alike[0]:
            names = ", ".join(alike) if len(alike) <= _NAMED_MAX else counted(len(alike), "question")
            yield replace(each, subject=names, text=each.cause)


def _folded(command: str) -> Iterator[str]:
    """A command in lines that still run when they are copied: folded before its flags."""
    line = ""
    for part in command.split(" "):
        if line and not command.startswith("#") and len(line) + len(part) > _COMMAND_WIDTH - 4:
            yield f"{line} \\"
            line = "    " + part
        else:
            line = f"{line} {part}" if line else part
    yield line


_IN_EDITORS = """\b
Completion and checks in an editor with a YAML language server:
    firefleet check --schema > fleet.schema.json
and as the first line of fleet.yaml:
    # yaml-language-server: $schema=fleet.schema.json
"""


@click.command(name="check", epilog=_IN_EDITORS)
@click.option("--schema", is_flag=True, help="Print the configuration's JSON schema, for editors, and stop.")
@click.option("--offline", is_flag=True, help="Check the configuration alone; ask no one.")
@click.option("--verbose", is_flag=True, help="Show every finding, and not one for each cause.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(config: ConfigFile, *, schema: bool, offline: bool, verbose: bool, as_json: bool) -> None:
    """Report problems in the configuration, topics, subscriptions, databases and roles.

    Prints the commands that fix it. Exit code 1 if anything fails; a warning, or what cannot be asked here,
    does not count. Exit code 2 if the configuration cannot be read, or there are no credentials.
    """
    if schema:
        click.echo(orjson.dumps(fleet_schema(), option=orjson.OPT_INDENT_2))
        return
    found, code = examine(config, offline=offline)
    if as_json:
        print_json({"ok": not code, "findings": [asdict(each) for each in found]})
    else:
        _report(found, verbose=verbose)
    raise SystemExit(code)
