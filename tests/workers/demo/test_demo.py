"""`firefleet demo`: that it ends equal, that its proof can fail, and that its parts tell the truth."""

import json
import math
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import Counter as CounterInstrument
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from rich.console import Console

from conflict.values import Reference
from replication.adapters.otel import OtelTelemetry
from replication.apply.conflict_reader import Record, Side
from replication.metrics import CHANGES, LAG
from replication.verify.compare import differences
from tests.support.polling import PATIENCE_S
from workers.cli import main
from workers.demo.command import choose
from workers.demo.in_memory import EmbeddedFleet
from workers.demo.proof import why
from workers.demo.report import difference_text
from workers.demo.run import Frame, Stage
from workers.demo.shop import ShopWrite, Trade, Verb, Writer, plan_season
from workers.demo.view import LiveView, PlainView
from workers.local.emulators import Missing
from workers.local.meters import Buckets, Flow, Meters
from workers.local.otlp import PATH, build_app
from workers.runtime.serving import ServerThread

REPLICAS = ("eu", "us", "apac")
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\x9b]")


def demo(*options: str) -> Result:
    return CliRunner().invoke(main, ["demo", *options])


def memory_demo(*options: str) -> Result:
    return demo("--backend", "memory", "--changes", "120", *options)


def found(result: Result) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def assert_is_a_real_demonstration(result: Result) -> None:
    """The size the demo promises by default, and its verdict."""
    answer = found(result)
    assert result.exit_code == 0, answer["differences"][:3]
    assert answer["equal"] is True
    holdings = answer["replicas"].values()
    assert len({holding["digest"] for holding in holdings}) == 1
    assert all(holding["documents"] >= 500 for holding in holdings)
    assert answer["writes"]["delete"] >= 20
    assert answer["conflicts"]["total"] >= 20
    assert set(answer["conflicts"]["decided"]) == {"precedence", "field-rules", "last-write-wins"}
    assert answer["dead_letters"] == 0
    pairs = {(flow["source"], flow["target"]) for flow in answer["lag"] if flow["p50_ms"] is not None}
    assert pairs >= {(one, other) for one in REPLICAS for other in REPLICAS if one != other}


def test_the_memory_demo_ends_equal_with_conflicts_and_deletes() -> None:
    assert_is_a_real_demonstration(demo("--backend", "memory", "--json"))


@pytest.mark.emulator
def test_the_emulator_demo_ends_equal_with_conflicts_and_deletes() -> None:
    assert_is_a_real_demonstration(demo("--backend", "emulator", "--json"))


def test_without_replication_the_proof_fails_and_names_the_documents() -> None:
    result = memory_demo("--without-replication", "--json")
    answer = found(result)
    assert result.exit_code == 1
    assert answer["equal"] is False
    assert len({holding["digest"] for holding in answer["replicas"].values()}) == 3
    assert all(difference["path"] and difference["text"] for difference in answer["differences"])


def test_plain_output_says_what_differs_and_has_no_control_codes() -> None:
    result = memory_demo("--without-replication")
    assert result.exit_code == 1
    assert "DIFFERENT" in result.stdout
    assert re.search(r"carts/c\d+ is missing at", result.stdout)
    assert not CONTROL.search(result.stdout)


def test_plain_output_shows_the_course_one_conflict_in_full_and_the_verdict() -> None:
    result = memory_demo()
    assert result.exit_code == 0
    assert not CONTROL.search(result.stdout)
    for part in ("The shop opens", "eu → us", "decided by", "write", "EQUAL", "lag p50"):
        assert part in result.stdout
    assert max(map(len, result.stdout.splitlines()[1:])) <= 110


def test_json_shows_one_conflict_with_both_bodies_the_winner_and_why() -> None:
    example = found(memory_demo("--json"))["conflicts"]["example"]
    assert len(example["sides"]) == 2
    assert all(side["body"] for side in example["sides"])
    assert example["winner"] in {*REPLICAS, "computed"}
    assert example["why"]


def test_auto_takes_the_emulators_where_found_and_says_why_not() -> None:
    def missing() -> None:
        raise Missing("there is no Java")

    assert choose("auto", find=lambda: None)[0] == "emulator"
    assert choose("memory", find=missing)[0] == "memory"
    backend, reason = choose("auto", find=missing)
    assert backend == "memory"
    assert "there is no Java" in reason


