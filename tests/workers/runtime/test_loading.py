"""What a configuration says by itself: findings, and the refusal to start with what fails."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from replication.configuration.analytics import Analytics, parse_analytics
from replication.configuration.findings import Finding, Level
from replication.configuration.parse import Configuration
from replication.configuration.soundness import diagnose_config
from replication.errors import ConfigError
from replication.fleet.model import Fleet, Mode, Replica, Rule
from workers.cli import main
from workers.config import ConfigFile
from workers.runtime.loading import diagnose_surroundings, load_for_work

ROOT = Path(__file__).parents[3]
HOUR_US = 3_600 * 1_000_000
EU = Replica(id="eu", project="p", database="app-eu", location="europe-west1")
CATCH_ALL = Rule(match="{document=**}")
FLEET = Fleet(project="p", topic="changes", secret=b"0123456789abcdef", replicas={"eu": EU}, rules=(CATCH_ALL,))
ANALYTICS = parse_analytics(
    {"types": {"swipe": {"payload": {"target": "string"}}}}, replicas=("eu",), topic="changes"
)
ON_EMULATORS = replace(
    FLEET, pubsub_emulator_host="127.0.0.1:1", replicas={"eu": replace(EU, emulator_host="127.0.0.1:2")}
)
TEXT = """\
project: my-project
topic: changes
secret_file: fleet.secret
replicas: {eu: {database: app-eu, location: europe-west1}}
"""


def about(subject: str, fleet: Fleet, *, analytics: Analytics | None = None) -> Finding:
    configuration = Configuration(fleet, analytics)
    [found] = [each for each in diagnose_config(configuration) if each.subject == subject]
    return found


def written(folder: Path, text: str = TEXT, *, mode: int = 0o600) -> Path:
    path, secret = folder / "fleet.yaml", folder / "fleet.secret"
    secret.write_text("0123456789abcdef")
    secret.chmod(mode)
    path.write_text(text + 'collections: [{match: "{document=**}", mode: multi-primary}]\n')
    return path


def beside(path: Path, **environment: str) -> Mapping[str, Finding]:
    config = ConfigFile(path, environment)
    return {each.subject: each for each in diagnose_surroundings(config.load_all(), config)}


def test_a_fleet_in_the_cloud_needs_a_secret_and_is_warned_of_adding_one_late() -> None:
    found = about("secret_file", replace(FLEET, secret=None))
    assert found.level is Level.FAIL
    assert found.remedy[0].startswith("# only before the first write. On a running fleet every process")
    assert "counts as a conflict" in found.remedy[1]


def test_a_fleet_on_emulators_needs_no_secret_and_is_not_told_to_add_one() -> None:
    found = about("secret_file", replace(ON_EMULATORS, secret=None))
    assert (found.level, found.remedy) == (Level.OK, ())


@pytest.mark.parametrize(
    ("kept_us", "told"),
    [(HOUR_US, "1h"), (36 * HOUR_US, "36h"), (HOUR_US // 120, "30s"), (HOUR_US * 24, "1d")],
)
def test_a_retention_is_told_in_the_unit_it_was_written_in(kept_us: int, told: str) -> None:
    found = about("tombstone_retention", replace(FLEET, tombstone_retention_us=kept_us))
    assert found.level is Level.FAIL
    assert found.text.startswith(f"{told}, but events can come back for 8d ")


@pytest.mark.parametrize("match", ["_repl_conflicts/{id}", "_repl_tombstones/{document=**}"])
def test_a_rule_for_firefleets_own_collections_warns(match: str) -> None:
    found = about(f"collections: {match}", replace(FLEET, rules=(Rule(match=match), CATCH_ALL)))
    assert found.level is Level.WARN
    assert "this rule does nothing" in found.text


def test_analytics_that_a_rule_replicates_fail_with_the_rule_to_add() -> None:
    rules = (Rule(match="orders/{order}"), CATCH_ALL)
    found = about("analytics.collection", replace(FLEET, rules=rules), analytics=ANALYTICS)
    assert found.level is Level.FAIL
    assert found.remedy[-1] == '- {match: "analytics_events/{event}", mode: local}'


def test_the_example_of_the_documentation_is_sound(tmp_path: Path) -> None:
    [example] = re.findall(r"```yaml[^\n]*\n(.*?)```", (ROOT / "ANALYTICS.md").read_text(), re.DOTALL)
    (tmp_path / "fleet.secret").write_text("0123456789abcdef")
    (tmp_path / "fleet.yaml").write_text(example)
    configuration = load_for_work(ConfigFile(tmp_path / "fleet.yaml", {}))
    found = about("analytics.collection", configuration.fleet, analytics=configuration.analytics)
    assert found.level is Level.OK


@pytest.mark.parametrize("match", ["analytics_events/{event}", "analytics_events/{rest=**}", "{document=**}"])
def test_analytics_that_stay_at_their_replica_are_fine(match: str) -> None:
    rules = (Rule(match=match, mode=Mode.LOCAL), CATCH_ALL)
    assert about("analytics.collection", replace(FLEET, rules=rules), analytics=ANALYTICS).level is Level.OK


def test_a_local_rule_after_the_one_that_matches_first_is_no_help() -> None:
    rules = (Rule(match="{any}/{event}"), Rule(match="analytics_events/{event}", mode=Mode.LOCAL), CATCH_ALL)
    found = about("analytics.collection", replace(FLEET, rules=rules), analytics=ANALYTICS)
    assert found.level is Level.FAIL
    assert found.remedy[0].endswith("before the rule for {any}/{event}:")


@pytest.mark.parametrize(
    ("location", "hint"),
    [
        ("europe-wst1", "; did you mean 'europe-west1'?"),
        ("us-centrall1", "us-central1"),
        ("mars", "Google Cloud"),
    ],
)
def test_a_mistyped_location_warns(location: str, hint: str) -> None:
    found = about("eu location", replace(FLEET, replicas={"eu": replace(EU, location=location)}))
    assert found.level is Level.WARN
    assert hint in found.text


@pytest.mark.parametrize(
    "location", ["europe-west12", "northamerica-northeast2", "me-central1", "asia-south1", "nam5", "eur3"]
)
def test_a_regions_or_multi_regions_name_is_fine(location: str) -> None:
    fleet = replace(FLEET, replicas={"eu": replace(EU, location=location)})
    assert not [each for each in diagnose_config(Configuration(fleet)) if each.subject == "eu location"]


@pytest.mark.parametrize(("mode", "level"), [(0o600, Level.OK), (0o400, Level.OK), (0o640, Level.WARN)])
def test_a_secret_that_others_can_read_warns(mode: int, level: Level, tmp_path: Path) -> None:
    found = beside(written(tmp_path, mode=mode))["secret_file"]
    assert found.level is level
    assert found.remedy == (() if level is Level.OK else (f"chmod 600 {tmp_path}/fleet.secret",))


def test_a_key_that_is_not_in_the_environment_warns(tmp_path: Path) -> None:
    section = (
        "analytics:\n  types: {swipe: {payload: {target: string}}}\n"
        "  warehouse: {topic: copies, key_env: ANALYTICS_KEY}\n"
    )
    path = written(tmp_path, TEXT + section)
    found = beside(path)["analytics.warehouse.key_env"]
    assert found.level is Level.WARN
    assert "ANALYTICS_KEY is not set here" in found.text
    assert "analytics.warehouse.key_env" not in beside(path, ANALYTICS_KEY="0123456789abcdef")


def test_work_starts_with_a_sound_configuration_and_is_refused_with_the_text_of_check(tmp_path: Path) -> None:
    assert load_for_work(ConfigFile(written(tmp_path), {})).fleet.topic == "changes"
    unsound = ConfigFile(written(tmp_path, TEXT + "tombstone_retention: 1h\n"), {})
    with pytest.raises(ConfigError) as refused:
        load_for_work(unsound)
    [failure] = [each for each in diagnose_config(unsound.load_all()) if each.level is Level.FAIL]
    assert str(refused.value) == f"{unsound.path}: tombstone_retention: {failure.text}\n    {failure.remedy[0]}"


@pytest.mark.parametrize(
    "command",
    [["capture", "--port", "0"], ["replicate", "--replica", "eu"], ["analytics", "run", "--replica", "eu"]],
)
def test_no_process_starts_with_what_check_calls_a_failure(command: list[str], tmp_path: Path) -> None:
    path = written(tmp_path, TEXT.replace("secret_file: fleet.secret\n", ""))
    env = {"PUBSUB_EMULATOR_HOST": "", "FIRESTORE_EMULATOR_HOST": ""}
    result = CliRunner().invoke(main, ["--config", str(path), *command], env=env)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"{path}: secret_file: none: whoever may write documents can forge")
    checked = CliRunner().invoke(main, ["--config", str(path), "check", "--offline"], env=env)
    assert checked.exit_code == 1
