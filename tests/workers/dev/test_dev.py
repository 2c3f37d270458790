"""`firefleet dev`: what it runs, at which ports, what it shows, and what becomes of a process that dies."""

import socket
import sys
from collections import Counter
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from rich.console import Console

from replication.errors import ConfigError, FirefleetError
from tests.conftest import require_emulators
from workers.cli import main
from workers.config import ConfigFile
from workers.dev.plan import PORT_BASE, Plan, Ports, config_path, layout, plan, prepare_folder
from workers.dev.supervise import RESTARTS_MAX, Supervisor
from workers.dev.view import LiveView, Picture, PlainView, line, picture
from workers.local.emulators import free_port
from workers.local.meters import Flow, Meters
from workers.local.process import Process

CONFIG = """\
project: my-shop
topic: changes
secret_file: fleet.secret
replicas:
  north: {database: app-north, location: europe-north1}
  south: {database: app-south, location: southamerica-east1, project: other-project}
collections:
  - {match: "{document=**}", mode: multi-primary}
analytics:
  topic: clicks
  events: {click: {}}
  warehouse: {topic: warehouse, key_file: pseudonyms.key}
"""
PLAIN = Plan(("eu", "us"), "", None, False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_a_file_it_is_three_plain_replicas(folder: Path) -> None:
    chosen = plan(ConfigFile(Path("fleet.yaml"), environment={}), None)
    assert (chosen.replicas, chosen.config, chosen.analytics) == (("eu", "us", "apac"), None, False)
    assert "no fleet.yaml here" in chosen.origin


def test_a_file_that_is_named_and_missing_is_a_mistake(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml: cannot read"):
        plan(ConfigFile(Path("mine.yaml"), environment={}), None)


def test_the_file_s_fleet_is_taken_with_its_rules_and_its_secret(folder: Path) -> None:
    (folder / "fleet.yaml").write_text(CONFIG.partition("analytics:")[0])
    (folder / "fleet.secret").write_text("0123456789abcdef")
    chosen = plan(ConfigFile(Path("fleet.yaml"), environment={}), None)
    assert chosen.replicas == ("north", "south")
    assert chosen.config is not None
    assert chosen.config["secret_file"] == str(folder / "fleet.secret")
    assert chosen.config["replicas"]["south"]["project"] == "other-project"


def test_the_file_s_mistakes_are_told_as_always(folder: Path) -> None:
    (folder / "fleet.yaml").write_text("project: p\n")
    with pytest.raises(ConfigError, match=r"fleet\.yaml:1: "):
        plan(ConfigFile(Path("fleet.yaml"), environment={}), None)


def test_replicas_named_on_the_command_line_win_over_the_file(folder: Path) -> None:
    (folder / "fleet.yaml").write_text("not even a configuration")
    config = ConfigFile(Path("fleet.yaml"), environment={})
    assert plan(config, "eu, me").replicas == ("eu", "me")
    with pytest.raises(ConfigError, match="names a replica twice"):
        plan(config, "eu,eu")
    with pytest.raises(ConfigError, match="--replicas: 'EU' cannot be used here"):
        plan(config, "EU")


def test_each_process_has_a_port_of_its_own_that_stays() -> None:
    whole = Plan(("eu", "us"), "", None, True)
    names = ("firestore", "pubsub", "capture", "eventarc", "replicate-eu-1", "replicate-us-1", "analytics-us")
    ports = [Ports(PORT_BASE, whole)(name) for name in names]
    assert ports[:2] == [PORT_BASE, PORT_BASE + 1]
    assert len(set(ports)) == len(ports)
    assert ports == [Ports(PORT_BASE, whole)(name) for name in names]
    with pytest.raises(ConfigError, match="leaves no room"):
        Ports(65_533, PLAIN)


def test_a_taken_port_exits_2_and_names_the_option(folder: Path) -> None:
    require_emulators()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(main, ["dev", "--port-base", str(port)])
    assert result.exit_code == 2, result.output
    assert f"--port-base: port {port}, for the Firestore emulator, cannot be used" in result.stderr
    assert "Traceback" not in result.output


def test_two_port_ranges_have_two_configurations_in_a_folder_that_git_ignores(folder: Path) -> None:
    assert config_path(PORT_BASE) == Path(".firefleet/dev.yaml")
    assert config_path(9000) == Path(".firefleet/dev-9000.yaml")
    prepare_folder()
    prepare_folder()
    assert (folder / ".firefleet" / ".gitignore").read_text() == "*\n"


def test_all_replicas_share_one_emulator_so_that_one_variable_is_enough() -> None:
    arranged = layout(PLAIN, Ports(PORT_BASE, PLAIN), path=Path("dev.yaml"), environment={})
    assert arranged.emulators == "one"
    assert arranged.port("firestore") == PORT_BASE


@dataclass
class MadeUpEmulator:
    running: bool = True
    product: str = "Firestore"
    host: str = "127.0.0.1:8700"

    def __hash__(self) -> int:
        return id(self)

    def log_tail(self) -> str:
        return "java.lang.OutOfMemoryError"


@dataclass
class MadeUpFleet:
    processes: list[Process]
    pubsub: MadeUpEmulator = field(default_factory=lambda: MadeUpEmulator(product="Pub/Sub"))
    emulators: dict[str, MadeUpEmulator] = field(default_factory=lambda: {"eu": MadeUpEmulator()})


@dataclass
class Watched:
    """A supervisor of one real process."""

    process: Process
    fleet: MadeUpFleet = field(init=False)
    said: list[str] = field(default_factory=list)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.fleet = MadeUpFleet([self.process])
        self.supervisor = Supervisor(self.fleet, say=self.said.append, now=lambda: self.now)  # type: ignore[arg-type]

    def die(self) -> None:
        self.process.kill()
        self.supervisor.look()


@pytest.fixture
def watched(tmp_path: Path) -> "Watched":
    port = free_port()
    script = (
        "import http.server, sys\n"
        "print('here I am', flush=True)\n"
        f"http.server.HTTPServer(('127.0.0.1', {port}), http.server.SimpleHTTPRequestHandler).serve_forever()"
    )
    process = Process("worker", [sys.executable, "-c", script], health=f"http://127.0.0.1:{port}/")
    return Watched(process.ready())


def test_a_process_that_dies_is_started_again_and_its_log_is_shown(watched: Watched) -> None:
    with watched.process:
        watched.supervisor.look()
        assert watched.said == []
        watched.die()
        assert watched.process.running
        assert watched.said[0].startswith("worker ended with status -9; its log ends:\n  here I am")
        assert watched.said[1] == "worker runs again"


def test_a_process_that_dies_again_and_again_ends_the_fleet(watched: Watched) -> None:
    with watched.process:
        for _ in range(RESTARTS_MAX):
            watched.die()
        with pytest.raises(FirefleetError, match=r"here I am[^\0]*within a minute: giving up"):
            watched.die()


def test_deaths_that_are_far_apart_do_not_end_it(watched: Watched) -> None:
    with watched.process:
        for _ in range(RESTARTS_MAX + 2):
            watched.now += 100.0
            watched.die()
        assert watched.process.running


def test_a_dead_emulator_ends_the_fleet_with_its_log(watched: Watched) -> None:
    with watched.process:
        watched.fleet.emulators["eu"].running = False
        with pytest.raises(
            FirefleetError, match=r"Firestore emulator [^\0]* its documents are gone[^\0]*OutOfMemory"
        ):
            watched.supervisor.look()


def flow(source: str, target: str, lag: float | None, **outcomes: int) -> Flow:
    return Flow(source, target, lag, lag, Counter(outcomes))


SOME = Picture(
    12.4, [flow("eu", "us", 0.06, applied=3, conflict=1), flow("us", "eu", None)], 2, Counter(eu=1, us=4)
)


def test_every_pair_is_shown_from_the_start() -> None:
    meters = Meters()
    meters.count("firefleet.changes", 2, source="eu", target="us", collection="c", outcome="applied")
    meters.gauge("firefleet.inflight", 3, target="us")
    seen = picture(meters, ["eu", "us"], seconds=1, waiting=0)
    assert [(one.source, one.target, one.outcomes["applied"]) for one in seen.flows] == [
        ("eu", "us", 2),
        ("us", "eu", 0),
    ]
    assert seen.held == Counter(us=3)


def test_gauges_arrive_over_otlp() -> None:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="firefleet.inflight")
    point = metric.gauge.data_points.add(as_double=5.0)
    point.attributes.add(key="target").value.string_value = "us"
    meters = Meters()
    meters.take(request)
    assert meters.held() == Counter(us=5)


def test_a_line_says_what_the_table_does() -> None:
    assert line(SOME) == (
        "12 s: applied 3, conflicts 1, dead letters 0; events waiting for capture 2, "
        "messages held by workers 5; lag p50/p99: eu→us 60 ms/60 ms"
    )


def test_plain_lines_come_with_changes_and_not_more_often_than_they_can_be_read() -> None:
    out = StringIO()
    view = PlainView(Console(file=out, width=80))
    for seconds, applied in ((0, 0), (1, 1), (2, 2), (30, 2), (60, 2)):
        pictured = Picture(
            seconds,
            [flow("eu", "us", 0.1, applied=applied) if applied else flow("eu", "us", None)],
            0,
            Counter(),
        )
        view.show(pictured)
    assert [each.partition(":")[0] for each in out.getvalue().splitlines()] == ["1 s", "30 s"]


def test_the_table_fits_80_columns() -> None:
    out = StringIO()
    with LiveView(Console(file=out, width=80, force_terminal=True, color_system=None)) as view:
        view.show(SOME)
        view.say("worker runs again")
    assert "worker runs again" in out.getvalue()
    assert "dead letters" in out.getvalue()
    assert "messages held by workers 5" in out.getvalue()