# The shop


@settings(deadline=None)
@given(changes=st.integers(30, 400), seed=st.integers())
def test_a_season_is_planned_from_its_seed_alone_and_has_the_size_asked_for(changes: int, seed: int) -> None:
    season = plan_season(REPLICAS, changes=changes, seed=seed)
    assert season == plan_season(REPLICAS, changes=changes, seed=seed)
    assert changes <= len(list(season.writes())) <= changes + 2


@settings(deadline=None)
@given(seed=st.integers())
def test_writes_at_one_moment_are_to_one_document_at_different_replicas(seed: int) -> None:
    for moment in plan_season(REPLICAS, changes=200, seed=seed).trading:
        assert len({write.path for write in moment}) == 1
        assert len({write.replica for write in moment}) == len(moment)


def test_a_writer_that_fails_ends_the_others_too_and_is_the_error_told() -> None:
    class Broken:
        def set(self, path: str, fields: object) -> None:
            raise OSError("the disk is full")

        def update(self, path: str, fields: object) -> None:
            raise OSError("the disk is full")

        def delete(self, path: str) -> None:
            raise OSError("the disk is full")

    season = plan_season(REPLICAS, changes=60, seed=1)
    with EmbeddedFleet(seed=1, replicating=False) as fleet:
        writers: dict[str, Writer] = {"eu": Broken(), "us": fleet.writer("us"), "apac": fleet.writer("apac")}
        trade = Trade([*season.opening, *season.trading], writers)
        with ThreadPoolExecutor(3) as pool:
            errors = [branch.exception(PATIENCE_S) for branch in trade.start(pool)]
    assert isinstance(errors[0], OSError)
    assert errors[1:] == [None, None]


# The meters


@settings(deadline=None)
@given(st.lists(st.floats(0, 90), min_size=1), st.sampled_from([0.5, 0.99]))
def test_a_percentile_is_right_to_within_its_bucket(values: list[float], share: float) -> None:
    buckets = Buckets()
    for value in values:
        buckets.add(value)
    exact = sorted(values)[math.ceil(share * len(values)) - 1]
    quantile = buckets.quantile(share)
    assert quantile is not None
    assert exact / 1.2 - 0.001 <= quantile <= exact * 1.2 + 0.001


def test_no_values_have_no_percentile() -> None:
    assert Buckets().quantile(0.5) is None


@pytest.mark.parametrize("temporality", list(AggregationTemporality)[1:])
def test_metrics_received_over_otlp_are_those_reported(temporality: AggregationTemporality) -> None:
    """Cumulative and delta exports alike, from two processes: nothing is counted twice, nothing is lost."""
    meters = Meters()
    server = ServerThread(build_app(meters.take), name="otlp", grace_s=1)
    server.start()
    try:
        for instance in ("first", "second"):
            telemetry, provider = _exporting(server.url, instance, temporality)
            for _ in range(3):
                telemetry.measure(LAG, 0.2, source="eu", target="us", collection="orders")
                telemetry.count(CHANGES, 2, source="eu", target="us", outcome="applied", collection="orders")
                assert provider.force_flush()
            telemetry.close()
    finally:
        server.stop()
    [flow] = meters.flows()
    assert (flow.source, flow.target) == ("eu", "us")
    assert flow.outcomes == Counter(applied=12)
    assert meters.lag().count == 6
    assert flow.lag_p99 == pytest.approx(0.2, abs=0.11)


def _exporting(
    url: str, instance: str, temporality: AggregationTemporality
) -> tuple[OtelTelemetry, MeterProvider]:
    exporter = OTLPMetricExporter(
        endpoint=url + PATH,
        preferred_temporality={CounterInstrument: temporality, Histogram: temporality},
    )
    provider = MeterProvider(
        metric_readers=[PeriodicExportingMetricReader(exporter, export_interval_millis=60_000)],
        resource=Resource({"service.instance.id": instance}),
        shutdown_on_exit=False,
    )
    return OtelTelemetry(provider), provider


