"""`firefleet publish`: synthetic changes straight onto the topic, for harnesses and benchmarks.

Each is an event as Firestore would report it, put through capture's own decision, so that its message looks
like a real one. No database holds these documents at the replica they claim to come from.
"""

import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from replication.adapters.pubsub import open_publisher
from replication.changes.capture import Dropped, ReadTombstone, capture, run_capture
from replication.changes.envelope import eventarc_headers
from replication.documents.wire import Document, DocumentEventData, is_document_path, set_micros, time_text
from replication.errors import ConfigError
from replication.fleet.model import Fleet, Replica
from replication.ports import Found, Message
from replication.words import counted
from workers.config import ConfigFile
from workers.publish.analytics import publish_analytics
from workers.runtime.options import Number, OutputFile, Whole, is_text
from workers.runtime.output import print_json
from workers.runtime.publishing import publish_stream
from workers.runtime.so_far import SoFar
from workers.runtime.topics import require_topic

RATE_MIN, RATE_MAX = 0.001, 1_000_000.0
SIZE_MAX = 500_000
"""An event of more would be over Eventarc's 512 KB, and would never have come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to publish. `size` is each document's payload in bytes; `deletes` the share of deletes, 0 to 1."""

    count: int
    size: int
    collection: str
    deletes: float
    seed: int


@dataclass(frozen=True, slots=True)
class Published:
    """What was published, in how many seconds."""

    replica: str
    topic: str
    published: int
    deletes: int
    seconds: float
    per_second: float


def synthetic_messages(
    fleet: Fleet, replica: Replica, load: Load, *, now: Callable[[], int]
) -> Iterator[Message]:
    """The messages of a load, made as they are asked for. `now` gives microseconds since 1970.

    Each is a new document of the collection, or the delete of an earlier one of this load.
    """
    chance = random.Random(load.seed)  # noqa: S311 - a load, no secret
    alive: list[Any] = []
    commit_time = 0
    for number in range(load.count):
        commit_time = max(now(), commit_time + 1)
        if alive and chance.random() < load.deletes:
            data = DocumentEventData(old_value=alive.pop(chance.randrange(len(alive))))
        else:
            document = _document(replica, load, number, payload=chance.randbytes(load.size), time=commit_time)
            data = DocumentEventData(value=document)
            if load.deletes:
                alive.append(document)
        yield _message(fleet, replica, data, event_id=f"{load.seed}-{number}", commit_time=commit_time)


def _document(replica: Replica, load: Load, number: int, *, payload: bytes, time: int) -> Any:
    document = Document(name=f"{replica.prefix}{load.collection}/{load.seed}-{number:08}")
    document.fields["number"].integer_value = number
    document.fields["payload"].bytes_value = payload
    set_micros(document.create_time, time)
    set_micros(document.update_time, time)
    return document


def _message(fleet: Fleet, replica: Replica, data: Any, *, event_id: str, commit_time: int) -> Message:
    path = (data.value.name or data.old_value.name).removeprefix(replica.prefix)
    headers = eventarc_headers(
        path,
        project=replica.project,
        database=replica.database,
        location=replica.location,
        event_id=event_id,
        time=time_text(commit_time),
    )
    captured = run_capture(capture(data.SerializeToString(deterministic=True), headers, fleet), _no_tombstone)
    if isinstance(captured, Dropped):
        raise ConfigError(f"{path} never leaves its replica by the config; choose another --collection")
    return captured


def _no_tombstone(wanted: ReadTombstone) -> Found:
    """No database has ever held these documents, so this system has deleted none of them."""
    return Found(wanted.path, None, 0, 0)


def require_consent(fleet: Fleet, what: str, *, given: bool) -> None:
    """Refuse to publish to a fleet in the cloud unless the operator has said yes; raises `ConfigError`."""
    if not fleet.emulated and not given:
        raise ConfigError(
            f"this fleet is not on an emulator: publish would send {what} to project {fleet.project}, where "
            "the workers write them into real databases; nothing was published. Add --yes to do that"
        )


def _counted(messages: Iterable[Message], counts: dict[str, int]) -> Iterator[Message]:
    for message in messages:
        kind = message.attributes["kind"]
        counts[kind] = counts.get(kind, 0) + 1
        yield message


