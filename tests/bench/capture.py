"""Capture: requests a second and their latency, from as many connections as keep one process busy."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from replication.documents.wire import DocumentEventData, time_text
from replication.fleet.model import Fleet
from tests.bench.workload import COLLECTION, SOURCE, plain

CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class Captured:
    """Answers a second, and how long one took at that load."""

    answers: int
    per_second: float
    p50_ms: float
    p99_ms: float


def requests(fleet: Fleet, count: int, *, now: int, port: int) -> list[bytes]:
    """Eventarc's requests for `count` new documents of 1 KB, ready to be sent."""
    replica = fleet.replica(SOURCE)
    made = []
    for number in range(count):
        path = f"{COLLECTION}/{number:08}"
        body = DocumentEventData(
            value=plain(replica, path, 1_000, at=now + number, mark="new")
        ).SerializeToString()
        head = (
            f"POST / HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/protobuf\r\n"
            f"content-length: {len(body)}\r\nce-specversion: 1.0\r\nce-id: {number}\r\n"
            "ce-type: google.cloud.firestore.document.v1.written\r\n"
            f"ce-source: //firestore.googleapis.com/projects/{replica.project}/databases/{replica.database}\r\n"
            f"ce-subject: documents/{path}\r\nce-time: {time_text(now + number)}\r\n"
            f"ce-project: {replica.project}\r\nce-database: {replica.database}\r\nce-document: {path}\r\n"
            "ce-location: europe-west1\r\nce-namespace: (default)\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made


def measure(port: int, sent: Sequence[bytes], *, seconds: float) -> Captured:
    """Send requests for so long, each connection one after the other; every answer has to be 204."""
    return asyncio.run(_measure(port, sent, seconds))


async def _measure(port: int, sent: Sequence[bytes], seconds: float) -> Captured:
    latencies: list[float] = []
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(CONNECTIONS):
            mine = sent[number::CONNECTIONS]
            group.create_task(_connection(port, mine, latencies, until=began + seconds))
    ranked = sorted(latencies)
    return Captured(
        answers=len(ranked),
        per_second=len(ranked) / (time.perf_counter() - began),
        p50_ms=ranked[len(ranked) // 2] * 1000,
        p99_ms=ranked[len(ranked) * 99 // 100] * 1000,
    )


async def _connection(port: int, sent: Sequence[bytes], latencies: list[float], *, until: float) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for turn in range(1_000_000):
            if time.perf_counter() > until:
                return
            began = time.perf_counter()
            writer.write(sent[turn % len(sent)])
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 204"):
                raise AssertionError(f"capture answered {head[:200]!r}")
            latencies.append(time.perf_counter() - began)
    finally:
        writer.close()
