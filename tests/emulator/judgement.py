"""What must hold of a workload in the end, judged by its writers' log and what the databases hold.

Of one document, a write *supersedes* what its writer had seen, and all that its replica had committed before.
A write that nobody superseded is a *head*. Then, whatever the policy:

1. what stays is a head; else a superseded write has come back, a deleted document has risen, or nobody wrote it
2. every other head is in the conflict log as a side that lost, with its body; else it is lost without a trace

Nothing of this rests on the metadata that this system keeps, which would be its own witness.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from google.cloud import firestore

from replication.documents.wire import Document
from tests.emulator.application import kept
from tests.emulator.workloads import Seen

_CONFLICTS, _BODIES = "_repl_conflicts", "_repl_bodies"


@dataclass(slots=True)
class Losers:
    """What the conflict log keeps: the ids of the writes whose bodies lost, and where a delete lost."""

    writes: set[int] = field(default_factory=set)
    deletes: set[str] = field(default_factory=set)


def losers(clients: Iterable[firestore.Client], prefix: str) -> Losers:
    """The losing sides of all conflicts below `prefix`, as each replica that decided them has logged them."""
    found = Losers()
    for client in clients:
        records = client.collection(_CONFLICTS)
        below = records.where(filter=firestore.FieldFilter("path", ">=", f"{prefix}/"))
        below = below.where(filter=firestore.FieldFilter("path", "<", f"{prefix}/\uffff"))
        bodies = []
        for record in below.stream():
            for version in record.get("versions"):
                if version["id"] == record.get("winner"):
                    continue
                if version["deleted"]:
                    found.deletes.add(record.get("path"))
                else:
                    bodies.append(record.reference.collection(_BODIES).document(version["id"]))
        found.writes |= {
            body.get("body.write") for body in client.get_all(bodies, ["body.write"]) if body.exists
        }
    return found


def heads(history: Iterable[Seen]) -> dict[int, Seen]:
    """The writes of one document that no other one superseded, by id."""
    ordered = list(history)
    superseded = {write.saw for write in ordered}
    last = {write.replica: write.id for write in ordered}
    return {
        write.id: write for write in ordered if write.id not in superseded and last[write.replica] == write.id
    }


def faults(log: Iterable[Seen], held: Mapping[str, bytes], lost: Losers) -> list[str]:
    """What is wrong with what all replicas hold, in words; empty if nothing is."""
    log = list(log)
    histories: dict[str, list[Seen]] = {}
    for write in log:
        histories.setdefault(write.path, []).append(write)
    found = [f"{path}: nobody wrote this document" for path in held.keys() - histories.keys()]
    for path, history in histories.items():
        found += _faults_of(path, history, held.get(path), lost)
    found += [
        f"{path}: last-write-wins keeps another write than the last one"
        for path, one in kept(log).items()
        if not one.matches(held.get(path))
    ]
    return sorted(found)


def _faults_of(path: str, history: list[Seen], body: bytes | None, lost: Losers) -> list[str]:
    candidates = heads(history)
    if body is None:
        stays = {id_ for id_, write in candidates.items() if write.op == "delete"}
        if not stays:
            return [f"{path}: it is gone, and no delete of it was the last word"]
    else:
        held = Document.FromString(body).fields["write"].integer_value
        stays = {held}
        if held not in candidates or candidates[held].op == "delete":
            return [
                f"{path}: write {held} has come back, or is nobody's; it should be one of {list(candidates)}"
            ]
    # Who created the document anew had seen some delete; which one, nobody knows but the database.
    reborn = max((write.time for write in history if write.saw is None), default=0)
    return [
        f"{path}: {write.op} {id_} at {write.replica} is lost without a trace"
        for id_, write in candidates.items()
        if id_ not in stays
        and not _is_logged(write, lost)
        and not (write.op == "delete" and write.time < reborn)
    ]


def _is_logged(write: Seen, lost: Losers) -> bool:
    return write.path in lost.deletes if write.op == "delete" else write.id in lost.writes
