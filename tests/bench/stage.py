"""The stage: one emulator of each kind, a fleet on them, and what is needed to set a scene and see its end.

A contender is judged by what the database says: how many documents it committed between its first commit and
its last. That is the same for all of them, and holds neither their start nor the wait for their end.
"""

import contextlib
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from replication.adapters.pubsub_admin import PubsubAdmin
from replication.configuration.parse import Configuration
from replication.configuration.resources import subscriptions, topics
from replication.documents.wire import MICROS, micros
from replication.fleet.model import Fleet
from replication.ports import Message
from tests.bench.stubs import Firestore, Pubsub, PubsubMessage
from tests.bench.workload import SOURCE, TARGET, THIRD, Workload
from workers.config import ConfigFile
from workers.local.emulators import FirestoreEmulator, PubsubEmulator, free_port
from workers.local.process import Process

PROJECT = "firefleet-bench"
ROOT = Path(__file__).parents[2]
FIREFLEET = (sys.executable, "-c", "from workers.cli import main; main(prog_name='firefleet')")
_WRITE_CHUNK = 500
_READ_CHUNK = 1_000
_REQUEST_BYTES_MAX = 3_000_000
_SENTINELS = 50
_POLL_S = 0.1
_DONE_S_MAX = 90.0
_HEAP_GB = 10
"""The emulators keep all they ever saw, about 10 KB a message: one whose heap is nearly full collects garbage
instead of answering, and every figure after that is of its collector."""


class NotDone(Exception):
    """A contender did not commit all changes in time; the text ends with its log."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a process has used so far: CPU seconds, and the most memory it ever held, in MiB."""

    cpu_s: float
    peak_mib: float


def resources(pid: int) -> Resources:
    """Read a running process' own account, without its children's."""
    process = Path(f"/proc/{pid}")
    # The program's name, in parentheses, may hold anything: fields are counted from its end
    # (https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html: utime and stime).
    ticks = process.joinpath("stat").read_text().rpartition(")")[2].split()[11:13]
    status = process.joinpath("status").read_text()
    [peak] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return Resources(sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), int(peak) / 1024)


class Scene:
    """One topic with its subscriptions, one configuration file, and stubs to both emulators."""

    def __init__(
        self, fleet: Fleet, config: Path, firestore: FirestoreEmulator, pubsub: PubsubEmulator
    ) -> None:
        self.fleet = fleet
        self.config = config
        self._emulator = firestore
        # The variables of Google's own clients, which the rivals use.
        self._emulators = {"FIRESTORE_EMULATOR_HOST": firestore.host, "PUBSUB_EMULATOR_HOST": pubsub.host}
        self.databases = {
            name: Firestore(firestore.host, f"projects/{PROJECT}/databases/{replica.database}")
            for name, replica in fleet.replicas.items()
        }
        self.pubsub = Pubsub(
            pubsub.host, project=PROJECT, topic=fleet.topic, subscription=fleet.subscription(TARGET)
        )
        self._admin = PubsubAdmin(PROJECT, emulator_host=pubsub.host)
        for topic in topics(Configuration(fleet)):
            self._admin.ensure_topic(topic)
        wanted = subscriptions(Configuration(fleet))
        self._subscriptions = (fleet.subscription(TARGET), fleet.dead_letter_subscription)
        for name in self._subscriptions:
            self._admin.ensure_subscription(name, wanted[name])

    def seed(self, workload: Workload) -> int:
        """Write what the target holds before; the latest commit time, in microseconds."""
        latest = 0
        for chunk in _chunks(workload.seeds, [write.ByteSize() for write in workload.seeds], _WRITE_CHUNK):
            for result in self.databases[TARGET].write(chunk).write_results:
                latest = max(latest, micros(result.update_time))
        return latest

    def publish(self, messages: Sequence[Message]) -> None:
        """Publish to the fleet's topic."""
        made = [PubsubMessage(data=message.data, attributes=message.attributes) for message in messages]
        for chunk in _chunks(made, [len(message.data) for message in messages], _WRITE_CHUNK):
            self.pubsub.publish(chunk)

    def commits(self, paths: Sequence[str], *, after: int) -> list[int]:
        """The target's commit times (µs) of those documents that were written after `after`."""
        prefix = self.fleet.replica(TARGET).prefix
        times = []
        for start in range(0, len(paths), _READ_CHUNK):
            names = [prefix + path for path in paths[start : start + _READ_CHUNK]]
            answers = self.databases[TARGET].get(names, mask=["_"])
            found = [micros(answer.found.update_time) for answer in answers if answer.HasField("found")]
            times += [at for at in found if at > after]
        return times

    def launch(self, name: str, command: Sequence[str]) -> Process:
        """Start a program that serves its health at `--health-port`."""
        port = free_port()
        return Process(
            name,
            [*command, "--health-port", str(port)],
            health=f"http://127.0.0.1:{port}/ready",
            environment={"PYTHONPATH": str(ROOT), **self._emulators},
        )

    def close(self) -> None:
        """Forget the documents, the topic and its subscriptions."""
        for name in self._subscriptions:
            self._admin.delete_subscription(name)
        for topic in topics(Configuration(self.fleet)):
            self._admin.delete_topic(topic)
        for replica, database in self.databases.items():
            self._emulator.reset(PROJECT, self.fleet.replica(replica).database)
            database.close()
        self.pubsub.close()
        self._admin.close()


