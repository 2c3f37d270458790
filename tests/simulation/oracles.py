"""What every history must satisfy: each oracle is a function of the facts, and says what is wrong.

They rest on the simulator's own record of who wrote what and had seen what, never on the clocks of the code
under test, except where its claim is what is judged.
"""

from collections.abc import Callable, Iterator

from replication.documents.wire import Document
from tests.simulation.history import AppWrite, Final, History, Side
from tests.simulation.knobs import PRIMARY

Oracle = Callable[[History], Iterator[str]]

PUBLISHED_MIN, PUBLISHED_PER_WRITE_MAX = 200, 60
"""Messages the fleet may publish: merges between five replicas, and push-backs."""


def nothing_raised(history: History) -> Iterator[str]:
    """The core raises nothing but what its drivers expect."""
    if history.crashed:
        yield history.crashed


def comes_to_rest(history: History) -> Iterator[str]:
    """When writes stop, messages and writes stop."""
    if history.restless:
        yield history.restless


def replicas_equal(history: History) -> Iterator[str]:
    """All replicas hold the same documents, as far as they are replicated."""
    for path in _replicated(history):
        bodies = {
            name: history.finals[name, path].body for name in history.living if (name, path) in history.finals
        }
        if len(set(bodies.values())) > 1:
            yield f"{path} differs: " + ", ".join(f"{name} {_brief(body)}" for name, body in bodies.items())


def versions_equal(history: History) -> Iterator[str]:
    """All replicas agree on each document's version, so that the next write is judged alike everywhere."""
    for path in _replicated(history):
        if _is_wallet(path):
            continue  # only the primary's component counts there
        versions = {
            name: history.finals[name, path].version
            for name in history.living
            if (name, path) in history.finals
        }
        if len({repr(_plain(version)) for version in versions.values()}) > 1:
            yield f"{path} has several versions: " + ", ".join(
                f"{name} {_plain(version)}" for name, version in versions.items()
            )


def local_stays(history: History) -> Iterator[str]:
    """A local collection's documents are at each replica what its own applications made of them."""
    for (name, path), final in history.finals.items():
        if path.startswith("notes/"):
            own = [write for write in history.writes if (write.replica, write.path) == (name, path)]
            expected = own[-1].body if own else None
            if final.body != expected:
                yield f"{path} at {name} is {_brief(final.body)}, not {_brief(expected)}"


def nothing_invented(history: History) -> Iterator[str]:
    """No value that nobody wrote: a body is some write's; a computed one is made of fields of such."""
    whole = history.knobs.policy != "field-rules"
    for (name, path), final in history.finals.items():
        if final.body is None:
            continue
        bodies = [write.body for write in history.writes if write.path == path and write.body is not None]
        if final.body in bodies:
            continue
        if whole or not path.startswith("orders/"):
            yield f"{path} at {name} holds what nobody wrote: {_brief(final.body)}"
        elif strange := _strange_fields(final.body, bodies):
            yield f"{path} at {name}: nobody wrote {strange}"


def nothing_lost(history: History) -> Iterator[str]:
    """Every acknowledged write is present, superseded by one that had seen it, or logged as a loser."""
    superseded = {parent for write in history.writes for parent in write.parents}

    def leaves_a_trace(write: AppWrite) -> bool:
        return write.number in superseded or _is_present(write, history) or _is_logged(write, history)

    for write in _judged(history):
        if leaves_a_trace(write) or any(leaves_a_trace(other) for other in _same(write, history)):
            continue
        what = f"write {write.number} of {write.path} at {write.replica}"
        yield f"{what} is lost without a trace: {_brief(write.body)}"


def nothing_resurrected(history: History) -> Iterator[str]:
    """A deleted document comes back only by a write that did not know of the delete, or came after it."""
    for write in _judged(history):
        if write.body is not None or _is_logged(write, history):
            continue
        standing = [name for name in history.living if history.finals[name, write.path].body is not None]
        if not standing:
            continue
        known = _past(write, history)
        if not any(
            other.body is not None and other.path == write.path and other.number not in known
            for other in history.writes
        ):
            yield f"{write.path} is back at {standing}; write {write.number} deleted it, having seen all others"


def last_write_wins(history: History) -> Iterator[str]:
    """With one clock, last-write-wins keeps the latest write; one primary's collection keeps the primary's."""
    for path in _replicated(history):
        writes = [write for write in history.writes if write.path == path]
        if _is_wallet(path):
            writes = [write for write in writes if write.replica == PRIMARY]
        elif not history.knobs.lww:
            continue
        if any(write.tainted for write in writes):
            continue
        reached = [
            write for write in writes if write.replica != history.dead or write.number in history.captured
        ]
        last = max(reached, key=lambda write: write.time, default=None)
        for name in history.living:
            final = history.finals[name, path]
            if final.body != (last.body if last else None):
                yield (
                    f"{path} at {name} is {_brief(final.body)}, but the last write was "
                    f"{f'{last.number} at {last.replica}: {_brief(last.body)}' if last else 'none'}"
                )


