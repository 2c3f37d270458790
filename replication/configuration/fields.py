"""The kinds of values that several sections of the file share: durations, spelled text, topics."""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_after_validator_function

from replication.documents.wire import MICROS

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd])")
_DURATION_S_MAX = 3_650 * 86_400  # ten years: an `expire_at` stays inside Firestore's year 9999


def microseconds(value: Any) -> int:
    """A duration such as `5s`, `10m`, `24h` or `10d`, in microseconds; raises `ValueError`."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise ValueError(f"{value!r} is not a duration; write a whole number with s, m, h or d: 5s or 10d")
    length = int(found[1]) * _SECONDS[found[2]] * MICROS
    if length > _DURATION_S_MAX * MICROS:
        raise ValueError(f"{value} is longer than ten years; write at most 3650d")
    return length


def duration_text(length_us: int) -> str:
    """Microseconds as they would stand in the file: `10d`, `1h`, `90s`; below a second in decimals."""
    for unit, seconds in reversed(_SECONDS.items()):
        if length_us % (seconds * MICROS) == 0:
            return f"{length_us // (seconds * MICROS)}{unit}"
    return f"{length_us / MICROS:g}s"


def up_to(limit: int) -> str:
    """A regular expression for the whole numbers from 1 to `limit`, as JSON schemas need it inside a text."""
    digits = str(limit)
    shorter = [f"[1-9][0-9]{{0,{len(digits) - 2}}}"] if len(digits) > 1 else []
    for at, digit in enumerate(digits):
        lowest, highest = (1 if at == 0 else 0), int(digit) - 1
        if highest >= lowest:
            shorter.append(f"{digits[:at]}[{lowest}-{highest}][0-9]{{{len(digits) - at - 1}}}")
    return f"(?:{'|'.join([*shorter, digits])})"


def durations_up_to(seconds: int) -> str:
    """A regular expression for the durations of at most so long."""
    return "|".join(f"{up_to(seconds // each)}{unit}" for unit, each in _SECONDS.items() if seconds >= each)


@dataclass(frozen=True, slots=True)
class Spelled:
    """Marks text that must match a regular expression as a whole, in the loader and in the JSON schema."""

    pattern: str
    remedy: str

    def check(self, value: str) -> str:
        """The value, if it matches; raises `ValueError`."""
        if not re.fullmatch(self.pattern, value):
            # An argument that is not UTF-8 reaches Python with surrogates, which no text may hold.
            shown = value.encode(errors="backslashreplace").decode()
            raise ValueError(f"'{shown}' cannot be used here; {self.remedy}")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^(?:{self.pattern})$"}


def duration_schema(seconds_max: int = _DURATION_S_MAX) -> WithJsonSchema:
    """The JSON schema of a duration of at most so long."""
    examples = [each for each in ("5s", "10m", "24h", "10d") if microseconds(each) <= seconds_max * MICROS]
    return WithJsonSchema(
        {"type": "string", "pattern": f"^(?:{durations_up_to(seconds_max)})$", "examples": examples}
    )


Duration = Annotated[int, BeforeValidator(microseconds), duration_schema()]
TopicId = Annotated[
    str,
    # Pub/Sub's own rule, with room left for what is appended to name subscriptions.
    Spelled(
        "(?!goog)[A-Za-z][A-Za-z0-9._~+%-]{2,199}",
        "write the topic's id alone: 3 to 200 letters, digits and -._~+%, a letter first, not 'goog'",
    ),
]
