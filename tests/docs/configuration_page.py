"""The configuration reference, made from the models: `python -m tests.docs.configuration_page`.

Every model that the file's root leads to has a section, so a key cannot be forgotten. The page is kept in the
repository, where it is read without building the site; a test compares it with what this module makes.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from replication.configuration.analytics import Analytics
from replication.configuration.fleet import FleetShape

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"

INTRODUCTION = """\
<!-- Made by `python -m tests.docs.configuration_page` from the models that read the file. Do not edit. -->
# Configuration reference

One YAML file describes the fleet. Every process reads the same file:

- `--config FILE` names it, or the environment variable `FIREFLEET_CONFIG`. The default is `fleet.yaml`.
- `firefleet init` writes a first one, with comments.
- `firefleet check --offline` checks it without asking the cloud. A mistake exits with 2 and names the file,
  the line, the key and the remedy.
- `firefleet check --schema` prints its JSON schema. Save it as `fleet.schema.json`, and an editor uses it if
  the file begins with `# yaml-language-server: $schema=fleet.schema.json`.

Durations are whole numbers with `s`, `m`, `h` or `d`. Sizes are whole numbers with `KB` or `MB`.
Relative file names are relative to the folder of the configuration.

> **Some settings must not change on a running fleet**: `metadata_field`, `secret_file`, replica ids, and the
> `mode` or `primary` of a collection are part of what the replicas remember.
> [Upgrading](upgrading.md#changing-the-configuration) says what may change, and in which order.
"""

Section = tuple[str, type[BaseModel]]


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for path, model in [*_sections("", FleetShape), *_sections("analytics", Analytics)]:
        parts.append("\n".join(_section(path, model)))
    return "\n".join(parts)


def _sections(path: str, model: type[BaseModel]) -> Iterator[Section]:
    """A model and those below it, each with the place of its keys in the file."""
    yield path, model
    for name, field in model.model_fields.items():
        for below, child in _models(field.annotation):
            yield from _sections(f"{path}.{name}{below}".removeprefix("."), child)


def _models(annotation: Any) -> Iterator[Section]:
    """The models that a key's type leads to, each with what stands between the key and the model's own keys."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield "", annotation
        return
    places: dict[Any, str] = {dict: ".NAME", list: "[]"}
    between = places.get(get_origin(annotation), "")
    for argument in get_args(annotation):
        for below, model in _models(argument):
            yield between + below, model


def _section(path: str, model: type[BaseModel]) -> Iterator[str]:
    schema = model.model_json_schema()
    variant = _policy_of(schema)
    title = f"`{path}`" if path else "Top level"
    yield f"## {title}{f', {variant}' if variant else ''}"
    yield ""
    yield (model.__doc__ or "").strip().splitlines()[0]
    yield ""
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    required = schema.get("required", [])
    for name, key in schema["properties"].items():
        meaning = model.model_fields[name].description or "names the policy"
        yield f"| `{name}` | {_value(key)} | {_default(name, key, required)} | {_escaped(meaning)} |"
    yield ""


def _policy_of(schema: Mapping[str, Any]) -> str:
    """Which of the policies a section is about; empty where it is none."""
    policy = schema["properties"].get("policy")
    if policy is None:
        return ""
    return str(policy.get("const", "a policy of your own"))


def _default(name: str, key: Mapping[str, Any], required: list[str]) -> str:
    if name in required:
        return "**required**"
    default = key.get("default")
    return "" if default in (None, {}, []) or isinstance(default, dict) else f"`{default}`"


def _value(key: Mapping[str, Any]) -> str:
    """What may be written there, in words."""
    if "anyOf" in key:
        return _value(next(one for one in key["anyOf"] if one.get("type") != "null"))
    if "enum" in key or "const" in key:
        return ", ".join(f"`{choice}`" for choice in key.get("enum", [key.get("const")]))
    if "$ref" in key or "oneOf" in key:
        return "its own keys, below"
    match key.get("type"):
        case "array":
            return f"list of: {_value(key['items'])}"
        case "object":
            inner = key.get("additionalProperties")
            return f"name: {_value(inner)}" if isinstance(inner, dict) else "its own keys, below"
        case "integer" | "number" as kind:
            return f"{kind}{_bounds(key)}"
        case "string":
            examples = key.get("examples", [])
            such = ", ".join(f"`{example}`" for example in examples)
            return f"text, such as {such}" if such else "text"
        case list() as kinds:
            return " or ".join("text" if kind == "string" else kind for kind in kinds)
        case kind:
            return str(kind)


def _bounds(key: Mapping[str, Any]) -> str:
    low, high = key.get("minimum"), key.get("maximum")
    above, below = key.get("exclusiveMinimum"), key.get("exclusiveMaximum")
    words = [
        f"from {low:,}" if low is not None else "",
        f"above {above:,}" if above is not None else "",
        f"to {high:,}" if high is not None else "",
        f"below {below:,}" if below is not None else "",
    ]
    text = " ".join(word for word in words if word)
    return f", {text}" if text else ""


def _escaped(text: str) -> str:
    # Braces stand for parts of a path, and would be attributes to the site's Markdown.
    return re.sub(r"\{[^}]+\}", r"`\g<0>`", text).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
