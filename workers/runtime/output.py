"""What a command prints on standard output: a table for people, one line of JSON for programs."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPED_COLUMNS = 10_000
"""Wide enough for any row, so that piped output has one line for each row and `grep` finds whole names."""


def print_json(value: Any, *, default: Callable[[Any], Any] | None = None) -> None:
    """Print one JSON object on one line; dataclasses, times and enumerations as orjson writes them.

    `default` says what to write for a value that orjson does not know.
    """
    try:
        text = orjson.dumps(value, default=default)
    except TypeError:
        # An argument of the command line that is not UTF-8 has surrogates, which JSON cannot have.
        text = json.dumps(value, default=default, separators=(",", ":")).encode()
    click.echo(text)


def print_json_lines(values: Iterable[Any]) -> None:
    """Print one JSON object a line, of which there may be millions: flushed at the end alone."""
    for value in values:
        sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print rows under their headings: folded to fit a terminal, one line for each row elsewhere.

    Text is printed as it is: square brackets in a name are not markup.
    """
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    if sys.stdout.isatty():
        Console(file=sys.stdout, highlight=False, markup=False).print(table)
        return
    console = Console(width=PIPED_COLUMNS, no_color=True, highlight=False, markup=False)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())
