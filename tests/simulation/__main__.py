"""The simulation's command line: `python -m tests.simulation run | replay | shrink | planted`."""

import multiprocessing
import os
import sys

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.simulation.oracles import judge
from tests.simulation.planted import FAULTS, TRIES_MAX, fault_named, hunt_named
from tests.simulation.runner import REACHED, Summary, command, live, parse_ranges, run_many
from tests.simulation.shrink import shrink

console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)


@click.group()
def main() -> None:
    """Simulate the replication core: every fault and interleaving, from a seed."""


@main.command()
@click.option("--seeds", default=2_000, show_default=True, help="How many histories.")
@click.option("--start", default=0, show_default=True, help="The first seed.")
@click.option("--jobs", type=int, help="Processes; default: one a core.")
def run(seeds: int, start: int, jobs: int | None) -> None:
    """Live many histories and judge each; exit 1 if any breaks an oracle, or something was never reached."""
    jobs = jobs or os.cpu_count() or 1
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]:.0f} histories/s, {task.fields[failed]} failed"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("histories", total=seeds, speed=0.0, failed=0)

        def show(summary: Summary) -> None:
            speed = summary.histories / max(summary.seconds, 0.001)
            progress.update(task, completed=summary.histories, speed=speed, failed=len(summary.failures))

        summary = run_many(start, seeds, jobs=jobs, progress=show)
    _report(summary, jobs)
    sys.exit(1 if summary.failures or summary.unreached else 0)


def _report(summary: Summary, jobs: int) -> None:
    table = Table(title="what happened", box=None, pad_edge=False)
    table.add_column("event")
    table.add_column("times", justify="right")
    for what, times in sorted(summary.sometimes.items()):
        table.add_row(what if what not in REACHED else f"[bold]{what}[/]", f"{times:,}")
    console.print(table)
    speed = summary.histories / max(summary.seconds, 0.001)
    console.print(
        f"{summary.histories:,} histories, {summary.writes:,} writes by applications, {summary.published:,} "
        f"messages in {summary.seconds:.0f} s: {speed:.0f} histories/s, {speed / jobs:.0f} per process"
    )
    for failure in summary.failures:
        console.print(f"[red]{failure}[/]", soft_wrap=True, markup=True)
    for what in summary.unreached:
        console.print(f"[red]never happened: {what}[/]")
    if not summary.failures and not summary.unreached:
        console.print("[green]nothing found, and everything reached[/]")


@main.command()
@click.argument("seed", type=int)
@click.option("--steps", help="Only these steps, such as 0-14,20: what a shrinker left.")
def replay(seed: int, steps: str | None) -> None:
    """Show a seed's history, move by move, and what is wrong with it."""
    trace: list[str] = []
    history = live(seed, steps=parse_ranges(steps) if steps else None, trace=trace)
    console.print(history.knobs, soft_wrap=True)
    for line in trace:
        console.print(line, markup=False, soft_wrap=True)
    wrong = judge(history)
    for oracle, what in wrong:
        console.print(f"{oracle}: {what}", style="red", markup=False, soft_wrap=True)
    if not wrong:
        console.print("nothing is wrong with it", style="green")
    sys.exit(1 if wrong else 0)


@main.command(name="shrink")
@click.argument("seed", type=int)
def shrink_command(seed: int) -> None:
    """Find the fewest steps of a failing seed that still fail; prints the command that replays them."""
    steps = shrink(seed)
    if steps is None:
        console.print(f"seed {seed} breaks nothing", style="green")
        return
    console.print(f"{len(steps)} steps are enough:\n{command(seed, steps)}", soft_wrap=True)
    sys.exit(1)


@main.command()
@click.option("--only", multiple=True, help="Only these faults, by name.")
def planted(only: tuple[str, ...]) -> None:
    """Plant each deliberate fault and look for it; exit 1 if one is not found."""
    table = Table(title=f"planted bugs, each looked for in up to {TRIES_MAX:,} histories")
    for column in ("fault", "histories until found", "found by", "planted with, or why this oracle"):
        table.add_column(column)
    names = [fault.name for fault in FAULTS if not only or fault.name in only]
    missed = 0
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        for name, found in pool.imap(hunt_named, names):
            missed += found is None
            where = f"{found.tries} histories, seed {found.seed}, {found.oracle}" if found else "not found"
            console.print(f"{name}: {where}")
            tries, oracle = (str(found.tries), found.oracle) if found else ("[red]not found[/]", "")
            table.add_row(name, tries, oracle, fault_named(name).note)
    console.print(table)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