# The proof


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 1.0), (1, True), (0.0, -0.0), ("1", 1), (b"a", "a"), (None, False), ([1, 2], [2, 1])],
)
def test_values_that_python_takes_for_equal_are_differences_if_firestore_tells_them_apart(
    one: object, other: object
) -> None:
    databases = {"eu": {"a/1": {"x": one}}, "us": {"a/1": {"x": other}}}
    [difference] = differences(databases)
    assert difference.path == "a/1"
    assert "x is" in difference_text(difference)


def test_equal_documents_are_no_difference_nan_included() -> None:
    body = {"x": math.nan, "ref": Reference("~/a/2"), "list": [1, {"b": b"\x00"}]}
    assert not list(differences({"eu": {"a/1": body}, "us": {"a/1": dict(body)}, "apac": {"a/1": dict(body)}}))


def test_a_document_that_is_missing_somewhere_is_named_with_the_replica() -> None:
    [difference] = differences({"eu": {"a/1": {}}, "us": {"a/1": {}}, "apac": {}})
    assert difference_text(difference) == "a/1 is missing at apac"


def test_why_names_the_order_of_states_even_where_the_earlier_write_stays() -> None:
    sides = (
        Side("e", "eu", 1_000_000, deleted=False, body={"status": "refunded"}),
        Side("u", "us", 1_002_500, deleted=False, body={"status": "approved"}),
    )
    conflict = Record("id", "orders/1", "precedence", "e", datetime.now(UTC), sides)
    text = why(conflict, EmbeddedFleet(seed=1, replicating=False).fleet)
    assert "pending < approved" in text
    assert "us wrote 2.5 ms after eu" in text


# The views


FRAME = Frame(
    "memory",
    7,
    1.5,
    [Stage("The fleet starts", finished=True), Stage("The branches trade", total=10, done=4)],
    [Flow("eu", "us", 0.012, 1.5, Counter(applied=3, conflict=1))],
)


def test_the_live_view_shows_stages_and_lags_on_a_terminal_of_80_columns() -> None:
    screen = StringIO()
    with LiveView(Console(file=screen, force_terminal=True, width=80)) as view:
        view.show(FRAME)
    for part in ("The branches trade", "4 of 10 writes", "eu → us", "12 ms", "1.50 s"):
        assert part in screen.getvalue()


def test_the_picture_shows_the_lags_and_the_verdict_in_at_most_30_lines(tmp_path: Path) -> None:
    picture = tmp_path / "demo.svg"
    assert memory_demo("--picture", str(picture)).exit_code == 0
    drawn = ElementTree.parse(picture).getroot()
    rows: dict[str, str] = {}
    for text in drawn.iter("{http://www.w3.org/2000/svg}text"):
        if "matrix" not in text.get("class", "") and text.get("y"):
            rows[text.get("y", "")] = rows.get(text.get("y", ""), "") + (text.text or "")
    shown = "\n".join(rows.values()).replace("\xa0", " ")
    for part in ("The branches trade", "eu → us", "EQUAL: all", "lag p50"):
        assert part in shown
    assert len(rows) <= 30


def test_the_plain_view_repeats_a_stage_only_every_two_seconds() -> None:
    paper = StringIO()
    view = PlainView(Console(file=paper))
    for seconds in (0.0, 0.5, 1.0, 1.9, 2.1):
        view.show(Frame("memory", 7, seconds, FRAME.stages, FRAME.flows))
    lines = paper.getvalue().splitlines()
    assert [line.split(" s ")[0].strip() for line in lines] == ["0.0", "2.1"]
    assert "4 of 10 writes; 3 applied, 1 conflicts, 0 dead letters" in lines[0]


def test_a_trade_makes_every_write_once() -> None:
    moments = [(ShopWrite("eu", Verb.SET, "a/1", {"n": 1}),), (ShopWrite("eu", Verb.DELETE, "a/1"),)]
    with EmbeddedFleet(seed=1, replicating=False) as fleet:
        trade = Trade(moments, {"eu": fleet.writer("eu")})
        with ThreadPoolExecutor(1) as pool:
            [branch] = trade.start(pool)
            branch.result(PATIENCE_S)
        assert trade.done == 2
        assert fleet.read("eu") == {}
