"""`firefleet check`: what is wrong with the configuration and the cloud, and the command that mends it.

Changes nothing. Asks as the credentials it runs with: run it as the workers' service account to see what
they may do.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict

import click
import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from replication.adapters.inspection import CloudInspection
from replication.configuration.parse import fleet_schema
from replication.errors import FirefleetError
from workers.config import ConfigFile
from workers.policy.laws import diagnose_policies
from workers.setup.config_diagnosis import diagnose_config, diagnose_surroundings
from workers.setup.diagnosis import Finding, Level, diagnose_cloud

_STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red", Level.UNKNOWN: "dim"}
_COMMAND_WIDTH = 78


def findings(config: ConfigFile, *, offline: bool) -> Iterator[Finding]:
    """Everything there is to say about a fleet; `offline` asks no one."""
    fleet = config.load()
    yield from diagnose_config(fleet)
    yield from diagnose_surroundings(fleet, config)
    yield from diagnose_policies(fleet)
    if offline:
        return
    try:
        cloud = CloudInspection(fleet)
    except FirefleetError as error:
        # Without credentials; what the configuration alone says is worth reading all the same.
        yield Finding(Level.FAIL, "Google Cloud", str(error))
        return
    with closing(cloud):
        yield from diagnose_cloud(fleet, cloud)


def _report(found: Sequence[Finding]) -> None:
    # Without markup: a name or an error's text may hold square brackets.
    console = Console(file=sys.stdout, highlight=False, markup=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column("what", overflow="fold", max_width=40)
    table.add_column("finding", overflow="fold")
    for each in found:
        table.add_row(Text(each.level, style=_STYLES[each.level]), each.subject, each.text)
    console.print(table)
    counts = Counter(each.level for each in found)
    console.print("\n" + ", ".join(f"{counts[level]} {level}" for level in Level))
    commands = dict.fromkeys(command for each in found for command in each.remedy)
    if commands:
        console.print("\nTo mend it:")
    for each_command in commands:
        for line in _folded(each_command):
            click.echo(f"  {line}")


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


@click.command(name="check")
@click.option("--schema", is_flag=True, help="Print the configuration's JSON schema, for editors, and stop.")
@click.option("--offline", is_flag=True, help="Check the configuration alone; ask nobody.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(config: ConfigFile, *, schema: bool, offline: bool, as_json: bool) -> None:
    """Say what is wrong with the configuration, topics, subscriptions, databases and roles.

    Prints the commands that mend it. Exit code 1 if anything fails; what only warns, or cannot be asked here,
    does not.
    """
    if schema:
        click.echo(orjson.dumps(fleet_schema(), option=orjson.OPT_INDENT_2))
        return
    found = list(findings(config, offline=offline))
    failed = any(each.level is Level.FAIL for each in found)
    if as_json:
        click.echo(orjson.dumps({"ok": not failed, "findings": [asdict(each) for each in found]}))
    else:
        _report(found)
    if failed:
        raise SystemExit(1)
