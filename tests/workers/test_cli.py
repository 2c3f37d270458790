"""The command line: its help, its exit codes, what it reads, and its log lines."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.polling import PATIENCE_S
from workers import logs
from workers.cli import COMMANDS, main
from workers.config import ConfigFile

GOOD = """\
project: my-project
topic: changes
secret_file: fleet.secret
replicas:
  eu: {database: app-eu, location: europe-west1}
collections:
  - {match: "orders/{order}", mode: multi-primary, conflict: {policy: last-write-wins}}
  - {match: "{document=**}", mode: local}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.yaml"
    path.write_text(GOOD)
    (tmp_path / "fleet.secret").write_text("0123456789abcdef\n")
    return path


def run(*arguments: str | Path, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments], env=env)


def with_policy(config: Path, name: str) -> None:
    config.write_text(GOOD.replace("policy: last-write-wins", f'policy: "custom: {name}"'))


def test_help_names_every_command_and_imports_none_of_them() -> None:
    script = (
        "import sys; from workers.cli import main\n"
        "try: main(['--help'])\n"
        "finally: print(sorted(m for m in sys.modules if m.startswith(('workers.', 'google', 'pydantic'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
    light = [
        "workers.cli",
        "workers.runtime",
        "workers.runtime.command_line",
        "workers.runtime.ending",
        "workers.runtime.options",
    ]
    assert str(light) in done.stdout


def test_the_version_is_the_distributions() -> None:
    assert run("--version").output.startswith("firefleet 0.")


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("check", "--nonsense"), ("--log-level", "loud", "check")]
)
def test_a_wrong_command_line_exits_2(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


def test_a_missing_file_exits_2_with_the_remedy_and_no_traceback(tmp_path: Path) -> None:
    result = run("--config", tmp_path / "absent.yaml", "check", "--offline")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"{tmp_path}/absent.yaml: cannot read the configuration (No such file or directory); "
        "name the file with --config or FIREFLEET_CONFIG\n"
    )


def test_mistakes_of_the_file_exit_2_a_line_each(config: Path) -> None:
    config.write_text(GOOD.replace("topic", "topik").replace("mode: local", "mode: lokal"))
    result = run("--config", config, "check", "--offline")
    assert (result.exit_code, result.stdout) == (2, "")
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == [
        "topic",
        "topik",
        "collections.1.mode",
    ]


def test_a_file_that_is_no_text_exits_2(config: Path) -> None:
    config.write_bytes(b"project: \xff")
    result = run("--config", config, "check", "--offline")
    assert result.exit_code == 2
    assert "not text in UTF-8 (invalid start byte); save it as UTF-8" in result.stderr


def test_the_variable_names_the_file_and_the_option_wins(config: Path, tmp_path: Path) -> None:
    assert run("check", "--offline", env={"FIREFLEET_CONFIG": str(config)}).exit_code == 0
    absent = str(tmp_path / "absent.yaml")
    assert run("check", "--offline", env={"FIREFLEET_CONFIG": absent}).exit_code == 2
    assert run("--config", config, "check", "--offline", env={"FIREFLEET_CONFIG": absent}).exit_code == 0


def test_missing_credentials_exit_2_with_the_remedy(config: Path, tmp_path: Path) -> None:
    """Without a metadata server, a home folder or a key there is nobody to be."""
    env = {"GOOGLE_APPLICATION_CREDENTIALS": "", "CLOUDSDK_CONFIG": str(tmp_path), "NO_GCE_CHECK": "true"}
    result = run("--config", config, "provision", env=env)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert "`gcloud auth application-default login`" in result.stderr


def test_missing_credentials_do_not_hide_what_the_configuration_says(config: Path, tmp_path: Path) -> None:
    env = {"GOOGLE_APPLICATION_CREDENTIALS": "", "CLOUDSDK_CONFIG": str(tmp_path), "NO_GCE_CHECK": "true"}
    result = run("--config", config, "check", "--json", env=env)
    assert result.exit_code == 2, result.output
    found = {each["subject"]: each for each in json.loads(result.stdout)["findings"]}
    assert found["config"]["level"] == "ok"
    assert "`gcloud auth application-default login`" in found["Google Cloud"]["text"]


def test_the_secret_is_found_beside_the_file(config: Path) -> None:
    assert ConfigFile(config).load().secret == b"0123456789abcdef"


def test_the_emulators_variables_stand_in_for_what_the_file_does_not_name(config: Path) -> None:
    environment = {"PUBSUB_EMULATOR_HOST": "localhost:1", "FIRESTORE_EMULATOR_HOST": "[::1]:2"}
    fleet = ConfigFile(config, environment).load()
    assert (fleet.pubsub_emulator_host, fleet.replica("eu").emulator_host) == ("localhost:1", "[::1]:2")
    named = GOOD.replace("europe-west1}", 'europe-west1, emulator_host: "localhost:3"}')
    config.write_text("pubsub_emulator_host: localhost:4\n" + named)
    for variables in (environment, {}):
        fleet = ConfigFile(config, variables).load()
        assert (fleet.pubsub_emulator_host, fleet.replica("eu").emulator_host) == ("localhost:4", "localhost:3")