def superseded_stays_gone(history: History) -> Iterator[str]:
    """Under last-write-wins no write comes back that another had seen and replaced, whatever the clocks say.

    Except where the replica's own copy lost its clock: until it is healed, a merge there takes the write for a
    blind one, with its own commit time for a stamp. One time source hides that; skewed ones do not.
    """
    knobs = history.knobs
    if knobs.policy != "lww" or knobs.on_delete != "lww":
        return
    heard = list(_judged(history))
    for path in {write.path: None for write in heard}:
        writes = [write for write in heard if write.path == path]
        if _is_wallet(path) or any(write.severed for write in writes):
            continue
        body = history.finals[history.living[0], path].body
        stands = [write for write in writes if write.body == body]
        replaced = {parent for write in writes if write.body != body for parent in write.parents}
        if stands and all(write.number in replaced for write in stands):
            yield f"{path} is {_brief(body)} again, write {stands[-1].number}, which had been replaced"


def conflicts_are_real(history: History) -> Iterator[str]:
    """No conflict is logged between a write and one that its writer had replaced: that is no conflict."""
    if history.knobs.policy == "field-rules":
        return  # a computed body stands for several writes, and the log does not say which
    for entry in history.logged:
        if entry.kind != "conflict" or len(entry.sides) != 2:
            continue
        a, b = entry.sides
        if _includes(a, b) != _includes(b, a):
            yield f"{entry.path} at {entry.replica}: {a.id} and {b.id} are no conflict, one had seen the other"


def durable_before_acknowledged(history: History) -> Iterator[str]:
    """No acknowledgement before a durable outcome: stored, superseded there, logged, buried or sent on."""
    for ack in history.acks:
        if ack.settled:
            continue
        missing = {name: dot for name, dot in ack.needs.items() if ack.standing.get(name, 0) < dot}
        if missing or not ack.needs:
            what = f"message {ack.message} was acknowledged at {ack.replica}"
            yield f"{what} with nothing durable; missing {missing}"


def replay_changes_nothing(history: History) -> Iterator[str]:
    """Replaying any part of the log changes nothing.

    Except that a clock may learn of the dead replica's deletes: documents created again after such a delete do
    not name it, and it would have been its origin's part to tell.
    """
    for key, final in history.replayed.items():
        if _at_odds(history, key[1]):
            continue
        before = history.finals[key]
        rewritten = final.body is not None and final.update_time != before.update_time
        if final.body != before.body or (rewritten and _gained(before, final) != {history.dead}):
            change = f"{_brief(before.body)} to {_brief(final.body)}"
            yield f"replaying the log changed {key[1]} at {key[0]}: {change}"


def lag_is_true(history: History) -> Iterator[str]:
    """The lag reported is the lag the simulator knows."""
    for lag in history.lags:
        if lag.reported not in lag.true:
            yield f"message {lag.message} at {lag.replica}: lag {lag.reported} µs reported, true are {lag.true}"


def stays_bounded(history: History) -> Iterator[str]:
    """Memory and queues stay bounded: what a worker holds, what is published, the size of clocks."""
    if history.held_max > 2 * history.knobs.batch:
        yield f"a worker held {history.held_max} messages, of batches of {history.knobs.batch}"
    bound = PUBLISHED_MIN + PUBLISHED_PER_WRITE_MAX * (len(history.writes) + history.replays)
    if history.published > bound:
        yield f"{history.published} messages were published for {len(history.writes)} writes"
    ids = set(history.knobs.ids)
    for (name, path), final in history.finals.items():
        if final.version is not None and not set(final.version.clock) <= ids:
            yield f"the clock of {path} at {name} has grown beyond the fleet: {sorted(final.version.clock)}"


def dead_letters_are_right(history: History) -> Iterator[str]:
    """What can never be applied is buried at each replica it was for, and nothing else is."""
    cursed = any(write.cursed for write in history.writes)
    for key, what in history.poisoned.items():
        if key not in history.buried and key.rpartition(" at ")[2] != history.dead:
            yield f"poison ({what}), message {key}, left no dead letter"
    for key in history.buried:
        if key not in history.poisoned and not cursed:
            yield f"message {key} was good and is a dead letter"


