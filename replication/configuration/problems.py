"""What is wrong with a value of the file, in the operator's words: what, then the remedy."""

import difflib
import reprlib
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from replication.configuration.marked_yaml import Key

Problem = tuple[Key, str]
"""A key of the file, and what is wrong there."""
ModelAt = Callable[[Key], type[BaseModel]]
_SHOWN_MAX = 100


def explain(error: ErrorDetails, model_at: ModelAt) -> Problem:
    """The key that an error of pydantic is about, and the operator's text.

    `model_at` gives the model of the mapping that stands at a key.
    """
    key, kind = error["loc"], error["type"]
    if key and key[-1] == "[key]":  # pydantic's mark of a mapping's key
        key = key[:-1]
    if kind == "unknown_policy":
        return (*key, "policy"), error["msg"]
    return key, _text(kind, key, error, model_at)


def _text(kind: str, key: Key, error: ErrorDetails, model_at: ModelAt) -> str:
    given, meaning = shown(error["input"]), describe(key, model_at)
    if (plain := empty_or_boolean(error["input"], meaning)) is not None:
        return plain
    match kind:
        case "value_error":
            text = str(error["ctx"]["error"])
        case "extra_forbidden":
            text = unknown("key", str(key[-1]), model_at(key[:-1]).model_fields)
        case "missing":
            text = f"is missing; add it: {meaning}"
        case "string_type":
            text = f"{given} is not text; put it in quotes, or write what belongs here: {meaning}"
        case "literal_error":
            text = f"{given} is none of the choices; write {error['ctx']['expected']}"
        case "too_short" | "string_too_short":
            text = f"is empty; write at least one: {meaning}"
        case _:
            text = f"{given}: {error['msg'][0].lower()}{error['msg'][1:]}; {meaning}"
    return text


def shown(value: Any) -> str:
    """A value of the file as an error shows it: short, however much there is of it."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, _SHOWN_MAX, _SHOWN_MAX
    text = short.repr(value)
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"


def empty_or_boolean(value: Any, meaning: str) -> str | None:
    """What is wrong with a value that is missing, or that YAML reads as a boolean where no key takes one.

    YAML reads yes, no, on and off as booleans, which surprises those who meant the word.
    """
    if value is None:
        return f"is empty; write a value: {meaning}"
    if isinstance(value, bool):
        word = "true" if value else "false"
        return (
            f"YAML reads this as {word}, as it does yes, no, on and off; put the word in quotes, or write what "
            f"belongs here: {meaning}"
        )
    return None


def listed(names: Iterable[str]) -> str:
    """Names in a sentence."""
    return ", ".join(names)


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """What to say of a name that is not among the known ones."""
    close = difflib.get_close_matches(name, list(known), n=1)
    remedy = f"did you mean '{close[0]}'? " if close else ""
    return f"unknown {kind} '{name}'; {remedy}known: {listed(known)}"


def describe(key: Key, model_at: ModelAt) -> str:
    """What the key means, in one sentence; of an entry of a list or mapping, what that one means."""
    for depth in range(len(key), 0, -1):
        field = model_at(key[: depth - 1]).model_fields.get(str(key[depth - 1]))
        if field and field.description:
            return field.description
    return "see `firefleet check --schema`"
