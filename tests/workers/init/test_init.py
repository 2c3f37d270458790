"""`firefleet init`: the file it writes is a sound configuration, and nothing that exists is lost."""

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from workers.cli import main
from workers.config import ConfigFile


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "fleet.yaml"


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--config", str(config), *arguments])


def test_check_finds_nothing_wrong_with_what_it_writes(config: Path) -> None:
    assert run(config, "init").exit_code == 0
    checked = run(config, "check", "--offline")
    assert checked.exit_code == 0, checked.output
    assert "warn" not in checked.stdout
    assert "fail" not in checked.stdout
    assert [*ConfigFile(config, environment={}).load().replicas] == ["eu", "us", "apac"]


def test_the_secret_is_the_owners_alone_is_used_and_not_printed(config: Path) -> None:
    result = run(config, "init")
    secret = config.parent / "fleet.secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    text = secret.read_text().strip()
    assert len(bytes.fromhex(text)) == 32
    assert ConfigFile(config, environment={}).load().secret == text.encode()
    assert text not in result.output
    assert "fleet.secret >> " in result.output


def test_project_and_replicas_are_the_given_ones(config: Path) -> None:
    replicas = ("--replica", "north=(default)@eur3", "--replica", "no=app-no@europe-north1")
    assert run(config, "init", "--project", "my-shop", *replicas).exit_code == 0
    fleet = ConfigFile(config, environment={}).load()
    assert fleet.project == "my-shop"
    found = {each.id: (each.database, each.location) for each in fleet.replicas.values()}
    assert found == {"north": ("(default)", "eur3"), "no": ("app-no", "europe-north1")}
    assert fleet.rule_for("wallets/1").primary == "north"


def test_an_existing_file_is_kept_without_force_and_a_secret_always(config: Path) -> None:
    config.write_text("mine")
    refused = run(config, "init")
    assert (refused.exit_code, config.read_text()) == (2, "mine")
    assert "--force" in refused.stderr
    assert not (config.parent / "fleet.secret").exists()
    assert run(config, "init", "--force").exit_code == 0
    secret = (config.parent / "fleet.secret").read_text()
    again = run(config, "init", "--force")
    assert "kept" in again.stdout
    assert (config.parent / "fleet.secret").read_text() == secret


def test_a_dash_prints_the_file_and_writes_nothing(config: Path) -> None:
    result = run(config, "init", "-o", "-")
    assert "replicas:\n  eu: {database: app-eu" in result.stdout
    assert [*config.parent.iterdir()] == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--project", "Mine"), "--project: 'Mine' cannot be used here"),
        (("--replica", "eu"), "--replica: 'eu' is not ID=DATABASE@LOCATION"),
        (("--replica", "EU=a@b1"), "--replica: 'EU' cannot be used here; a replica's id"),
        (("--replica", "eu=app@x", "--replica", "eu=app2@x1"), "--replica: 'x' cannot be used here"),
        (("--replica", "eu=a@x1", "--replica", "eu=b@x1"), "two replicas have the id 'eu'"),
        (("--replica", "eu=a@x1", "--replica", "us=a@x1"), "two replicas have the database 'a'"),
        (("--output", "absent/fleet.yaml"), "absent/fleet.yaml: cannot write the configuration"),
    ],
)
def test_what_no_fleet_can_have_exits_2_and_writes_nothing(
    config: Path, arguments: tuple[str, ...], told: str
) -> None:
    result = run(config, "init", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr
    assert [*config.parent.iterdir()] == []
