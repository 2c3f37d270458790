"""Google's own emulators of Firestore and Pub/Sub, as child processes that never outlive this one.

They come with the Google Cloud CLI and run on Java. Started by their launchers directly rather than through
`gcloud emulators … start`: it is faster (about 1 s), and there is one process group to stop. Each listens on
127.0.0.1 only and keeps everything in memory, so stopping one is a kill and forgets its data.

No JVM is left behind, however this process ends: every emulator's process group holds a small shell that
reads a pipe from this process and kills the group at its end, which comes with any death, `kill -9` included.
(Linux' PR_SET_PDEATHSIG would not do: it is bound to the *thread* that started the child, and the launcher's
own child does not inherit it.)
"""

import contextlib
import functools
import http.client
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from replication.errors import ConfigError, FirefleetError, Transient

JAVA_VERSION_MIN = 11
"""gcloud 528's emulators need Java 11; newer releases ask for 21 and say so in their log."""

HOW_TO_GET = (
    "To get the emulators: install the Google Cloud CLI (https://cloud.google.com/sdk/docs/install) and Java "
    f"{JAVA_VERSION_MIN} or later (21 for the newest), then run `gcloud components install "
    "cloud-firestore-emulator pubsub-emulator`; where the CLI came from Debian packages: `apt-get install "
    "google-cloud-cli-firestore-emulator google-cloud-cli-pubsub-emulator default-jre-headless`."
)

HEAP_GB = 1
"""Small, so that several emulators fit on one machine. They forget nothing: what passes through takes this."""
# One collector thread, because the cores are shared. The heap has its full size at once (memory is taken as it
# is used) and a small young part: growing it and emptying a large one take seconds. A full heap must end the
# process: else it answers ever more slowly for minutes, and nothing says why.
_JVM_OPTIONS = "-Xms{heap_gb}g -Xmx{heap_gb}g -Xmn256m -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError"

# For `/bin/sh -c`: no program outlives the process that started it, however that ends. `$@` becomes the group's
# leader; the shell next to it waits for the end of the pipe on standard input, even while the group is paused.
LEASH = 'exec 3<&0; { trap "" TSTP; read -r _; kill -KILL 0; } <&3 >/dev/null 2>&1 & exec "$@" 3<&- </dev/null'

_READY_SECONDS = 180.0
"""A machine with other work is many times slower."""
_STOP_SECONDS = 5.0
_POLL_SECONDS = 0.02
_LOG_TAIL_BYTES = 4_000

_SDK_PLACES = (
    "/usr/lib/google-cloud-sdk",
    "/usr/share/google-cloud-sdk",
    "/usr/local/share/google-cloud-sdk",
    "/usr/local/google-cloud-sdk",
    "/opt/google-cloud-sdk",
    "/opt/homebrew/share/google-cloud-sdk",
    "~/google-cloud-sdk",
)
_FIRESTORE_LAUNCHER = "platform/cloud-firestore-emulator/cloud_firestore_emulator"
_PUBSUB_LAUNCHER = "platform/pubsub-emulator/bin/cloud-pubsub-emulator"


class Missing(ConfigError):
    """The emulators, or a Java that runs them, are not on this machine; the text says how to get them."""


class StartFailed(FirefleetError):
    """An emulator did not come up; the text ends with its log."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the two launchers and `java` are."""

    firestore: Path
    pubsub: Path
    java: Path


def locate(environment: Mapping[str, str] | None = None) -> Programs:
    """Find the emulators and Java; `Missing` says what is not there and how to get it."""
    environment = os.environ if environment is None else environment
    java = _java(environment)
    for root in _sdk_roots(environment):
        found = Programs(firestore=root / _FIRESTORE_LAUNCHER, pubsub=root / _PUBSUB_LAUNCHER, java=java)
        if found.firestore.is_file() and found.pubsub.is_file():
            return found
    raise Missing(f"The Firestore and Pub/Sub emulators are not installed. {HOW_TO_GET}")


@functools.cache
def programs() -> Programs:
    """`locate` with this process' environment, remembered."""
    return locate()


def _sdk_roots(environment: Mapping[str, str]) -> Iterator[Path]:
    """Roots of Google Cloud CLI installations; the slow question to gcloud itself comes last."""
    if root := environment.get("CLOUDSDK_ROOT_DIR"):
        yield Path(root)
    gcloud = shutil.which("gcloud", path=environment.get("PATH"))
    if gcloud:
        yield Path(gcloud).resolve().parent.parent
    for place in _SDK_PLACES:
        yield Path(place).expanduser()
    if gcloud:
        # A shim of a version manager resolves to anywhere; gcloud knows where it is.
        command = [gcloud, "info", "--format=value(installation.sdk_root)"]
        if output := _output(command, environment):
            yield Path(output.strip())


def _java(environment: Mapping[str, str]) -> Path:
    """The `java` both launchers are made to use: JAVA_HOME's, else the first on the path."""
    home = environment.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java", path=environment.get("PATH"))
    if java is None:
        raise Missing(f"The emulators need Java, which is not on the path. {HOW_TO_GET}")
    version = re.search(r'version "(?:1\.)?(\d+)', _output([java, "-version"], environment))
    if version is None:
        raise Missing(f"The emulators need Java, and {java} does not run. {HOW_TO_GET}")
    if int(version[1]) < JAVA_VERSION_MIN:
        raise Missing(f"The emulators need Java {JAVA_VERSION_MIN}; {java} is Java {version[1]}. {HOW_TO_GET}")
    return Path(java)


