"""Example documents for a proof: JSON Lines, one document a line."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from replication.configuration.fleet import METADATA_FIELD
from replication.documents.plain import body_of
from replication.errors import ConfigError

EXAMPLES_MAX = 50
"""The work of the laws grows with the third power of the number of examples."""


def read_examples(lines: Iterator[str], *, file: str) -> list[dict[str, Any]]:
    """Read whole documents, one JSON object a line; blank lines are skipped.

    Raises `ConfigError` with `file:line` for a line that is not a document, and if there are none or too many.
    """
    examples = [_document(line, f"{file}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not examples:
        raise ConfigError(f"{file}: holds no document; write one JSON object a line, one of every shape")
    if len(examples) > EXAMPLES_MAX:
        raise ConfigError(
            f"{file}: holds {len(examples)} documents, more than {EXAMPLES_MAX}; keep one of every shape, or "
            f"draw some at random: shuf -n {EXAMPLES_MAX} {file}"
        )
    return examples


def _document(line: str, place: str) -> dict[str, Any]:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{place}: not JSON ({error.msg}); write one whole document on each line") from error
    if not isinstance(found, dict):
        raise ConfigError(f'{place}: not a document; write a JSON object, such as {{"status": "open"}}')
    _check(found, place)
    return found


def _check(document: Mapping[str, Any], place: str) -> None:
    try:
        body_of(document, reserved=METADATA_FIELD)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{place}: Firestore cannot hold this as an application's document ({error}); remove or change it"
        ) from error
