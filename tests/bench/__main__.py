"""`python -m tests.bench`: one run, one table, one JSON file, one chart. Starts and stops its own emulators."""

import os
import platform
import time
from pathlib import Path

import click
import orjson
from rich.console import Console

from tests.bench import cases, chart, report


@click.command()
@click.option("--quick", is_flag=True, help="A tenth of it, in one round: to see that it works.")
@click.option("--only", multiple=True, help="Measure only this; may be given several times.")
@click.option("--rounds", type=click.IntRange(1, 20), help="Rounds of each measurement; default 3.")
@click.option("--changes", type=click.IntRange(min=500), help="Messages of a full backlog; default 20,000.")
@click.option("--lag-seconds", type=click.IntRange(1, 3600), help="How long the lag is measured; default 60.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default="bench.json", show_default=True)
@click.option(
    "--chart", "chart_path", type=click.Path(path_type=Path, dir_okay=False), help="Draw the chart here."
)
def main(
    *,
    quick: bool,
    only: tuple[str, ...],
    rounds: int | None,
    changes: int | None,
    lag_seconds: int | None,
    out: Path,
    chart_path: Path | None,
) -> None:
    """Measure the worker, its ceiling and what one would write instead, side by side."""
    length = cases.QUICK if quick else cases.FULL
    length = cases.Length(
        rounds=rounds or length.rounds,
        changes=changes or length.changes,
        lag_s=lag_seconds or length.lag_s,
        capture_s=length.capture_s,
    )
    if unknown := set(only) - set(cases.names(length)):
        raise click.UsageError(
            f"no measurement {', '.join(sorted(unknown))}; there are {', '.join(cases.names(length))}"
        )
    console = Console()
    machine = {
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "load_before": os.getloadavg(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    results = cases.run(length, only=only, say=lambda text: console.print(text, style="dim"))
    console.print(report.tables(results))
    machine["load_after"] = os.getloadavg()
    written = {"machine": machine, "results": results, "targets": report.judged(results)}
    out.write_bytes(orjson.dumps(written, option=orjson.OPT_INDENT_2))
    bars = report.bars(results)
    if chart_path and bars:
        drawn = chart.draw("Messages a second, one process, 1 KB documents", bars, ours="firefleet replicate")
        chart_path.write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
