"""What the worker is measured against: programs that take the same changes from the same subscription.

    ceiling      pull, BatchGet, BatchWrite, acknowledge with bare stubs: no versions, nothing decided
    transaction  subscribe(), and a transaction per message: read, compare, set
    batched      subscribe(), and a write batch of what has come: nothing read, the last delivery wins
    bulkwriter   subscribe(), and the library's BulkWriter: the same, at its own pace

`python -m tests.bench.rivals NAME --config fleet.yaml --health-port PORT`, until SIGTERM. All but the first are
what one would write with Google's libraries and their documentation.
"""

import argparse
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.auth.credentials import AnonymousCredentials
from google.cloud import firestore
from google.cloud.firestore_v1._helpers import decode_dict
from google.cloud.pubsub_v1 import SubscriberClient

from replication.documents.wire import DocumentEventData, Write, micros
from replication.fleet.model import Fleet
from tests.bench.stubs import Firestore, Pubsub
from tests.bench.workload import TARGET
from workers.config import ConfigFile
from workers.runtime.health import HealthServer

_PULL_S = 2.0
_BATCH_MAX = 500
_BATCH_S_MAX = 0.05


def ceiling(fleet: Fleet, stop: threading.Event) -> None:
    """The worker's process model and calls, with nothing between them."""
    replica = fleet.replica(TARGET)
    host, pubsub_host = str(replica.emulator_host), str(fleet.pubsub_emulator_host)
    database = Firestore(host, f"projects/{replica.project}/databases/{replica.database}")
    pubsub = Pubsub(
        pubsub_host, project=fleet.project, topic=fleet.topic, subscription=fleet.subscription(TARGET)
    )

    def loop() -> None:
        while not stop.is_set():
            received = pubsub.pull(fleet.pull.max_messages, timeout=_PULL_S)
            if not received:
                continue
            writes = []
            for one in received:
                write = Write(update=DocumentEventData.FromString(one.message.data).value)
                write.update.name = replica.prefix + write.update.name.split("/", 5)[5]
                writes.append(write)
            database.get([write.update.name for write in writes])
            database.write(writes)
            pubsub.acknowledge([one.ack_id for one in received])

    threads = [threading.Thread(target=loop) for _ in range(fleet.pull.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    database.close()
    pubsub.close()


def transaction(fleet: Fleet, stop: threading.Event) -> None:
    """Each message in a transaction of its own: written unless what is there is newer."""
    client = _client(fleet)

    @firestore.transactional
    def newer(transaction: Any, reference: Any, fields: dict[str, Any], at: int) -> None:
        found = reference.get(transaction=transaction)
        if not found.exists or (found.get("at") if "at" in found.to_dict() else 0) < at:
            transaction.set(reference, {**fields, "at": at})

    def take(message: Any) -> None:
        path, fields, at = _change(message.data, client)
        newer(client.transaction(), client.document(path), fields, at)
        message.ack()

    _subscribe(fleet, stop, take)


def batched(fleet: Fleet, stop: threading.Event) -> None:
    """Messages collected until a batch is full or 50 ms have passed, and written in one commit, unread."""
    client = _client(fleet)
    waiting: list[Any] = []
    lock = threading.Lock()

    def take(message: Any) -> None:
        with lock:
            waiting.append(message)

    def flush() -> None:
        while not stop.wait(0 if len(waiting) >= _BATCH_MAX else _BATCH_S_MAX):
            with lock:
                taken, waiting[:] = waiting[:_BATCH_MAX], waiting[_BATCH_MAX:]
            batch = client.batch()
            for message in taken:
                path, fields, _ = _change(message.data, client)
                batch.set(client.document(path), fields)
            if taken:
                batch.commit()
            for message in taken:
                message.ack()

    flusher = threading.Thread(target=flush, daemon=True)
    flusher.start()
    _subscribe(fleet, stop, take)
    flusher.join()


def bulkwriter(fleet: Fleet, stop: threading.Event) -> None:
    """Each message handed to the library's BulkWriter, acknowledged when it says that it is written."""
    client = _client(fleet)
    writer = client.bulk_writer()
    sent: dict[str, Any] = {}
    lock = threading.Lock()  # BulkWriter is not made for several threads, and callbacks come on ten
    writer.on_write_result(lambda reference, _result, _writer: sent.pop(reference.path).ack())

    def take(message: Any) -> None:
        path, fields, _ = _change(message.data, client)
        with lock:
            sent[path] = message
            writer.set(client.document(path), fields)

    def flush() -> None:
        while not stop.wait(_BATCH_S_MAX):
            with lock:
                writer.flush()

    flusher = threading.Thread(target=flush, daemon=True)
    flusher.start()
    _subscribe(fleet, stop, take)
    flusher.join()


def _subscribe(fleet: Fleet, stop: threading.Event, callback: Callable[[Any], None]) -> None:
    subscriber = SubscriberClient()
    name = subscriber.subscription_path(fleet.project, fleet.subscription(TARGET))
    pulling = subscriber.subscribe(name, callback)
    stop.wait()
    pulling.cancel()
    pulling.result()
    subscriber.close()


def _change(body: bytes, client: Any) -> tuple[str, dict[str, Any], int]:
    value = DocumentEventData.FromString(body).value
    fields: Any = decode_dict(value.fields, client)
    return value.name.split("/", 5)[5], fields, micros(value.update_time)


def _client(fleet: Fleet) -> Any:
    replica = fleet.replica(TARGET)
    client = firestore.Client(
        project=replica.project,
        database=replica.database,
        credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
    )
    return client


RIVALS: dict[str, Callable[[Fleet, threading.Event], None]] = {
    "ceiling": ceiling,
    "transaction": transaction,
    "batched": batched,
    "bulkwriter": bulkwriter,
}


def main() -> None:
    """Run one rival until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.rivals")
    parser.add_argument("name", choices=RIVALS)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--health-port", type=int, required=True)
    options = parser.parse_args()
    fleet = ConfigFile(options.config).load()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    health = HealthServer(live={}, ready={})
    health.start(options.health_port)
    RIVALS[options.name](fleet, stop)
    health.stop()


if __name__ == "__main__":
    main()
