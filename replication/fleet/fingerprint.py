"""A short name for a configuration, so that two processes can see whether they run the same one.

Values are written as JSON with sorted keys; the order of keys never matters, that of lists does. A function is
known by its policy's name only: what is inside it is not compared.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

_OWN = ("conflict", "replication")
"""The packages whose dataclasses are taken apart."""
BYTES = 4
"""Enough to distinguish the configurations of one fleet; it does not protect against forgery."""


def fingerprint(value: Any) -> str:
    """Eight hexadecimal digits for a value of dataclasses, mappings, lists and plain values."""
    text = json.dumps(_plain(value), sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=BYTES).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if dataclasses.is_dataclass(value) and type(value).__module__.partition(".")[0] in _OWN:
        # What is derived has a leading underscore, and follows from the rest.
        fields = [each.name for each in dataclasses.fields(value) if not each.name.startswith("_")]
        return {name: _plain(getattr(value, name)) for name in fields}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence):
        return [_plain(inner) for inner in value]
    # An application's own policy or function: its name, where it has one, else its type's.
    return getattr(value, "name", None) or type(value).__qualname__
