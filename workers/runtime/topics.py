"""Ask for a topic before work begins, so that a missing one is one clear error."""

from contextlib import closing

from replication.adapters.pubsub_admin import PubsubAdmin
from replication.errors import FirefleetError
from replication.fleet.model import Fleet


def require_topic(fleet: Fleet, topic: str) -> None:
    """Fail within seconds where an emulator does not answer or lacks a topic, with the remedy.

    Asks emulators alone: who may publish to a real topic need not be allowed to look it up.
    """
    if fleet.pubsub_emulator_host is None:
        return
    with closing(PubsubAdmin(fleet.project, emulator_host=fleet.pubsub_emulator_host)) as admin:
        if not admin.reach(topic):
            raise FirefleetError(f"topic {topic} does not exist; create it: firefleet provision")
