"""YAML that remembers where each of its values stands, so that an error can name file, line and key.

The node tree that PyYAML composes before it builds values (https://pyyaml.org/wiki/PyYAMLDocumentation) has
the line of every key. Stricter than YAML: a key is text, and stands once in its mapping.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from replication.errors import ConfigError, Fault

Key = tuple[int | str, ...]
"""Where a value stands: keys and list positions from the top of the file."""

_TEXT = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True, slots=True)
class Source:
    """A file's values, and the line of each."""

    file: str
    root: yaml.Node
    value: Any

    def error(self, problems: Iterable[tuple[Key, str]]) -> ConfigError:
        """One `file:line: key: text` for each problem, in the file's order."""
        return ConfigError.of(Fault(self.file, *self._locate(key), text) for key, text in problems)

    def line(self, key: Key) -> int:
        """The line on which the value at a key begins."""
        return self._locate(key)[0]

    def _locate(self, key: Key) -> tuple[int, str]:
        """The line of a key, or where the file lacks it the line of what should hold it; and its name.

        An entry of `key` that the file does not have is left out of the name unless it is the last: a
        validator adds such entries to distinguish variants.
        """
        node, line, known = self.root, _line(self.root), list[str]()
        for depth, entry in enumerate(key, start=1):
            found = _child(node, entry)
            if found:
                node, line = found
            if found or depth == len(key):
                known.append(str(entry))
        return line, ".".join(known)


def read_yaml(text: str, *, file: str) -> Source:
    """Parse a YAML mapping; raises `ConfigError` with one line for each mistake."""
    try:
        return _read(yaml.SafeLoader(text), file)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise _fault(file, line, f"this is not YAML: {what}; fix the line or the one above") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _fault(file, line, f"this is not YAML: {error.reason}; save it as UTF-8 text") from error
    except RecursionError as error:
        raise _fault(file, 1, "is nested too deeply to be a configuration; check its brackets") from error
    except ValueError as error:
        # PyYAML's own constructors raise it without a place, for such as 2024-13-45, which looks like a date.
        raise _fault(file, 1, f"a value cannot be read: {error}; put dates and the like in quotes") from error


def _fault(file: str, line: int, text: str) -> ConfigError:
    return ConfigError.of([Fault(file, line, "", text)])


def _read(loader: yaml.SafeLoader, file: str) -> Source:
    node = loader.get_single_node()
    if node is None:
        raise _fault(file, 1, "the file is empty; begin with `project:`, `topic:` and `replicas:`")
    if not isinstance(node, yaml.MappingNode):
        raise _fault(file, _line(node), "the file is not a mapping; write `key: value` lines")
    problems = list(_bad_keys(node, file=file, within=(), seen=set()))
    if problems:
        raise ConfigError.of(problems)
    return Source(file=file, root=node, value=loader.construct_document(node))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _child(node: yaml.Node, entry: int | str) -> tuple[yaml.Node, int] | None:
    """The value under a key or at a position, and the line it begins on."""
    if isinstance(node, yaml.MappingNode):
        # The last of several: a merged key (`<<`) comes first, and the mapping's own overrides it.
        for name, value in reversed(node.value):
            if name.value == entry:
                return value, _line(name)
    elif isinstance(node, yaml.SequenceNode) and isinstance(entry, int) and entry < len(node.value):
        value = node.value[entry]
        return value, _line(value)
    return None


def _bad_keys(node: yaml.Node, *, file: str, within: Key, seen: set[int]) -> Iterator[Fault]:
    """A fault for each key that is not text or stands twice in its mapping."""
    if id(node) in seen:  # an alias may point at what it is in
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            yield from _bad_keys(value, file=file, within=(*within, position), seen=seen)
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[str, int] = {}
    for name, value in node.value:
        where = ".".join(map(str, (*within, name.value)))
        if name.tag not in (_TEXT, _MERGE):
            yield Fault(file, _line(name), where, "this key is not read as text; put it in quotes")
        elif name.value in first:
            text = f"stands here a second time, first in line {first[name.value]}; keep one of the two"
            yield Fault(file, _line(name), where, text)
        else:
            first[name.value] = _line(name)
            yield from _bad_keys(value, file=file, within=(*within, name.value), seen=seen)