ORACLES: tuple[Oracle, ...] = (
    nothing_raised,
    comes_to_rest,
    replicas_equal,
    last_write_wins,
    nothing_lost,
    superseded_stays_gone,
    conflicts_are_real,
    nothing_resurrected,
    nothing_invented,
    durable_before_acknowledged,
    replay_changes_nothing,
    lag_is_true,
    local_stays,
    stays_bounded,
    dead_letters_are_right,
    versions_equal,
)


def judge(history: History) -> list[tuple[str, str]]:
    """All that is wrong with a history, as (oracle, what)."""
    oracles = ORACLES
    if history.crashed:
        oracles = (nothing_raised,)
    elif history.restless:
        oracles = (comes_to_rest, durable_before_acknowledged, lag_is_true)
    return [(oracle.__name__, what) for oracle in oracles for what in oracle(history)]


# ── of facts ──────────────────────────────────────────────────────────────────────────────────────────────────


def _replicated(history: History) -> list[str]:
    return [
        path for path in history.knobs.paths if not path.startswith("notes/") and not _at_odds(history, path)
    ]


def _at_odds(history: History, path: str) -> bool:
    """Whether replicas cannot agree on a document: databases refuse a body, or its primary is dead."""
    if any(write.cursed for write in history.writes if write.path == path):
        return True
    return _is_wallet(path) and history.dead == PRIMARY


def _gained(before: Final, after: Final) -> set[str]:
    """The replicas of which a document's clock says more than before."""
    if before.version is None or after.version is None:
        return set()
    was = before.version.clock
    return {name for name, dot in after.version.clock.items() if was.get(name, 0) < dot}


def _is_wallet(path: str) -> bool:
    return path.startswith("wallets/")


def _judged(history: History) -> Iterator[AppWrite]:
    """The writes of which no trace may be lost."""
    for write in history.writes:
        if write.path.startswith("notes/") or _at_odds(history, write.path):
            continue
        if write.replica == history.dead and (write.number not in history.captured or _is_wallet(write.path)):
            continue  # nobody ever heard of it, or only its own replica is to undo it
        if not any(other.tainted for other in history.writes if other.path == write.path):
            yield write


def _is_present(write: AppWrite, history: History) -> bool:
    if _is_wallet(write.path) and write.replica != PRIMARY:
        return False
    name = history.living[0]
    return history.finals[name, write.path].body == write.body


def _same(write: AppWrite, history: History) -> list[AppWrite]:
    """Other writes of the same content, neither of which had seen the other: they are merged as one."""
    others = [
        other
        for other in history.writes
        if other.path == write.path and other.body == write.body and other.replica != write.replica
    ]
    if not others:
        return []
    past = _past(write, history)
    return [other for other in others if other.number not in past and write.number not in _past(other, history)]


def _is_logged(write: AppWrite, history: History) -> bool:
    return any(
        _is_of(side, write) for entry in history.logged if entry.path == write.path for side in entry.losers
    )


def _includes(side: Side, other: Side) -> bool:
    return side.clock.get(other.origin, 0) >= other.dot


def _is_of(side: Side, write: AppWrite) -> bool:
    if write.body is None:
        # Deletes are alike: one that was merged with another is named after the later.
        return side.deleted and side.clock.get(write.replica, 0) >= write.dot
    return side.body == write.body


def _past(write: AppWrite, history: History) -> set[int]:
    """The writes that a write had seen, directly or not, itself included."""
    seen: set[int] = set()
    todo = [write.number]
    while todo:
        number = todo.pop()
        if number not in seen:
            seen.add(number)
            todo += history.writes[number].parents
    return seen


def _plain(version: object) -> object:
    if version is None:
        return None
    return (sorted(version.clock.items()), version.stamp, version.origin, version.dot, version.deleted)  # type: ignore[attr-defined]


def _brief(body: bytes | None) -> str:
    return "nothing" if body is None else _text(body)


def _text(body: bytes) -> str:
    fields = Document.FromString(body).fields
    names = [name for name in ("v", "n", "status") if name in fields]
    return (
        "{"
        + ", ".join(f"{name}: {getattr(fields[name], fields[name].WhichOneof('value_type'))}" for name in names)
        + "}"
    )


def _strange_fields(body: bytes, bodies: list[bytes]) -> list[str]:
    known: set[bytes] = set()
    for other in bodies:
        known |= _atoms(Document.FromString(other).fields)
    return sorted(atom.decode(errors="replace") for atom in _atoms(Document.FromString(body).fields) - known)


def _atoms(fields: object) -> set[bytes]:
    """Every field's value, by element for arrays, which a policy may join."""
    atoms = set()
    for name, value in fields.items():  # type: ignore[attr-defined]
        parts = value.array_value.values if value.WhichOneof("value_type") == "array_value" else [value]
        atoms |= {name.encode() + b"=" + part.SerializeToString(deterministic=True) for part in parts}
    return atoms
