"""`firefleet explain PATH`: the rule, its line in the file, and what happens to writes at each replica."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import click

from replication.explain import Explanation, document_path, explain
from replication.fleet.model import Fleet, Rule
from workers.config import ConfigFile
from workers.runtime.output import print_json, print_table


@click.command("explain")
@click.argument("path")
@click.option("--verbose", is_flag=True, help="Also list the rules before it, which do not match.")
@click.option("--json", "json_wanted", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(config: ConfigFile, *, path: str, verbose: bool, json_wanted: bool) -> None:
    """Show which rule applies to the document at PATH, and what happens to writes at each replica.

    PATH is relative, such as orders/o1, or a document's full name. The document need not exist: only the
    configuration is read.

    \b
    Example:
      firefleet explain orders/o2
    """  # noqa: D301 - click's mark for lines that it must not fold
    fleet = config.load()
    found = explain(fleet, document_path(fleet, path))
    places = [f"{config.path}:{line}" for line in config.rule_lines()]
    if json_wanted:
        print_json(_as_json(fleet, found, places))
        return
    print_table(("document", found.path), _rows(fleet, found, places))
    if found.writes:
        click.echo()
        print_table(("A WRITE AT", ""), [(each.replica, each.text) for each in found.writes])
    if verbose and found.rule:
        click.echo()
        skipped = zip(places[: found.rule], fleet.rules[: found.rule], strict=True)
        print_table(("DOES NOT MATCH", "WHERE"), [(rule.match, place) for place, rule in skipped])


def _rows(fleet: Fleet, found: Explanation, places: Sequence[str]) -> Iterator[tuple[str, str]]:
    if found.rule is None:
        yield "rule", "none: it is firefleet's own"
        yield "what", found.own or ""
        return
    rule = fleet.rules[found.rule]
    yield "rule", f"{found.rule + 1} of {len(fleet.rules)}, {places[found.rule]}: {rule.match}"
    yield "why", _why(found.rule)
    yield "mode", f"{rule.mode}, primary {rule.primary}" if rule.primary else str(rule.mode)
    if found.conflict is not None:
        yield "conflict", found.conflict
    if found.on_delete is not None:
        yield "on_delete", found.on_delete
    if found.expiration is not None:
        yield "TTL", found.expiration
    if rule.lag_target is not None:
        yield "lag_target", f"{rule.lag_target:g} s"


def _why(at: int) -> str:
    return "the first rule that matches" if at else "the first rule, and it matches"


def _as_json(fleet: Fleet, found: Explanation, places: Sequence[str]) -> dict[str, Any]:
    answer: dict[str, Any] = asdict(found)
    if found.rule is not None:
        answer["rule"] = _rule_json(fleet.rules[found.rule], found.rule, places[found.rule])
        answer["not_matching"] = [
            {"number": at + 1, "match": fleet.rules[at].match, "place": places[at]} for at in range(found.rule)
        ]
    return answer


def _rule_json(rule: Rule, at: int, place: str) -> dict[str, Any]:
    return {
        "number": at + 1,
        "place": place,
        "match": rule.match,
        "mode": rule.mode,
        "primary": rule.primary,
        "policy": rule.policy.name,
        "on_delete": rule.on_delete,
        "lag_target_s": rule.lag_target,
    }
