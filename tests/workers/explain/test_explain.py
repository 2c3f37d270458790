"""`firefleet explain`: the rule that applies, its line, and what happens to writes at each replica."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from workers.cli import main

CONFIG = """\
project: my-project
topic: changes
replicas:
  eu: {database: app-eu, location: europe-west1}
  us: {database: app-us, location: us-central1}
  apac: {database: app-apac, location: asia-south1}
collections:
  - match: "orders/{order}"
    mode: multi-primary
    conflict: {policy: precedence, field: status, order: [open, paid]}
    on_delete: update-wins
    lag_target: 5s
  - {match: "wallets/{id}", mode: single-primary, primary: eu}
  - match: "chats/{document=**}"
    mode: local
  - {match: "{document=**}", mode: multi-primary}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.yaml"
    path.write_text(CONFIG)
    return path


def explain(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--config", str(config), "explain", *arguments])


def explained(config: Path, path: str) -> dict[str, object]:
    result = explain(config, path, "--json")
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def test_the_rule_is_named_with_its_number_and_its_line(config: Path) -> None:
    for path, number, line in (
        ("orders/1", 1, 8),
        ("wallets/1", 2, 13),
        ("chats/1/messages/2", 3, 14),
        ("x/1", 4, 16),
    ):
        rule = explained(config, path)["rule"]
        assert isinstance(rule, dict)
        assert (rule["number"], rule["place"]) == (number, f"{config}:{line}")


def test_it_says_what_becomes_of_concurrent_writes(config: Path) -> None:
    stdout = explain(config, "orders/1").stdout
    assert "rule        1 of 4" in stdout
    assert "'status' is further in open < paid" in stdout
    assert "update-wins: of a delete and a concurrent write the write stays" in stdout
    assert "lag_target  5 s" in stdout


def test_a_write_is_received_by_all_others_by_none_or_undone(config: Path) -> None:
    def receivers(path: str) -> dict[str, list[str]]:
        writes = explained(config, path)["writes"]
        assert isinstance(writes, list)
        return {each["replica"]: each["receivers"] for each in writes}

    assert receivers("orders/1") == {"eu": ["us", "apac"], "us": ["eu", "apac"], "apac": ["eu", "us"]}
    assert receivers("wallets/1") == {"eu": ["us", "apac"], "us": [], "apac": []}
    assert receivers("chats/1") == {"eu": [], "us": [], "apac": []}
    assert "us          is reverted here and logged: only eu may write" in explain(config, "wallets/1").stdout


def test_a_document_of_firefleet_is_told_from_an_applications(config: Path) -> None:
    answer = explained(config, "_repl_tombstones/0123")
    assert answer["rule"] is None
    assert "a tombstone" in str(answer["own"])
    assert "conflict log" in str(explained(config, "_repl_conflicts/1/_repl_bodies/a")["own"])


def test_a_full_name_means_the_same_as_the_path(config: Path) -> None:
    full = explained(config, "projects/my-project/databases/app-us/documents/orders/1")
    assert full == explained(config, "orders/1")


def test_verbose_lists_the_rules_that_do_not_match(config: Path) -> None:
    stdout = explain(config, "chats/1", "--verbose").stdout
    assert "orders/{order}  " in stdout
    assert f"{config}:13" in stdout
    assert "DOES NOT MATCH" not in explain(config, "chats/1").stdout


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("orders", "is a collection, not a document; name a document in it, such as orders/1"),
        ("a/b/c", "is a collection"),
        ("/orders/1", "begins or ends with '/'"),
        ("orders//1", "empty segment"),
        ("", "is empty"),
        ("orders/__x__", "Firestore allows no id '__x__'"),
        ("projects/p/databases/d/documents/orders/1", "replicas: my-project/app-eu"),
    ],
)
def test_a_path_that_is_no_documents_exits_2_with_the_remedy(config: Path, path: str, told: str) -> None:
    result = explain(config, path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr
