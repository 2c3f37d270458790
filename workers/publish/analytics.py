"""Publish synthetic analytics events to a fleet's topic: what `firefleet publish --analytics` does."""

import time
from contextlib import ExitStack, nullcontext
from pathlib import Path

import orjson

from replication.adapters.pubsub import open_publisher
from workers.analytics.clients import load_analytics
from workers.config import ConfigFile
from workers.publish.generator import Generator, Mix
from workers.runtime.publishing import publish_stream


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
    fleet = file.load()
    settings = load_analytics(file, fleet)
    region = min(settings.regions_of(fleet.replica(replica).id))
    generator = Generator(settings, region=region, seed=seed, now=lambda: time.time_ns() // 1_000, mix=mix)
    with ExitStack() as stack:
        opened = [
            open_publisher(fleet.project, settings.topic, emulator_host=fleet.pubsub_emulator_host)
            for _ in range(publishers)
        ]
        for publisher in opened:
            stack.callback(publisher.close)
        lines = stack.enter_context(manifest.open("wb") if manifest else nullcontext())

        def record(line: object) -> None:
            if lines is not None:
                lines.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

        return publish_stream(generator.messages(count), opened, rate=rate, confirmed=record)
