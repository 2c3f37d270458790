"""`firefleet policy prove`: a safe policy passes, each kind of harm is shown, and bad input is named."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from workers.cli import main

MODULE = """\
def most_votes(a, b):
    return max(a, b, key=lambda side: (side.fields.get("votes", 0), side.version.total))


def first(a, b):
    return a


def fragile(a, b):
    return a if a.fields["votes"] > b.fields["votes"] else b
"""


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "voting_policies.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "docs.jsonl"
    path.write_text('{"votes": 1}\n\n{"votes": 2, "tags": ["a"]}\n')
    return path


def prove(examples: Path | str, function: str, *arguments: str, stdin: str | None = None) -> Result:
    command = ["policy", "prove", function, "--examples", str(examples), "--histories", "3", *arguments]
    return CliRunner().invoke(main, command, input=stdin)


def test_a_safe_policy_is_called_safe_and_what_was_checked_is_told(examples: Path) -> None:
    result = prove(examples, "voting_policies:most_votes")
    assert result.exit_code == 0, result.output
    assert "examples  2 from" in result.stdout
    assert "laws      ok: total, pure" in result.stdout
    assert "fleets    ok: 3 histories of 3 replicas" in result.stdout
    assert result.stdout.endswith("The policy is safe.\n")


def test_a_broken_law_exits_1_with_a_counterexample(examples: Path) -> None:
    result = prove(examples, "voting_policies:first")
    assert result.exit_code == 1
    assert "laws      FAILED: the policy is not commutative" in result.stdout
    assert "  a = {'votes': " in result.stdout
    assert "The policy is NOT safe" in result.stdout


def test_json_says_the_same(examples: Path) -> None:
    good = json.loads(prove(examples, "voting_policies:most_votes", "--json").stdout)
    assert good["ok"] is True
    assert good["conflicts"] > 0
    bad = prove(examples, "voting_policies:fragile", "--json")
    assert bad.exit_code == 1
    assert json.loads(bad.stdout)["law"] == "total"


def test_the_seed_decides_the_histories(examples: Path) -> None:
    def conflicts(*arguments: str) -> int:
        result = prove(examples, "voting_policies:most_votes", "--json", *arguments)
        return int(json.loads(result.stdout)["conflicts"])

    assert conflicts("--seed", "7") == conflicts("--seed", "7") != conflicts("--seed", "8")


def test_examples_come_from_standard_input(examples: Path) -> None:
    result = prove("-", "voting_policies:most_votes", stdin='{"votes": 3}\n')
    assert result.exit_code == 0
    assert "examples  1 from <stdin>" in result.stdout


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ": holds no document"),
        ('{"a": 1}\n{"a": \n', ":2: not JSON"),
        ("[1]\n", ":1: not a document"),
        ('{"a": 1}\n\n{"_repl": {}}\n', ":3: Firestore cannot hold this"),
        ('{"a": 1}\n' * 51, ": holds 51 documents, more than 50"),
    ],
)
def test_bad_examples_exit_2_with_their_line(examples: Path, text: str, told: str) -> None:
    examples.write_text(text)
    result = prove(examples, "voting_policies:most_votes")
    assert (result.exit_code, result.stdout.partition("\n")[2]) == (2, "")
    assert f"{examples}{told}" in result.stderr


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("voting_policies", "names no function; write PACKAGE.MODULE:FUNCTION"),
        ("absent_module:f", "importing 'absent_module' failed"),
        ("voting_policies:absent", "'voting_policies' has no 'absent'"),
    ],
)
def test_a_function_that_cannot_be_loaded_exits_2(examples: Path, function: str, told: str) -> None:
    result = prove(examples, function)
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_missing_file_exits_2(tmp_path: Path) -> None:
    result = prove(tmp_path / "absent.jsonl", "json:dumps")
    assert result.exit_code == 2
    assert "absent.jsonl" in result.stderr


CONFIG = """\
project: p
topic: changes
secret_file: fleet.secret
replicas:
  eu: {database: app-eu, location: europe-west1}
collections:
  - match: "{document=**}"
    mode: multi-primary
    on_delete: update-wins
    conflict: {policy: "custom: FUNCTION"}
"""


@pytest.mark.parametrize(
    ("function", "level", "code", "text"),
    [
        ("most_votes", "ok", 0, "keeps the laws"),
        ("first", "fail", 1, "the policy is not commutative"),
        ("fragile", "warn", 0, "the policy is not total: it fails: KeyError('votes')"),
    ],
)
def test_check_tries_the_laws_on_configured_policies(
    examples: Path, function: str, level: str, code: int, text: str
) -> None:
    config = examples.with_name("fleet.yaml")
    examples.with_name("fleet.secret").write_text("0123456789abcdef")
    config.write_text(CONFIG.replace("FUNCTION", f"voting_policies:{function}"))
    result = CliRunner().invoke(main, ["--config", str(config), "check", "--offline", "--json"])
    assert result.exit_code == code, result.output
    found = {each["subject"]: each for each in json.loads(result.stdout)["findings"]}
    finding = found["collections: {document=**}"]
    assert finding["level"] == level
    assert finding["text"].startswith(f"custom: voting_policies:{function}")
    assert text in finding["text"]
    if level != "ok":
        assert finding["remedy"] == [f"firefleet policy prove voting_policies:{function} --examples docs.jsonl"]
