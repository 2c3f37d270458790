"""`firefleet analytics read`: the stored events of a replica, each once, one JSON object a line."""

from collections import deque
from contextlib import closing
from dataclasses import asdict
from datetime import datetime

import click

from replication.adapters.firestore_listing import FirestoreListing
from replication.analytics.packing import StoredEvent
from replication.analytics.reader import Tally, read_events
from replication.analytics.schema import event_micros, parse_time
from replication.errors import ConfigError
from workers.config import ConfigFile
from workers.runtime.options import Name
from workers.runtime.output import print_json, print_json_lines


class Moment(click.ParamType[int]):
    """A point in time as RFC 3339, in microseconds since 1970."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See `click.ParamType.convert`."""
        try:
            moment = datetime.fromisoformat(str(value))
            if moment.tzinfo is not None:
                return event_micros(moment)
        except (ValueError, OverflowError):
            pass  # said below
        self.fail(f"{value!r} is not a time with a zone; write one such as 2026-01-31T12:00:00Z", param, ctx)


@click.command("read", short_help="Print stored events, each once, as JSON lines.")
@click.option("--replica", required=True, help="The replica to read from.")
@click.option("--type", "event_type", type=Name(), help="Only events of this type.")
@click.option("--region", type=Name(), help="Only events of this region.")
@click.option("--since", type=Moment(), help="Only events of this time (RFC 3339) or later.")
@click.option("--until", type=Moment(), help="Only events before this time.")
@click.option("--count", is_flag=True, help="Print only the numbers of documents, events, and copies left out.")
@click.pass_obj
def command(
    file: ConfigFile,
    *,
    replica: str,
    event_type: str | None,
    region: str | None,
    since: int | None,
    until: int | None,
    count: bool,
) -> None:
    """Print the stored events of a replica, each once, one JSON object a line.

    Reads either layout. Events come in the order they are stored in, which is not that of their times.
    """
    configuration = file.load_all()
    fleet, settings = configuration.fleet, configuration.require_analytics(file.name)
    if event_type is not None and event_type not in settings.types:
        known = ", ".join(settings.types)
        raise ConfigError(f"--type: no event type '{event_type}' in the configuration; choose one of {known}")
    asked = {"type": event_type, "region": region}
    equal = {name: text for name, text in asked.items() if text is not None}
    tally = Tally()
    with closing(FirestoreListing(fleet.replica(replica))) as listing:
        documents = listing.documents(settings.collection, equal=equal)
        events = read_events(documents, tally, wanted=lambda event: _within(event, since, until))
        if count:
            deque(events, maxlen=0)
            print_json(asdict(tally))
        else:
            print_json_lines(event.body for event in events)


def _within(event: StoredEvent, since: int | None, until: int | None) -> bool:
    if since is None and until is None:
        return True
    time = parse_time(event.body["time"])
    return (since is None or time >= since) and (until is None or time < until)
