"""The command line: `python -m tests.simulation.analytics run | planted`."""

import multiprocessing
import os
import sys
from collections import Counter

import click

from tests.simulation.analytics.faults import FAULTS, hunt
from tests.simulation.analytics.runner import REACHED, Failure, quiet, run_many

CHUNK = 20
"""Histories that a process lives at a time."""


@click.group()
def main() -> None:
    """Simulate the analytics engine: every fault and interleaving, from a seed."""
    quiet()


@main.command()
@click.option("--seeds", default=500, show_default=True, help="How many histories.")
@click.option("--start", default=0, show_default=True, help="The first seed.")
@click.option("--jobs", type=int, help="Processes; default: one a core.")
def run(seeds: int, start: int, jobs: int | None) -> None:
    """Live many histories; exit 1 if any breaks a rule, or something was never reached."""
    failures: list[Failure] = []
    seen: Counter[str] = Counter()
    ranges = [range(first, min(first + CHUNK, start + seeds)) for first in range(start, start + seeds, CHUNK)]
    with multiprocessing.get_context("spawn").Pool(jobs or os.cpu_count(), quiet) as pool:
        for found, reached in pool.imap_unordered(run_many, ranges):
            failures += found
            seen += reached
    for what, times in sorted(seen.items()):
        click.echo(f"{what:32}{times:10,}")
    for failure in failures:
        click.echo(f"seed {failure.seed}: {failure.rule}: {failure.text}")
    missing = [what for what in REACHED if not seen[what]]
    for what in missing:
        click.echo(f"never happened: {what}")
    click.echo(f"{seeds:,} histories, {len(failures)} broke a rule")
    sys.exit(1 if failures or missing else 0)


@main.command()
def planted() -> None:
    """Plant each fault and look for it; exit 1 if one is not found by its rule."""
    missed = 0
    for fault in FAULTS:
        found = hunt(fault)
        missed += found is None or found.rule != fault.rule
        click.echo(
            f"{fault.name}: {found.tries} histories, {found.rule}" if found else f"{fault.name}: not found"
        )
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