def _output(command: list[str], environment: Mapping[str, str]) -> str:
    """What a command prints, both streams; empty if it cannot be run."""
    try:
        done = subprocess.run(  # noqa: S603 - gcloud or java, found on the operator's own path
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + (done.stderr if command[-1] == "-version" else "")


def free_port() -> int:
    """A free port on 127.0.0.1, below the range outgoing connections take theirs from.

    Nothing reserves it: bind it soon. (A port the kernel chooses can go to any connection in the meantime.)
    """
    for _ in range(100):
        port = random.randrange(15_000, 32_000)  # noqa: S311 - not for cryptography
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise StartFailed("No free port between 15000 and 32000 on 127.0.0.1: stop something and try again.")


class Emulator:
    """One running emulator: a context manager that stops it.

    `launch` returns at once, so that several can come up side by side; `ready` then waits for each. `start`
    is both. All methods but `stop` need it running.
    """

    product: ClassVar[str]

    def __init__(self, command: list[str], *, port: int, java: Path, heap_gb: int) -> None:
        self.port = port
        # Without a name, so that nothing is left on the disk however this process ends.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the launcher found by locate()
                ["/bin/sh", "-c", LEASH, "sh", *command, "--host=127.0.0.1", f"--port={port}"],
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                process_group=0,
                env={
                    **os.environ,
                    "JAVA": str(java),
                    "JDK_JAVA_OPTIONS": _JVM_OPTIONS.format(heap_gb=heap_gb),
                },
            )
        except BaseException:
            self._log.close()
            raise

    @property
    def host(self) -> str:
        """`127.0.0.1:PORT`, as FIRESTORE_EMULATOR_HOST and PUBSUB_EMULATOR_HOST want it."""
        return f"127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        """Whether the process is there (it may be paused, or not ready yet)."""
        return self._process.poll() is None

    def ready(self, *, timeout: float = _READY_SECONDS) -> Self:
        """Wait until it answers; if it does not within `timeout` seconds, stop it and raise `StartFailed`."""
        deadline = time.monotonic() + timeout
        while not self._answers():
            if not self.running or time.monotonic() > deadline:
                what = "is not ready" if self.running else f"ended with status {self._process.returncode}"
                text = f"The {self.product} emulator on {self.host} {what}; its log ends:\n{self.log_tail()}"
                self.stop()
                raise StartFailed(text)
            time.sleep(_POLL_SECONDS)
        return self

    def log_tail(self) -> str:
        """The end of what it printed."""
        # pread, because the file's offset is shared with the process that writes it.
        size = os.fstat(self._log.fileno()).st_size
        tail = os.pread(self._log.fileno(), _LOG_TAIL_BYTES, max(0, size - _LOG_TAIL_BYTES))
        return tail.decode(errors="replace")

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers, as when a region hangs."""
        # Not SIGSTOP, which would stop the watching shell too: a paused emulator must not outlive us either.
        os.killpg(self._process.pid, signal.SIGTSTP)

    def resume(self) -> None:
        """Let a paused one go on where it was."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Kill it and wait until its port is closed; its data is gone. Stopping again does nothing."""
        if self._log.closed:
            return
        # The leader is not reaped before this, so the group's id is still this group's.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()
        self._log.close()
        deadline = time.monotonic() + _STOP_SECONDS
        while self._listens() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _answers(self) -> bool:
        try:
            self._http("GET", "/", timeout=2)
        except Transient:
            return False
        return True

    def _http(self, method: str, path: str, *, timeout: float = 30) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Transient(f"The {self.product} emulator on {self.host} does not answer: {error}") from error
        finally:
            connection.close()
        if response.status != http.client.OK:
            text = answer.decode(errors="replace")
            raise FirefleetError(
                f"The {self.product} emulator on {self.host} refused {method} {path}: {response.status} {text}"
            )
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class FirestoreEmulator(Emulator):
    """The Firestore emulator: any number of projects and databases, none of which need creating.

    With a `functions_emulator` address it POSTs an event there for every change under a registered trigger
    (`workers.runtime.triggers.register_trigger`).
    """

    product = "Firestore"

    @classmethod
    def launch(cls, *, port: int = 0, functions_emulator: str | None = None, heap_gb: int = HEAP_GB) -> Self:
        """Start it without waiting; port 0 is any free one. `functions_emulator` is a `host:port`."""
        found = programs()
        command = [str(found.firestore), "start"]
        if functions_emulator is not None:
            command.append(f"--functions_emulator={functions_emulator}")
        return cls(command, port=port or free_port(), java=found.java, heap_gb=heap_gb)

    @classmethod
    def start(
        cls, *, port: int = 0, functions_emulator: str | None = None, timeout: float = _READY_SECONDS
    ) -> Self:
        """Start it and wait until it answers. Raises `Missing` or `StartFailed`."""
        return cls.launch(port=port, functions_emulator=functions_emulator).ready(timeout=timeout)

    def reset(self, project: str, database: str) -> None:
        """Forget all documents of one database."""
        self._http("DELETE", f"/emulator/v1/projects/{project}/databases/{database}/documents")


class PubsubEmulator(Emulator):
    """The Pub/Sub emulator: any number of projects; it ignores subscriptions' filters."""

    product = "Pub/Sub"

    @classmethod
    def launch(cls, *, port: int = 0, heap_gb: int = HEAP_GB) -> Self:
        """Start it without waiting; port 0 is any free one."""
        found = programs()
        return cls([str(found.pubsub)], port=port or free_port(), java=found.java, heap_gb=heap_gb)

    @classmethod
    def start(cls, *, port: int = 0, timeout: float = _READY_SECONDS) -> Self:
        """Start it and wait until it answers. Raises `Missing` or `StartFailed`."""
        return cls.launch(port=port).ready(timeout=timeout)
