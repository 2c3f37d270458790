"""Publish synthetic analytics events to a fleet's topic: what `firefleet publish --analytics` does."""

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

import orjson

from replication.adapters.pubsub import open_publisher
from replication.errors import FirefleetError
from workers.config import ConfigFile
from workers.publish.generator import Generator, Mix
from workers.runtime.publishing import publish_stream
from workers.runtime.so_far import SoFar
from workers.runtime.topics import require_topic


def publish_analytics(
    file: ConfigFile,
    *,
    replica: str,
    count: int,
    rate: float | None = None,
    seed: int = 0,
    publishers: int = 1,
    mix: Mix | None = None,
    manifest: Path | None = None,
) -> int:
    """Publish `count` events of a replica's region at `rate` a second; returns how many Pub/Sub has.

    `manifest` gets a JSON line for each (`workers.publish.generator` says what is in it).
    """
    configuration = file.load_all()
    fleet, settings = configuration.fleet, configuration.require_analytics(file.name)
    require_topic(fleet, settings.topic)
    region = min(settings.regions_of(fleet.replica(replica).id))
    generator = Generator(settings, region=region, seed=seed, now=lambda: time.time_ns() // 1_000, mix=mix)
    with ExitStack() as stack:
        opened = [
            open_publisher(fleet.project, settings.topic, emulator_host=fleet.pubsub_emulator_host)
            for _ in range(publishers)
        ]
        for publisher in opened:
            stack.callback(publisher.close)
        so_far = SoFar(count, "analytics event")
        stack.enter_context(so_far.in_errors())
        lines = stack.enter_context(_lines(manifest) if manifest else nullcontext())
        recorded = itertools.count(1)

        def record(line: object) -> None:
            if lines is not None:
                lines.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
            so_far.confirm(next(recorded))

        return publish_stream(generator.messages(count), opened, rate=rate, confirmed=record)


@contextmanager
def _lines(manifest: Path) -> Iterator[BinaryIO]:
    """The manifest, open; `FirefleetError` where it cannot be written, to its last line."""
    try:
        with manifest.open("wb") as lines:
            yield lines
    except OSError as error:
        raise FirefleetError(f"--manifest: cannot write '{manifest}' ({error.strerror or error})") from error