class Stage:
    """The two emulators; `scene` prepares one measurement on them, with nothing left of the last."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.firestore = stack.enter_context(FirestoreEmulator.launch(heap_gb=_HEAP_GB))
            self.pubsub = stack.enter_context(PubsubEmulator.launch(heap_gb=_HEAP_GB))
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="firefleet-bench-")))
            self.firestore.ready()
            self.pubsub.ready()
            self._stack = stack.pop_all()
        self._scenes = itertools.count(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def scene(self) -> Iterator[Scene]:
        """A fresh scene; closed at the end."""
        config = self._folder / f"fleet-{next(self._scenes)}.yaml"
        config.write_text(yaml.safe_dump(self._config(config.stem)), encoding="utf-8")
        fleet = ConfigFile(config, environment={}).load()
        with contextlib.closing(Scene(fleet, config, self.firestore, self.pubsub)) as scene:
            yield scene

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """Hold the emulators, which go on compiling and collecting for a while after their last call."""
        self.firestore.pause()
        self.pubsub.pause()
        try:
            yield
        finally:
            self.firestore.resume()
            self.pubsub.resume()

    def _config(self, topic: str) -> dict[str, Any]:
        return {
            "project": PROJECT,
            "topic": topic,
            "pubsub_emulator_host": self.pubsub.host,
            "replicas": {
                name: {
                    "database": f"app-{name}",
                    "location": "europe-west1",
                    "emulator_host": self.firestore.host,
                }
                for name in (SOURCE, TARGET, THIRD)
            },
            "collections": [{"match": "{document=**}", "mode": "multi-primary"}],
        }


@dataclass(frozen=True, slots=True)
class Run:
    """One contender on one backlog: `cpu_us` a message in all its processes, `peak_mib` of the largest."""

    per_second: float
    cpu_us: float
    peak_mib: float


def drain(scene: Scene, name: str, command: Sequence[str], workload: Workload, *, processes: int = 1) -> Run:
    """Let a contender work a backlog off, and judge it by the target's commit times."""
    seeded = scene.seed(workload)
    scene.publish(workload.messages)
    with ExitStack() as stack:
        started = [stack.enter_context(scene.launch(name, command)) for _ in range(processes)]
        before = [resources(process.ready().pid) for process in started]
        commits = _all_commits(scene, workload, seeded, started)
        after = [resources(process.pid) for process in started]
        for process in started:
            process.terminate()
    first = min(commits)
    later = sum(1 for at in commits if at > first)
    if not later:
        raise NotDone(f"{name} wrote all of {len(commits)} changes in one commit: too few to tell its rate")
    cpu_s = sum(end.cpu_s - begin.cpu_s for begin, end in zip(before, after, strict=True))
    return Run(
        per_second=later / (max(commits) - first) * MICROS,
        cpu_us=cpu_s / len(commits) * MICROS,
        peak_mib=max(end.peak_mib for end in after),
    )


def _all_commits(scene: Scene, workload: Workload, seeded: int, started: Sequence[Process]) -> list[int]:
    """Wait until every change is committed. Looks at a few until they are: reading costs the database too."""
    deadline = time.monotonic() + _DONE_S_MAX
    few = workload.paths[-_SENTINELS:]
    while time.monotonic() < deadline and all(process.running for process in started):
        if len(scene.commits(few, after=seeded)) == len(few):
            commits = scene.commits(workload.paths, after=seeded)
            if len(commits) == len(workload.paths):
                return commits
        time.sleep(_POLL_S)
    raise NotDone(
        f"{started[0].name} committed {len(scene.commits(workload.paths, after=seeded))} of "
        f"{len(workload.paths)} changes; its log ends:\n{started[0].log_text()[-3_000:]}"
    )


def _chunks(items: Sequence[Any], sizes: Sequence[int], count_max: int) -> Iterator[list[Any]]:
    chunk: list[Any] = []
    size = 0
    for item, its_size in zip(items, sizes, strict=True):
        if chunk and (len(chunk) == count_max or size + its_size > _REQUEST_BYTES_MAX):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += its_size
    if chunk:
        yield chunk
