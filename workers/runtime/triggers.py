"""A Firestore emulator's triggers, which stand for Eventarc's in the cloud."""

import http.client
import json
from contextlib import closing

from replication.changes.envelope import WRITTEN
from replication.errors import FirefleetError, Transient
from replication.fleet.model import Replica

_EMULATOR_SECONDS = 30.0


def trigger_id(replica: Replica) -> str:
    """The id of a replica's trigger at its emulator. Fixed, because a second id would double every event."""
    return f"capture-{replica.id}"


def register_trigger(replica: Replica, emulator_host: str) -> None:
    """Have a Firestore emulator send an event for every change of the replica's database."""
    body = {
        "eventType": WRITTEN,
        "database": replica.database,
        "namespace": "(default)",
        "document": {"value": "{document=**}", "matchType": "PATH_PATTERN"},
    }
    path = f"/emulator/v1/projects/{replica.project}/eventarcTrigger?eventarcTriggerId={trigger_id(replica)}"
    where = f"the Firestore emulator of replica '{replica.id}' at {emulator_host}"
    with closing(http.client.HTTPConnection(emulator_host, timeout=_EMULATOR_SECONDS)) as connection:
        try:
            connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise Transient(f"{where} does not answer ({error}); start it, or correct emulator_host") from error
    if answer.status != http.client.OK:
        raise FirefleetError(
            f"{where} refused the trigger ({answer.status}: {text.strip()}); "
            "start it with --functions_emulator=HOST:PORT"
        )
