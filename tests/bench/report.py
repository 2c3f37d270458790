"""What a run is judged by: the targets, all of them ratios within the run or figures of one process."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table

from tests.bench.cases import FULL, backlogs

Values = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Target:
    """A figure, computed from the cases it needs, and the bound it is held to."""

    name: str
    unit: str
    at_least: bool
    bound: float
    figure: Callable[[Values], float]


def _ratio(one: str, other: str) -> Callable[[Values], float]:
    return lambda values: values[one]["per_second"] / values[other]["per_second"]


def _value(case: str, name: str) -> Callable[[Values], float]:
    return lambda values: values[case][name]


TARGETS = (
    Target("worker / ceiling", "×", True, 0.80, _ratio("worker", "ceiling")),
    Target("worker / transaction per message", "×", True, 10, _ratio("worker", "transaction")),
    Target("worker / batched commits, unchecked", "×", True, 1, _ratio("worker", "batched")),
    Target("worker / BulkWriter, unchecked", "×", True, 1, _ratio("worker", "bulkwriter")),
    Target("core alone", "documents/s", True, 40_000, _value("core", "per_second")),
    Target("CPU of the worker", "µs a message", False, 100, _value("worker", "cpu_us")),
    Target("memory of the worker", "MiB", False, 200, _value("worker", "peak_mib")),
    Target("memory gained under load", "MiB", False, 10, _value("lag", "grown_mib")),
    Target("lag p99 at half load", "ms", False, 500, _value("lag", "p99_ms")),
    Target("time with 10 % conflicts / none", "×", False, 2, _ratio("worker", "worker 10 % conflicts")),
    Target("capture", "requests/s", True, 1_500, _value("capture", "per_second")),
)


def judged(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each target whose cases were measured: its figure, its bound, and whether it is met."""
    values = {name: result["values"] for name, result in results.items()}
    judgements = []
    for target in TARGETS:
        try:
            figure = target.figure(values)
        except KeyError:
            continue  # a run of some cases only
        met = figure >= target.bound if target.at_least else figure <= target.bound
        judgements.append(
            {
                "target": target.name,
                "figure": round(figure, 3),
                "bound": f"{'≥' if target.at_least else '≤'} {target.bound:,}",
                "unit": target.unit,
                "met": met,
            }
        )
    return judgements


def tables(results: Mapping[str, Any]) -> Group:
    """The run as it is shown on a terminal."""
    return Group(*[table for table in (_backlogs(results), _others(results), _targets(results)) if table.rows])


def bars(results: Mapping[str, Any]) -> dict[str, float]:
    """The contenders that were measured, fastest first, for the chart."""
    contenders = ("ceiling", "worker", "batched", "bulkwriter", "transaction")
    about = {case.name: case.about for case in backlogs(FULL)}
    found = {about[name]: results[name]["values"]["per_second"] for name in contenders if name in results}
    return dict(sorted(found.items(), key=lambda bar: -bar[1]))


def _backlogs(results: Mapping[str, Any]) -> Table:
    table = Table("backlog", "", title="Backlogs: medians", title_justify="left")
    for column in ("messages/s", "lowest–highest", "CPU µs/message", "peak MiB"):
        table.add_column(column, justify="right")
    for case in backlogs(FULL):
        if case.name not in results:
            continue
        values = results[case.name]["values"]
        rates = [one["per_second"] for one in results[case.name]["rounds"]]
        lossy = len(results[case.name]["unfinished"])
        table.add_row(
            case.name,
            case.about + (f"; left changes unwritten in {lossy} rounds more" if lossy else ""),
            f"{values['per_second']:,.0f}",
            f"{min(rates):,.0f}–{max(rates):,.0f}",
            f"{values['cpu_us']:.0f}",
            f"{values['peak_mib']:.0f}",
        )
    return table


def _others(results: Mapping[str, Any]) -> Table:
    table = Table("measurement", "values", title="Core, lag, capture", title_justify="left")
    for name in ("core", "lag", "capture"):
        if name in results:
            values = results[name]["values"]
            table.add_row(name, ", ".join(f"{key} {value:,.1f}" for key, value in values.items()))
    return table


def _targets(results: Mapping[str, Any]) -> Table:
    table = Table("target", "", title="Targets", title_justify="left")
    for column in ("figure", "bound", "unit"):
        table.add_column(column, justify="right")
    for one in judged(results):
        figure = f"{one['figure']:,.2f}"
        table.add_row(one["target"], "met" if one["met"] else "short", figure, one["bound"], one["unit"])
    return table
