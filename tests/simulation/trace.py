"""How a history reads: documents and times in one line each."""

from typing import Any

from tests.simulation.record import clock_of

START_US = 1_750_000_000_000_000
"""When every history begins; traces count from here."""


def describe(document: Any, field: str) -> str:
    """A document in one line of a trace."""
    fields = document.fields
    body = {
        name: getattr(fields[name], fields[name].WhichOneof("value_type"))
        for name in ("v", "n", "status")
        if name in fields
    }
    text = " ".join(f"{name}={value}" for name, value in body.items()) or "(no body)"
    if field not in fields or not fields[field].HasField("map_value"):
        return f"{text} without {field}" if field not in fields else f"{text} with garbage in {field}"
    meta = fields[field].map_value.fields
    clock = " ".join(f"{name}:{_short(time)}" for name, time in sorted(clock_of(document, field).items()))
    flags = "".join(f" {name}" for name in ("merged", "mixed") if name in meta)
    return (
        f"{text} [{clock}] stamp {_short(meta['stamp'].integer_value)}"
        f" by {meta['origin'].string_value}@{_short(meta['dot'].integer_value)}"
        f" base {_short(meta['base'].integer_value)}{flags}"
    )


def _short(time: int) -> str:
    return f"{(time - START_US) / 1_000_000:.6f}" if time > START_US // 2 else str(time)
