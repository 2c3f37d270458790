"""`firefleet probe`: send a change through every pair of replicas, and report when each arrived."""

import secrets
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import click

from replication.adapters.firestore import open_database
from replication.configuration.fields import microseconds
from replication.documents.wire import MICROS
from replication.fleet.model import Fleet, Replica
from replication.ports import Database
from replication.probe import COLLECTION, Pair, check_collection, pairs
from workers.config import ConfigFile
from workers.probe.probing import Probe, Round
from workers.runtime.interrupt import stopping
from workers.runtime.output import print_json, print_table

INTERRUPTED = 130


def duration(text: str) -> float:
    """A duration as the configuration writes it, such as 30s or 5m, in seconds."""
    try:
        return microseconds(text) / MICROS
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command("probe")
@click.option(
    "--timeout", type=duration, default="30s", show_default=True, help="How long to wait for all arrivals."
)
@click.option("--replica", "chosen", multiple=True, help="Only pairs from or to this replica; may be repeated.")
@click.option("--every", type=duration, help="Repeat at this interval, until Ctrl-C.")
@click.option(
    "--collection", default=COLLECTION, show_default=True, help="A multi-primary collection to write to."
)
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@click.option("--json", "json_wanted", is_flag=True, help="Print one JSON object for each round.")
@click.pass_obj
def command(
    config: ConfigFile,
    *,
    timeout: float,
    chosen: tuple[str, ...],
    every: float | None,
    collection: str,
    dry_run: bool,
    json_wanted: bool,
) -> None:
    """Send a change from each replica to all others, and report when each arrived.

    Made for production: writes one small document at each replica, reads it at the others, and deletes it. The
    times are those between the two databases' commits. Exit code 1 if a change did not arrive; the likely
    cause is printed for each pair. With --every, Ctrl-C ends it, and the exit code is 1 if any round failed.

    \b
    Examples:
      firefleet probe
      firefleet probe --replica us --timeout 2m
      firefleet probe --every 60s --json
    """  # noqa: D301 - click's mark for lines that it must not fold
    fleet = config.load()
    check_collection(fleet, collection)
    wanted = pairs(fleet, chosen)
    with ExitStack() as stack:
        stop = stack.enter_context(stopping())
        databases = _open(fleet, wanted, open_database, stack)
        probe = Probe(fleet, databases, wanted, collection=collection, run=secrets.token_hex(4), stop=stop)
        if dry_run:
            _announce(fleet, probe, wanted, json_wanted=json_wanted)
            return
        code = _rounds(fleet, probe, timeout=timeout, every=every, stop=stop, json_wanted=json_wanted)
    if code:
        raise SystemExit(code)


def _open(
    fleet: Fleet, wanted: Sequence[Pair], open_one: Callable[[Replica], Database], stack: ExitStack
) -> dict[str, Database]:
    databases: dict[str, Database] = {}
    for name in dict.fromkeys(end for pair in wanted for end in pair):
        databases[name] = open_one(fleet.replica(name))
        stack.callback(databases[name].close)
    return databases


def _announce(fleet: Fleet, probe: Probe, wanted: Sequence[Pair], *, json_wanted: bool) -> None:
    rows = []
    for source, path in probe.paths.items():
        replica = fleet.replica(source)
        readers = [target for one, target in wanted if one == source]
        rows.append((source, f"{replica.project}/{replica.database}", path, readers))
    if json_wanted:
        names = ("replica", "database", "document", "read_at")
        print_json({"dry_run": True, "writes": [dict(zip(names, row, strict=True)) for row in rows]})
        return
    columns = ("WOULD WRITE AT", "DATABASE", "DOCUMENT", "AND READ IT AT")
    print_table(columns, [(*row[:3], ", ".join(row[3])) for row in rows])


def _rounds(
    fleet: Fleet,
    probe: Probe,
    *,
    timeout: float,
    every: float | None,
    stop: threading.Event,
    json_wanted: bool,
) -> int:
    """Probe once, or until stopped; the exit code. The documents are deleted in any case."""
    failed = False
    try:
        while not stop.is_set():
            began = datetime.now(UTC)
            found = probe.round(timeout=timeout)
            if stop.is_set():
                break  # it was cut short, and says nothing
            failed = failed or not found.ok
            _report(fleet, found, began, several=every is not None, json_wanted=json_wanted)
            if every is None:
                break
            stop.wait(max(0.0, every - (datetime.now(UTC) - began).total_seconds()))
    finally:
        for text in probe.clean().values():
            click.echo(f"warning: {text}", err=True)
    if stop.is_set() and every is None:
        click.echo("interrupted; the probe's documents were deleted", err=True)
        return INTERRUPTED
    return int(failed)


def _report(fleet: Fleet, found: Round, began: datetime, *, several: bool, json_wanted: bool) -> None:
    if json_wanted:
        print_json(_as_json(found, began))
        return
    if several:
        click.echo(f"{began:%Y-%m-%d %H:%M:%S} UTC")
    _print_matrix(fleet, found)
    if several:
        click.echo()


def _print_matrix(fleet: Fleet, found: Round) -> None:
    used = {end for pair in (*found.lags_us, *found.missing) for end in pair}
    names = [name for name in fleet.replicas if name in used]
    rows = [(source, *(_cell(found, (source, target)) for target in names)) for source in names]
    print_table(("FROM", *(f"TO {name}" for name in names)), rows)
    causes: dict[tuple[str, str], list[Pair]] = {}
    for pair, missing in found.missing.items():
        causes.setdefault((missing.text, missing.remedy), []).append(pair)
    for (text, remedy), affected in causes.items():
        click.echo(f"\n{', '.join(f'{source} to {target}' for source, target in affected)}: {text}.")
        click.echo(f"Try: {remedy}")


def _cell(found: Round, pair: Pair) -> str:
    if pair in found.missing:
        return "none"
    return lag_text(found.lags_us[pair]) if pair in found.lags_us else "-"


def lag_text(lag_us: int) -> str:
    """A lag for people."""
    return f"{lag_us / MICROS:.1f} s" if lag_us >= MICROS else f"{lag_us / 1000:.0f} ms"


def _as_json(found: Round, began: datetime) -> dict[str, Any]:
    arrived = [
        {"from": source, "to": target, "lag_ms": lag / 1000} for (source, target), lag in found.lags_us.items()
    ]
    missing = [
        {
            "from": source,
            "to": target,
            "lag_ms": None,
            "cause": each.cause,
            "text": each.text,
            "try": each.remedy,
        }
        for (source, target), each in found.missing.items()
    ]
    return {
        "ok": found.ok,
        "time": began,
        "pairs": sorted(arrived + missing, key=lambda one: str((one["from"], one["to"]))),
    }
