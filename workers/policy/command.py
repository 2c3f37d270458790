"""`firefleet policy prove`: the laws and the simulated fleets of `replication.simulation`, as a command."""

import time
from collections.abc import Sequence
from typing import Any, TextIO

import click

from conflict.laws import Decide, LawBroken, assert_lawful
from conflict.resolve import OnDelete
from replication.errors import ConfigError
from replication.simulation.applications import REPLICAS
from replication.simulation.prove import HISTORIES, ORDERS, simulate
from replication.simulation.trial import Unsafe
from workers.config import load_custom
from workers.policy.examples import read_examples
from workers.runtime.command_line import CommandGroup
from workers.runtime.output import print_json

LAWS = ("total", "pure", "deterministic", "commutative", "idempotent", "associative", "quick")
"""In the order in which `conflict.laws` checks them."""


@click.group("policy", cls=CommandGroup)
def command() -> None:
    """Work with an application's own conflict policies."""


@command.command("prove", short_help="Prove a policy by its laws and in simulated fleets.")
@click.argument("function", metavar="PACKAGE.MODULE:FUNCTION")
@click.option(
    "--examples",
    type=click.File(encoding="utf-8"),
    required=True,
    help="Documents, one JSON object a line: one of every shape; - is standard input.",
)
@click.option(
    "--histories",
    type=click.IntRange(1, 100_000),
    default=HISTORIES,
    show_default=True,
    help="Histories to simulate.",
)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Seed of the first history; the others follow."
)
@click.option(
    "--on-delete",
    type=click.Choice([each.value for each in OnDelete]),
    default=OnDelete.LWW.value,
    show_default=True,
    help="As in the rule that uses the policy.",
)
@click.option("--json", "json_wanted", is_flag=True, help="Print JSON.")
def prove_command(
    *, function: str, examples: TextIO, histories: int, seed: int, on_delete: str, json_wanted: bool
) -> None:
    """Check a policy's laws, then let it decide conflicts in simulated fleets. Exit code 1 if it is not safe.

    The function takes two candidates and returns one of them, or new fields; a.fields is the document, a.stamp
    the time of its write in microseconds. It is imported as the workers import it. Examples hold JSON's types
    only; for others, call replication.simulation.prove in a test.

    \b
    Example:
      # shop/policies.py
      def most_votes(a, b):
          return max(a, b, key=lambda side: (side.fields.get("votes", 0), side.version.total))
    \b
      $ echo '{"votes": 1}' > docs.jsonl; echo '{"votes": 2, "tags": ["a"]}' >> docs.jsonl
      $ firefleet policy prove shop.policies:most_votes --examples docs.jsonl
    """  # noqa: D301 - click's mark for lines that it must not fold
    policy = _load(function)
    documents = _read(examples)
    report: dict[str, Any] = {"policy": function, "examples": len(documents), "on_delete": on_delete}
    say = (lambda _name, _text: None) if json_wanted else _say
    say("policy", function)
    say("examples", f"{len(documents)} from {examples.name}")
    try:
        report |= _prove(
            policy, documents, on_delete=OnDelete(on_delete), histories=histories, seed=seed, say=say
        )
    except LawBroken as broken:
        say("laws", f"FAILED: {broken}")
        report |= {"ok": False, "law": broken.law, "text": str(broken)}
    except Unsafe as unsafe:
        say("fleets", f"FAILED: {unsafe}")
        report |= {"ok": False, "law": None, "text": str(unsafe)}
    if json_wanted:
        print_json(report)
    else:
        click.echo("\nThe policy is safe." if report["ok"] else "\nThe policy is NOT safe: fix it before use.")
    if not report["ok"]:
        raise SystemExit(1)


def _prove(
    policy: Decide,
    documents: Sequence[dict[str, Any]],
    *,
    on_delete: OnDelete,
    histories: int,
    seed: int,
    say: Any,
) -> dict[str, Any]:
    """What `replication.simulation.prove` does, with a line for each step; raises `LawBroken` or `Unsafe`."""
    assert_lawful(policy, documents, timer=time.perf_counter)
    say("laws", f"ok: {', '.join(LAWS)}")
    conflicts = simulate(policy, documents, on_delete=on_delete, histories=histories, seed=seed)
    counted = "1 history" if histories == 1 else f"{histories} histories"
    say(
        "fleets",
        f"ok: {counted} of {len(REPLICAS)} replicas, each delivered in {ORDERS} orders; "
        f"the policy decided {conflicts:,} conflicts",
    )
    return {"ok": True, "histories": histories, "orders": ORDERS, "conflicts": conflicts}


def _say(name: str, text: str) -> None:
    click.echo(f"{name:<9} {text}")


def _load(function: str) -> Decide:
    if ":" not in function:
        raise ConfigError(f"'{function}' names no function; write PACKAGE.MODULE:FUNCTION")
    return load_custom(function)


def _read(examples: TextIO) -> list[dict[str, Any]]:
    try:
        return read_examples(iter(examples), file=examples.name)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{examples.name}: not text in UTF-8 ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{examples.name}: cannot be read ({error.strerror})") from error
