"""What the demo says at the end: to people, and as JSON."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from conflict.values import GeoPoint, Reference, same
from replication.apply.conflict_reader import COMPUTED
from replication.documents.wire import MICROS
from replication.verify.compare import Difference, Holding
from replication.words import counted
from workers.demo.proof import Decided, Proof
from workers.demo.run import Outcome
from workers.demo.shop import Verb
from workers.demo.view import flow_table, lag_text
from workers.local.meters import milliseconds

DIFFERENCES_SHOWN = 10
DIFFERENCES_MAX = 1_000
"""In the JSON."""
_MISSING = "(no such field)"


def print_report(outcome: Outcome, console: Console) -> None:
    """Print the findings, the verdict last."""
    _print_work(outcome, console)
    _print_conflicts(outcome, console)
    _print_holdings(outcome.proof.holdings, console)
    print_verdict(outcome, console)


def _heading(text: str, console: Console) -> None:
    console.print()
    console.print(Text(text, style="bold cyan"))


def _print_work(outcome: Outcome, console: Console) -> None:
    writes = outcome.writes
    _heading("What the shop did, and how long it took to arrive (commit to commit)", console)
    console.print(
        f"{counted(writes.total(), 'write')} at {len(outcome.proof.holdings)} replicas at once: "
        f"{counted(writes[Verb.SET], 'set')}, {counted(writes[Verb.UPDATE], 'update')}, "
        f"{counted(writes[Verb.DELETE], 'delete')}; "
        f"{outcome.conflicting} times the same document at several replicas."
    )
    if outcome.flows:
        console.print()
        console.print(flow_table(outcome.flows))
        note = "Repeats had nothing left to do: delivered again, or overtaken by a newer change."
        console.print(Text(note, style="dim"))


def _print_conflicts(outcome: Outcome, console: Console) -> None:
    proof = outcome.proof
    if not proof.conflicts:
        return
    _heading(f"{counted(len(proof.conflicts), 'conflict')}, and whose write stayed", console)
    console.print("Each replica decides on its own, and all reach the same decision.")
    console.print()
    sides = [holding.replica for holding in proof.holdings]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("policy")
    for side in (*sides, COMPUTED):
        table.add_column(side, justify="right")
    for policy, kept in sorted(proof.decided.items()):
        table.add_row(policy, *(str(kept[side]) for side in (*sides, COMPUTED)))
    console.print(table)
    console.print()
    if outcome.shown is not None:
        _print_example(outcome.shown, outcome.shown_why, console)


def _print_example(shown: Decided, why: str, console: Console) -> None:
    stays = "a body made from both" if shown.record.kept == COMPUTED else f"{shown.record.kept}'s write"
    console.print(
        Text.assemble("One of them: ", (shown.record.path, "bold"), f", decided by {shown.record.policy}.")
    )
    console.print(Padding(_bodies(shown), (1, 0, 1, 2)))
    console.print(Text.assemble((f"{stays} stays", "green"), f": {why}."))
    console.print(
        Text(f"Both bodies are kept in the conflict log: _repl_conflicts/{shown.record.id}", style="dim")
    )


def _bodies(shown: Decided) -> Table:
    columns: list[tuple[str, Mapping[str, Any] | None]] = []
    for side in shown.record.sides:
        mark = "✓ " if side.id == shown.record.winner else ""
        columns.append((f"{mark}{side.origin} at {_clock(side.stamp)}", side.body))
    if shown.record.kept == COMPUTED:
        columns.append(("the document now", shown.now))
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("field", no_wrap=True)
    for heading, _ in columns:
        table.add_column(heading, overflow="ellipsis", no_wrap=True, max_width=28)
    for name in sorted(set().union(*(body or {} for _, body in columns))):
        values = [_deleted(body) if body is None else _value(body, name) for _, body in columns]
        table.add_row(name, *values, style="" if len(set(values)) > 1 else "dim")
    return table


def _deleted(_body: None) -> str:
    return "(deleted)"


def _value(body: Mapping[str, Any], name: str) -> str:
    return text_of(body[name]) if name in body else _MISSING


def _print_holdings(holdings: Sequence[Holding], console: Console) -> None:
    _heading("What every replica holds, read document by document", console)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("")
    for holding in holdings:
        table.add_column(holding.replica, justify="right")
    for name in sorted(set().union(*(holding.collections for holding in holdings))):
        table.add_row(name, *(str(holding.collections.get(name, 0)) for holding in holdings))
    table.add_row("documents", *(str(holding.documents) for holding in holdings), style="bold")
    table.add_row("hash of all content", *(holding.digest for holding in holdings))
    console.print()
    console.print(table)
    console.print()


def print_verdict(outcome: Outcome, console: Console) -> None:
    """Print whether the replicas are equal, or which documents are not."""
    proof = outcome.proof
    replicas = ", ".join(holding.replica for holding in proof.holdings)
    if proof.equal:
        documents = proof.holdings[0].documents
        verdict = f"EQUAL: all {documents} documents are the same at {replicas}, value by value."
        console.print(Text(verdict, style="bold green"))
        console.print(
            f"At rest {outcome.settled:.1f} s after the last write; lag p50 "
            f"{lag_text(outcome.lag.quantile(0.5))}, p99 {lag_text(outcome.lag.quantile(0.99))}; "
            f"{outcome.seconds:.1f} s in all, seed {outcome.order.seed}, {outcome.order.backend} backend."
        )
        return
    console.print(
        Text(f"DIFFERENT: {counted(len(proof.differences), 'document')} not the same.", style="bold red")
    )
    for difference in proof.differences[:DIFFERENCES_SHOWN]:
        console.print(f"  {difference_text(difference)}", soft_wrap=True)
    if len(proof.differences) > DIFFERENCES_SHOWN:
        console.print(f"  and {len(proof.differences) - DIFFERENCES_SHOWN} more; --json names them all")


def difference_text(difference: Difference) -> str:
    """Which document differs, and in what."""
    missing = [replica for replica, fields in difference.fields.items() if fields is None]
    if missing:
        return f"{difference.path} is missing at {', '.join(missing)}"
    bodies = {replica: fields or {} for replica, fields in difference.fields.items()}
    names = sorted(set().union(*bodies.values()))
    first, *others = bodies.values()
    unequal = [name for name in names if not all(_same_field(first, other, name) for other in others)]
    values = "; ".join(
        f"{name} is " + ", ".join(f"{_value(body, name)} at {replica}" for replica, body in bodies.items())
        for name in unequal
    )
    return f"{difference.path}: {values}"


def _same_field(one: Mapping[str, Any], other: Mapping[str, Any], name: str) -> bool:
    if name not in one or name not in other:
        return (name in one) is (name in other)
    return same(one[name], other[name])


def text_of(value: Any) -> str:
    """A value for people, on one line; shows types where a reader needs them."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
        case Reference():
            return f"→ {value.name.removeprefix('~/')}"
        case GeoPoint():
            return f"({value.latitude}, {value.longitude})"
        case bytes():
            return value.hex()
        case list():
            return f"[{', '.join(map(text_of, value))}]"
        case dict():
            inner = ", ".join(f"{name}: {text_of(each)}" for name, each in value.items())
            return f"{{{inner}}}"
        case _:
            return str(value)


def _clock(stamp: int) -> str:
    return datetime.fromtimestamp(stamp / MICROS, UTC).strftime("%H:%M:%S.%f")[:-3]


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The outcome as one object; keys are stable, lags in milliseconds, times in RFC 3339."""
    proof = outcome.proof
    outcomes = outcome.outcomes
    return {
        "backend": outcome.order.backend,
        "reason": outcome.order.reason,
        "seed": outcome.order.seed,
        "replicating": outcome.order.replicating,
        "seconds": round(outcome.seconds, 2),
        "settled_seconds": round(outcome.settled, 2),
        "writes": {verb.value: outcome.writes[verb] for verb in Verb},
        "equal": proof.equal,
        "replicas": {holding.replica: _holding(holding) for holding in proof.holdings},
        "differences": [_difference(each) for each in proof.differences[:DIFFERENCES_MAX]],
        "changes": dict(outcomes),
        "dead_letters": outcomes["dead_letter"],
        "lag": [
            {
                "source": flow.source,
                "target": flow.target,
                "p50_ms": milliseconds(flow.lag_p50),
                "p99_ms": milliseconds(flow.lag_p99),
                **flow.outcomes,
            }
            for flow in outcome.flows
        ],
        "conflicts": _conflicts(proof, outcome.shown, outcome.shown_why),
    }


def _holding(holding: Holding) -> dict[str, Any]:
    return {
        "documents": holding.documents,
        "collections": dict(holding.collections),
        "tombstones": holding.tombstones,
        "digest": holding.digest,
    }


def _difference(difference: Difference) -> dict[str, Any]:
    return {
        "path": difference.path,
        "missing": [replica for replica, fields in difference.fields.items() if fields is None],
        "text": difference_text(difference),
    }


def _conflicts(proof: Proof, shown: Decided | None, why: str) -> dict[str, Any]:
    return {
        "total": len(proof.conflicts),
        "decided": {policy: dict(kept) for policy, kept in sorted(proof.decided.items())},
        "example": _example(shown, why) if shown else None,
    }


def _example(shown: Decided, why: str) -> dict[str, Any]:
    return {
        "id": shown.record.id,
        "path": shown.record.path,
        "policy": shown.record.policy,
        "winner": shown.record.kept,
        "why": why,
        "time": shown.record.time,
        "sides": [
            {"origin": side.origin, "stamp": side.stamp, "deleted": side.deleted, "body": side.body}
            for side in shown.record.sides
        ],
        "now": shown.now,
    }
