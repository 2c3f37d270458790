"""What the documentation shows works: configurations load, Python runs, commands and their options exist."""

import ast
import dataclasses
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from google.cloud import firestore

from conflict.laws import LawBroken
from conflict.policies import LastWriteWins
from replication.configuration.parse import parse_fleet
from replication.fleet.model import Fleet, Mode
from replication.simulation import prove
from tests.docs.configuration_page import PAGE, page
from tests.docs.pages import BLOCKS, PAGES, ROOT, Block
from workers.cli import COMMANDS, main
from workers.local.emulators import FirestoreEmulator

OURS = ("conflict", "replication", "workers")
SHELLS = ("console", "sh", "bash")


def blocks(*languages: str, title: str = "") -> list[Block]:
    return [block for block in BLOCKS if block.language in languages and block.title.startswith(title)]


def titled(title: str) -> Block:
    [block] = [block for block in BLOCKS if block.title == title]
    return block


def load(block: Block) -> Fleet:
    # A policy of one's own is named in some of them; that it can be imported is another test's matter.
    return parse_fleet(
        block.text, file=block.where, read_secret=lambda _: b"0" * 64, load_custom=lambda _: LastWriteWins()
    )


# Configuration


def test_the_configuration_reference_is_the_models_own() -> None:
    remedy = "the models have changed; run: python -m tests.docs.configuration_page"
    assert PAGE.read_text(encoding="utf-8") == page(), remedy


@pytest.mark.parametrize("block", blocks("yaml", title="fleet.yaml"), ids=str)
def test_a_configuration_in_the_documentation_loads(block: Block) -> None:
    assert load(block).replicas


@pytest.mark.parametrize("block", [each for each in blocks("yaml") if each.text.startswith("  - ")], ids=str)
def test_a_rule_in_the_documentation_loads(block: Block) -> None:
    whole = [each for each in blocks("yaml", title="fleet.yaml") if each.where.startswith("README")]
    before, rules, after = whole[0].text.partition("collections:")
    assert load(dataclasses.replace(block, text=f"{before}{rules}\n{block.text}{after.partition(chr(10))[2]}"))


def test_there_are_configurations_in_the_documentation() -> None:
    assert len(blocks("yaml", title="fleet.yaml")) >= 3


def test_the_analytics_example_does_not_replicate_its_own_documents() -> None:
    [example] = [block for block in blocks("yaml", title="fleet.yaml") if block.where.startswith("ANALYTICS")]
    fleet = load(example)
    assert fleet.rule_for("analytics_events/some-document").mode is Mode.LOCAL


# Python


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_in_the_documentation_compiles_and_imports_what_exists(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text, filename=block.where)):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in OURS:
            module = importlib.import_module(str(node.module))
            assert [name.name for name in node.names if not hasattr(module, name.name)] == []


def test_the_policy_in_the_documentation_is_proved_by_the_test_beside_it(tmp_path: Path) -> None:
    for title in ("shop_policies/votes.py", "tests/test_votes.py"):
        file = tmp_path / title
        file.parent.mkdir(exist_ok=True)
        file.write_text(titled(title).text, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_votes.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr


def test_the_wrong_policy_in_the_documentation_is_rejected_as_it_says() -> None:
    with pytest.raises(LawBroken):
        prove(definitions(titled("wrong.py"))["keeps_europe"], [{"votes": 1}, {"votes": 2}])


def test_a_function_tells_firefleets_writes_from_an_applications() -> None:
    written_by_firefleet = definitions(titled("functions/main.py"))["written_by_firefleet"]
    first, second = {"_repl": {"stamp": 1}, "n": 1}, {"_repl": {"stamp": 2}, "n": 2}
    assert written_by_firefleet(None, first)
    assert written_by_firefleet(first, second)
    assert not written_by_firefleet(None, {"n": 1})
    assert not written_by_firefleet(first, {**first, "n": 2})  # an update() keeps the field
    assert not written_by_firefleet(first, {"n": 2})  # a whole set() removes it
    assert not written_by_firefleet(first, None)


@pytest.mark.emulator
def test_a_counter_for_each_replica_adds_up(
    firestore_emulator: FirestoreEmulator, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", firestore_emulator.host)
    counting = definitions(titled("counting.py"))
    database = firestore.Client(project=project, database="app-eu")
    for replica in ("eu", "us", "us"):
        counting["REPLICA"] = replica
        counting["like"](database, "a1")
    assert counting["likes"](database, "a1") == 3


def definitions(block: Block) -> dict[str, Any]:
    """What a block of Python defines."""
    names: dict[str, Any] = {}
    exec(compile(block.text, block.where, "exec"), names)
    return names


# Commands

COMMAND = re.compile(r"(?:^|[;&|] *|do )(?:\S*/)?(firefleet [a-z-].*)")


def command_lines() -> Iterator[tuple[str, str, bool]]:
    """Each `firefleet …` of the blocks and the prose, where it stands, and whether it is a whole command."""
    for block in blocks(*SHELLS):
        for line in joined(block.text):
            yield from ((found, block.where, True) for found in COMMAND.findall(line))
    for one in PAGES:
        for code, where in one.inline_code():
            if code.startswith("firefleet "):
                yield code, where, False


def joined(text: str) -> list[str]:
    """A block's command lines, continued lines joined, prompts and what commands print taken away."""
    lines = re.sub(r"\\\n", " ", text).splitlines()
    prompted = [line for line in lines if line.startswith("$ ")]
    return [line.removeprefix("$ ") for line in prompted] or lines


@pytest.mark.parametrize(("line", "where", "whole"), list(command_lines()))
def test_a_command_in_the_documentation_exists_with_its_options(line: str, where: str, whole: bool) -> None:
    words = shlex.split(line.replace("…", ""), comments=True)
    stop = next((n for n, word in enumerate(words) if word in {"|", ">", ">>", "&", "&&", ";", "2>&1"}), None)
    arguments = words[1:stop]
    resolve(arguments, whole=whole)


def resolve(arguments: list[str], *, whole: bool) -> None:
    """Follow a command line through the tree of commands; raises `click.UsageError` for what is not there."""
    command: click.Command = main
    context = click.Context(command, info_name="firefleet")
    while True:
        given, rest, _ = command.make_parser(context).parse_args(arguments)
        if not (isinstance(command, click.Group) and rest):
            break
        found = command.get_command(context, rest[0])
        if found is None:
            raise click.UsageError(f"no command {rest[0]!r} in {context.command_path}")
        command, arguments = found, rest[1:]
        context = click.Context(command, info_name=rest[0], parent=context)
    if whole and not given.get("help"):
        missing = [each.name for each in command.params if each.required and each.name not in given]
        assert missing == []


@pytest.mark.parametrize("line", ["firefleet nonsense", "firefleet check --nonsense", "firefleet replicate"])
def test_an_unknown_command_or_option_and_a_missing_one_are_found(line: str) -> None:
    with pytest.raises((click.UsageError, AssertionError)):
        resolve(line.split()[1:], whole=True)


def test_the_page_of_commands_lists_every_command() -> None:
    [commands] = [one for one in PAGES if one.path.name == "commands.md"]
    listed = {code.split()[1] for code, _ in commands.inline_code() if code.startswith("firefleet ")}
    assert set(COMMANDS) - listed == set()


def test_every_make_target_in_the_documentation_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {code for one in PAGES for code, _ in one.inline_code()}
    named |= {line for block in blocks(*SHELLS) for line in joined(block.text)}
    used = {target for text in named for target in re.findall(r"^make ([a-z-]+)", text)}
    assert len(used) > 5
    assert used <= targets
