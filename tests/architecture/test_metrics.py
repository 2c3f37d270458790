"""One list of metrics: the documentation shows it, and the code names metrics only through it."""

import ast
from collections.abc import Iterator
from pathlib import Path

from replication.metrics import METRICS, table

ROOT = Path(__file__).parents[2]


def test_the_documentation_has_the_table_of_metrics() -> None:
    assert table() in (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def test_code_names_metrics_by_their_constants() -> None:
    spelled = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path, line, text in _strings()
        if text in METRICS or text.startswith("firefleet.analytics.")
    ]
    assert not spelled, spelled


def _strings() -> Iterator[tuple[Path, int, str]]:
    for package in ("replication", "workers"):
        for path in (ROOT / package).rglob("*.py"):
            if path.name == "metrics.py":
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield path, node.lineno, node.value
