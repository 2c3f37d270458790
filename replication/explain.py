"""Which rule applies to a document, and what follows from it for writes at each replica.

The same lookups as replication itself makes (`Fleet.rule_for`, `MetadataCodec.owns`), put into words.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

from conflict.policies import FieldRules, LastWriteWins, Precedence
from conflict.resolve import OnDelete, Policy
from replication.documents.wire import is_document_path, split_name
from replication.errors import ConfigError
from replication.fleet.model import Fleet, Mode, Rule

_EXAMPLE = "write it from the root, such as orders/o1 or carts/c1/items/i1"

_ON_DELETE = {
    OnDelete.LWW: "of a delete and a concurrent write the later one stays",
    OnDelete.DELETE_WINS: "of a delete and a concurrent write the delete stays",
    OnDelete.UPDATE_WINS: "of a delete and a concurrent write the write stays",
}


@dataclass(frozen=True, slots=True)
class WrittenAt:
    """What happens to a write made at one replica: who receives it (replica ids), and in words."""

    replica: str
    receivers: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What happens to one document, and why.

    `rule` is the position in `Fleet.rules`, None for firefleet's own documents, which `own` then describes.
    `conflict` and `on_delete` say what becomes of concurrent writes; None where there can be none.
    """

    path: str
    rule: int | None
    own: str | None
    conflict: str | None
    on_delete: str | None
    expiration: str | None
    writes: tuple[WrittenAt, ...]


def explain(fleet: Fleet, path: str) -> Explanation:
    """Say what happens to the document at `path`, a relative path that `document_path` has accepted."""
    codec = fleet.codec
    if codec.owns(path):
        return Explanation(
            path=path,
            rule=None,
            own=_own(fleet, path),
            conflict=None,
            on_delete=None,
            expiration=None,
            writes=(),
        )
    rule = fleet.rule_for(path)
    shared = rule.mode is Mode.MULTI_PRIMARY
    return Explanation(
        path=path,
        rule=position(fleet, rule),
        own=None,
        conflict=describe(rule.policy) if shared else None,
        on_delete=f"{rule.on_delete}: {_ON_DELETE[rule.on_delete]}" if shared else None,
        expiration=None if rule.mode is Mode.LOCAL else _expiration(fleet),
        writes=tuple(_writes(fleet, rule)),
    )


def position(fleet: Fleet, rule: Rule) -> int:
    """Where one of the fleet's rules stands, from 0."""
    return next(at for at, each in enumerate(fleet.rules) if each is rule)


def document_path(fleet: Fleet, text: str) -> str:
    """The relative path that `text` names; raises `ConfigError` with the remedy if it is not a document's.

    A full name (`projects/…/databases/…/documents/…`) is accepted if it is in one of the fleet's databases.
    """
    if text.startswith("projects/") and (name := split_name(text)) is not None:
        project, database, path = name
        if fleet.replica_of(project, database) is None:
            known = ", ".join(f"{each.project}/{each.database}" for each in fleet.replicas.values())
            raise ConfigError(
                f"PATH: '{text}' is in database {project}/{database}, which is not a replica; replicas: {known}"
            )
        text = path
    if not text or text != text.strip("/") or "//" in text:
        raise ConfigError(
            f"PATH: '{text}' begins or ends with '/', or has an empty segment; {_EXAMPLE}"
            if text
            else f"PATH: is empty; {_EXAMPLE}"
        )
    for segment in text.split("/"):
        if segment in (".", "..") or (segment.startswith("__") and segment.endswith("__")):
            raise ConfigError(f"PATH: Firestore allows no id '{segment}'; {_EXAMPLE}")
    if not is_document_path(text):
        raise ConfigError(
            f"PATH: '{text}' is a collection, not a document; name a document in it, such as {text}/1"
        )
    return text


def describe(policy: Policy) -> str:
    """What a policy keeps, in a sentence."""
    match policy:
        case LastWriteWins():
            return "last-write-wins: the later write stays, whole"
        case Precedence(field=name, order=order):
            states = " < ".join(map(str, order))
            return f"precedence: the document whose '{name}' is further in {states} stays; else the later one"
        case FieldRules(fields=fields):
            rules = ", ".join(f"{name}: {rule}" for name, rule in fields.items())
            return f"field-rules: {rules}; all other fields of the later write"
        case _:
            return f"{policy.name}: what the function returns"


def _own(fleet: Fleet, path: str) -> str:
    if path.startswith(f"{fleet.codec.tombstones}/"):
        return "a tombstone: remembers a delete, so that late changes do not revert it; never write it"
    return "part of the conflict log: keeps both sides of a conflict; never write it"


def _expiration(fleet: Fleet) -> str:
    if fleet.expirations == "local":
        return "a delete by Firestore's TTL stays at its replica: each expires its own documents"
    return "a delete by Firestore's TTL is replicated like any other"


def _writes(fleet: Fleet, rule: Rule) -> Iterator[WrittenAt]:
    for replica in fleet.replicas:
        others = tuple(other for other in fleet.replicas if other != replica)
        listed = " and ".join(others) or "no one, there is no other replica"
        match rule.mode:
            case Mode.LOCAL:
                yield WrittenAt(replica, (), "stays here")
            case Mode.MULTI_PRIMARY:
                yield WrittenAt(replica, others, f"is applied at {listed}")
            case Mode.SINGLE_PRIMARY if rule.primary == replica:
                yield WrittenAt(replica, others, f"is applied at {listed}")
            case Mode.SINGLE_PRIMARY:
                yield WrittenAt(replica, (), f"is reverted here and logged: only {rule.primary} may write")
            case _:
                assert_never(rule.mode)