def _now() -> int:
    return time.time_ns() // 1000


@click.command("publish")
@click.option("--replica", required=True, help="Where the changes claim to come from, by its id in the config.")
@click.option("--count", type=Whole(1), default=1000, show_default=True, help="How many changes.")
@click.option("--rate", type=Number(RATE_MIN, RATE_MAX), help="Changes a second; default: as fast as it goes.")
@click.option(
    "--size",
    type=Whole(0, SIZE_MAX),
    default=1000,
    show_default=True,
    help="Bytes of a document's payload.",
)
@click.option("--collection", default="synthetic", show_default=True, help="Where the documents are.")
@click.option("--deletes", type=Number(0, 100), default=0.0, help="Percent that are deletes.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the payloads; part of the ids.")
@click.option("--json", "json_wanted", is_flag=True, help="Print one JSON object at the end.")
@click.option("--analytics", is_flag=True, help="Publish analytics events instead, some twice and some wrong.")
@click.option(
    "--manifest",
    type=OutputFile(),
    help="With --analytics: write what was published here, a JSON object a line.",
)
@click.option("--yes", is_flag=True, help="Publish to a fleet in the cloud too, and not to emulators only.")
@click.pass_obj
def command(
    file: ConfigFile,
    *,
    replica: str,
    count: int,
    rate: float | None,
    size: int,
    collection: str,
    deletes: float,
    seed: int,
    json_wanted: bool,
    analytics: bool,
    manifest: Path | None,
    yes: bool,
) -> None:
    """Publish synthetic changes to the topic, in the wire format, without any database.

    The workers of the other replicas will write these documents: never do this to a fleet that is in use. A
    fleet in the cloud is refused without --yes.
    """
    if analytics:
        require_consent(file.load(), f"{count} synthetic analytics events of {replica}", given=yes)
        sent = publish_analytics(file, replica=replica, count=count, rate=rate, seed=seed, manifest=manifest)
        if json_wanted:
            print_json({"replica": replica, "published": sent})
        else:
            click.echo(f"{counted(sent, 'analytics event')} of {replica} published")
        return
    if manifest is not None:
        raise ConfigError("--manifest: only --analytics writes one; add it, or leave the manifest out")
    if not is_text(collection) or not is_document_path(f"{collection}/x"):
        raise ConfigError(f"--collection: '{collection}' is not a collection's path; write one such as orders")
    fleet = file.load()
    source = fleet.replica(replica)
    require_consent(fleet, f"{count} synthetic documents of {replica} in {collection}", given=yes)
    load = Load(count=count, size=size, collection=collection, deletes=deletes / 100, seed=seed)
    require_topic(fleet, fleet.topic)
    counts: dict[str, int] = {}
    began = time.monotonic()
    shown = _progress() if sys.stdout.isatty() and not json_wanted else None
    opened = open_publisher(fleet.project, fleet.topic, emulator_host=fleet.pubsub_emulator_host)
    so_far = SoFar(count, "change", show=_shower(shown, count))
    with so_far.in_errors(), closing(opened) as publisher, shown or nullcontext():
        messages = _counted(synthetic_messages(fleet, source, load, now=_now), counts)
        numbered = ((message, number) for number, message in enumerate(messages, 1))
        publish_stream(numbered, [publisher], rate=rate, confirmed=so_far.confirm)
    seconds = time.monotonic() - began
    result = Published(
        replica, fleet.topic, count, counts.get("delete", 0), round(seconds, 3), round(count / seconds, 1)
    )
    _report(result, json_wanted=json_wanted)


def _progress() -> Progress:
    return Progress(
        TextColumn("publishing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=Console()
    )


def _shower(progress: Progress | None, count: int) -> Callable[[int], None]:
    if progress is None:
        return lambda _: None
    task = progress.add_task("publishing", total=count)
    return lambda done: progress.update(task, completed=done)


def _report(result: Published, *, json_wanted: bool) -> None:
    if json_wanted:
        print_json(asdict(result))
    else:
        click.echo(
            f"{counted(result.published, 'change')} of {result.replica} published to {result.topic}, "
            f"{result.deletes:,} of them deletes, in {result.seconds} s: {result.per_second} a second"
        )