@pytest.mark.parametrize("variable", ["PUBSUB_EMULATOR_HOST", "FIRESTORE_EMULATOR_HOST"])
@pytest.mark.parametrize(
    "command", [["check", "--offline"], ["provision"], ["capture"], ["replicate", "--replica", "eu"]]
)
def test_a_mix_of_emulators_and_the_cloud_is_refused_before_anything_opens(
    variable: str, command: list[str], config: Path
) -> None:
    env = {"PUBSUB_EMULATOR_HOST": "", "FIRESTORE_EMULATOR_HOST": "", variable: "127.0.0.1:1"}
    result = run("--config", config, *command, env=env)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"{config}: emulators and the cloud are mixed: ")
    assert "(127.0.0.1:1) is on an emulator" in result.stderr


def test_an_emulators_variable_that_is_no_address_is_named(config: Path) -> None:
    result = run("--config", config, "check", "--offline", env={"FIRESTORE_EMULATOR_HOST": "http://x:1"})
    assert result.exit_code == 2
    assert result.stderr.startswith("FIRESTORE_EMULATOR_HOST: 'http://x:1' is not an address; write host:port")


def test_an_unknown_event_type_is_named_with_the_known_ones(config: Path) -> None:
    section = "analytics: {types: {swipe: {payload: {}}, view: {payload: {}}}}\n"
    config.write_text(GOOD + section)
    result = run("--config", config, "analytics", "read", "--replica", "eu", "--type", "nope")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "--type: no event type 'nope' in the configuration; choose one of swipe, view\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_package:merge", "importing 'no_such_package' failed (ModuleNotFoundError: No module named"),
        ("shop_broken:merge", "importing 'shop_broken' failed (ZeroDivisionError: division by zero)"),
        ("shop_policies:absent", "'shop_policies' has no 'absent'; name a function of that module"),
        (
            "shop_policies:NUMBER",
            "'shop_policies:NUMBER' is not a function; name one that takes two candidates",
        ),
        ("shop_policies:Class", "'shop_policies:Class' is not a function;"),
    ],
)
def test_a_custom_policy_that_cannot_be_loaded_names_line_and_remedy(
    name: str, message: str, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "shop_broken.py").write_text("1 / 0\n")
    (tmp_path / "shop_policies.py").write_text("NUMBER = 5\nclass Class: pass\n")
    with_policy(config, name)
    result = run("--config", config, "check", "--offline")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{config}:7: collections.0.conflict.policy: {message}")


def test_a_custom_policy_is_a_function_or_a_ready_policy(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "shop_good.py").write_text(
        "from conflict import LastWriteWins\ndef decide(a, b): return a\nready = LastWriteWins()\n"
    )
    with_policy(config, "shop_good:decide")
    assert ConfigFile(config).load().rules[0].policy.name == "custom: shop_good:decide"
    with_policy(config, "shop_good:ready")
    assert ConfigFile(config).load().rules[0].policy.name == "last-write-wins"


def record(**extra: object) -> logging.LogRecord:
    made = logging.LogRecord("workers.x", logging.WARNING, "x.py", 1, "wrote %s", ("eu",), None)
    made.__dict__.update(extra)
    return made


def test_a_log_line_is_one_json_object_with_cloud_loggings_names() -> None:
    line = logs.CloudLoggingFormatter().format(record(replica="eu", count=3))
    fields = json.loads(line)
    assert "\n" not in line
    assert fields.pop("time").endswith("+00:00")
    assert fields == {
        "severity": "WARNING",
        "message": "wrote eu",
        "logger": "workers.x",
        "replica": "eu",
        "count": 3,
    }


def test_an_exception_is_a_field_of_its_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        line = logs.CloudLoggingFormatter().format(record(exc_info=sys.exc_info()))
    assert "\n" not in line
    assert "ValueError: broken" in json.loads(line)["exception"]


@pytest.mark.parametrize(("project", "prefix"), [("p", "projects/p/traces/"), (None, "")])
def test_a_trace_context_ties_the_line_to_its_trace(project: str | None, prefix: str) -> None:
    made = record(traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
    fields = json.loads(logs.CloudLoggingFormatter(project).format(made))
    assert fields["logging.googleapis.com/trace"] == prefix + "a" * 32
    assert fields["logging.googleapis.com/spanId"] == "b" * 16
    broken = json.loads(logs.CloudLoggingFormatter(project).format(record(traceparent="nonsense")))
    assert "logging.googleapis.com/trace" not in broken


def test_log_lines_go_to_standard_error_once_from_the_level_up_and_libraries_only_warn() -> None:
    script = (
        "import logging; from workers import logs\n"
        "logs.configure('debug'); logs.configure('info')\n"
        "logging.getLogger('workers.a').debug('no'); logging.getLogger('replication.b').info('yes')\n"
        "logging.getLogger('library').info('no'); logging.getLogger('library').warning('yes')\n"
        "print('output')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    assert done.stdout == "output\n"
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["logger"], line["message"]) for line in lines] == [
        ("replication.b", "yes"),
        ("library", "yes"),
    ]


def test_a_command_leaves_no_log_handler_behind(config: Path) -> None:
    before = list(logging.getLogger().handlers)
    assert run("--config", config, "check", "--offline").exit_code == 0
    assert logging.getLogger().handlers == before
