"""The command line whatever it is given: every command and option with hostile values, disks and pipes.

No traceback, an exit code of the contract, and some words.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from replication.errors import FirefleetError, Interrupted
from workers.cli import COMMANDS, main
from workers.local.emulators import programs
from workers.runtime.ending import end
from workers.runtime.so_far import SoFar

FIREFLEET = [sys.executable, "-m", "workers"]
SECONDS = 60
CONFIG = """\
project: my-project
topic: changes
pubsub_emulator_host: 127.0.0.1:1
replicas:
  eu: {database: app-eu, location: europe-west1, emulator_host: "127.0.0.1:1"}
  us: {database: app-us, location: us-central1, emulator_host: "127.0.0.1:1"}
collections:
  - {match: "{document=**}", mode: multi-primary}
"""
HOSTILE = [
    "",
    " ",
    "-",
    "--",
    "/",
    "/dev/null/x",
    "/nonexistent/folder/file",
    "-1",
    "0.5",
    "nan",
    "inf",
    "1e-300",
    "9" * 5_000,
    "ü\u202e\U0001f525",
    "\udcff",
    "a" * 5_000,
    "a\nb",
    "{}[]$(x)`x`;|",
]


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with its words."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


EVERY_COMMAND = dict(commands(main))
EVERY_OPTION = [
    pytest.param(path, option, id=" ".join((*path, option.opts[0])))
    for path, command in EVERY_COMMAND.items()
    for option in command.params
    # Any value of these is right, and runs the whole demo: see test_demo.py.
    if (*path, option.opts[0]) not in {("demo", "--seed"), ("demo", "--without-replication")}
]
NO_CONFIG = ("--config", "/nonexistent/fleet.yaml")
"""So that what survives its option's check goes no further."""


@pytest.fixture(autouse=True)
def _nothing_runs_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a value names as a file is made in a folder of its own; without Java no emulator starts."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("JAVA_HOME", "/nonexistent")
    programs.cache_clear()
    yield
    programs.cache_clear()


def run(*arguments: str, **options: object) -> Result:
    return CliRunner().invoke(main, arguments, **options)  # type: ignore[arg-type]


def required(command: click.Command, *, but: click.Parameter | None = None) -> list[str]:
    """The options without which it does not start."""
    needed = [param for param in command.params if param.required and param is not but]
    return [
        word for param in needed for word in ((param.opts[0], "eu") if param.opts[0][0] == "-" else ("eu",))
    ]


def takes_json(command: click.Command) -> bool:
    return any("--json" in param.opts for param in command.params)


def assert_ended_well(result: Result) -> None:
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code in {0, 1, 2, 130}
    assert "Traceback" not in result.output
    assert result.output.strip()


def test_every_command_is_walked() -> None:
    assert {path[0] for path in EVERY_COMMAND} == set(COMMANDS)
    assert len(EVERY_OPTION) > 3 * len(EVERY_COMMAND)


@pytest.mark.parametrize(("path", "option"), EVERY_OPTION)
def test_hostile_values_end_in_words(path: tuple[str, ...], option: click.Parameter, tmp_path: Path) -> None:
    command = EVERY_COMMAND[path]
    for value in (*HOSTILE, str(tmp_path)):
        given = [option.opts[0], value] if option.opts[0].startswith("-") else [value]
        flag = isinstance(option, click.Option) and option.is_flag
        if path == ("demo",) and option.opts[0] in ("--config", "--log-level", "--picture") and not flag:
            given += ["--changes", "0"]  # and does not run
        last = [] if option.opts[0] == "--config" else NO_CONFIG
        assert_ended_well(run(*path, *required(command, but=option), *given, *last, input=""))


@pytest.mark.parametrize("path", list(EVERY_COMMAND), ids=" ".join)
def test_help_is_answered_and_names_the_shared_options(path: tuple[str, ...]) -> None:
    result = run(*path, "--help")
    assert result.exit_code == 0
    assert "--config" in result.stdout
    assert "--log-level" in result.stdout


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.yaml"
    path.write_text(CONFIG)
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        ("--config", "FILE", "check", "--offline"),
        ("check", "--config", "FILE", "--offline"),
        ("check", "--offline", "--config=FILE"),
        ("--config", "/nonexistent", "check", "--offline", "--config", "FILE"),
    ],
)
def test_the_configuration_may_be_named_anywhere_and_the_last_counts(
    config: Path, arguments: Sequence[str]
) -> None:
    result = run(*(each.replace("FILE", str(config)) for each in arguments))
    assert result.exit_code == 0, result.output


def test_a_sub_command_and_its_group_take_it_too() -> None:
    for arguments in (["analytics", *NO_CONFIG, "run"], ["analytics", "run", *NO_CONFIG]):
        result = run(*arguments, "--replica", "eu")
        assert result.exit_code == 2
        assert "/nonexistent/fleet.yaml: cannot read" in result.stderr


def test_the_configuration_is_read_from_standard_input() -> None:
    result = run("check", "--offline", "--json", "--config", "-", input=CONFIG)
    assert result.exit_code == 0, result.output
    wrong = run("check", "--offline", "--config", "-", input="project: [")
    assert wrong.exit_code == 2
    assert wrong.stderr.startswith("standard input:1: this is not YAML")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("replicat",), "'replicate'"),
        (("analytics", "reed"), "'read'"),
        (("check", "--offlin"), "'--offline'"),
        (("analytics", "--replica", "eu"), "analytics run or read"),
    ],
)
def test_what_was_probably_meant_is_said_at_every_level(arguments: Sequence[str], meant: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert meant in result.stderr


@pytest.mark.parametrize("path", [path for path, one in EVERY_COMMAND.items() if takes_json(one)])
def test_errors_are_json_too_where_json_was_asked_for(path: tuple[str, ...], tmp_path: Path) -> None:
    wrong = tmp_path / "fleet.yaml"
    wrong.write_text(CONFIG.replace("topic:", "topik:"))
    for arguments, code in ((["--config", str(wrong)], 2), (["--no-such-option"], 2), (["\udcff"], 2)):
        if path == ("demo",) and arguments[0] == "--config":
            continue  # needs none
        result = run(*path, *required(EVERY_COMMAND[path]), "--json", *arguments)
        [line] = result.stdout.splitlines()
        answer = json.loads(line)
        assert (answer["ok"], answer["exit_code"], result.exit_code) == (False, code, code)
        assert answer["error"]
        assert result.stderr


def test_a_fault_of_the_file_is_a_finding_with_its_line(config: Path) -> None:
    config.write_text(CONFIG.replace("topic:", "topik:"))
    [missing, unknown] = json.loads(run("check", "--json", "--config", str(config)).stdout)["findings"]
    assert (missing["key"], unknown["key"]) == ("topic", "topik")
    assert (unknown["level"], unknown["file"], unknown["line"]) == ("fail", str(config), 2)
    assert unknown["text"].startswith("unknown key 'topik'; did you mean 'topic'?")


@pytest.mark.parametrize(
    ("arguments", "environment", "blamed"),
    [
        (("replicate", "--replica", "eu"), {"PORT": "abc"}, "the variable PORT: 'abc' is not a valid integer"),
        (("replicate", "--replica", "eu", "--threads", "abc"), {}, "'abc' is not a valid integer."),
        (("check",), {"FIREFLEET_LOG_LEVEL": "loud"}, "the variable FIREFLEET_LOG_LEVEL: 'loud' is not one of"),
        (("publish", "--replica", "eu", "--rate", "nan"), {}, "'nan' is not a finite number"),
        (("capture", "--host", "nonexistent.invalid"), {}, "--host: 'nonexistent.invalid' is not an address"),
        (("capture", "--host", "192.0.2.1"), {}, "--host: '192.0.2.1' is not an address of this machine"),
        (("capture", "--host", "a" * 300), {}, "is not an address of this machine"),
    ],
)
def test_a_wrong_value_is_blamed_on_where_it_came_from(
    config: Path, arguments: Sequence[str], environment: dict[str, str], blamed: str
) -> None:
    result = run("--config", str(config), *arguments, env=environment)
    assert result.exit_code == 2, result.output
    assert blamed in result.stderr


@pytest.mark.parametrize("name", ["nonexistent/p.svg", "."])
def test_a_file_that_cannot_be_written_is_found_before_the_work(name: str, tmp_path: Path) -> None:
    for command in (["demo", "--picture"], ["publish", "--replica", "eu", "--analytics", "--manifest"]):
        result = run(*command, str(tmp_path / name))
        assert result.exit_code == 2
        assert result.stderr.startswith(f"{command[-1]}: cannot write '{tmp_path / name}' (")


def test_a_file_that_is_there_is_not_touched_by_looking(tmp_path: Path) -> None:
    there, new = tmp_path / "there", tmp_path / "new"
    there.write_text("kept")
    for path in (there, new):
        assert run("publish", "--replica", "eu", "--manifest", str(path), *NO_CONFIG).exit_code == 2
    assert there.read_text() == "kept"
    assert not new.exists()


def process(arguments: Sequence[str], *, config: Path, shell: str = "") -> "subprocess.CompletedProcess[str]":
    """A real process; `shell` is what follows it on a shell's line: where its streams go."""
    line = 'exec "$@" ' + shell if "|" not in shell else '"$@" ' + shell
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line, "bash", *FIREFLEET, "--config", str(config), *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


PRINTING = [
    pytest.param(("check", "--offline"), id="check"),
    pytest.param(("check", "--offline", "--json"), id="check --json"),
    pytest.param(("check", "--schema"), id="check --schema"),
    pytest.param(("provision",), id="provision"),
    pytest.param(("--help",), id="help"),
]


@pytest.mark.parametrize("arguments", PRINTING)
def test_a_full_disk_ends_in_one_line(arguments: Sequence[str], config: Path) -> None:
    done = process(arguments, config=config, shell="> /dev/full")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    expected = (
        "no Pub/Sub emulator" if arguments == ("provision",) else "cannot write the output: No space left"
    )
    assert expected in done.stderr


@pytest.mark.parametrize("arguments", PRINTING)
def test_a_reader_that_has_gone_is_no_news(arguments: Sequence[str], config: Path) -> None:
    done = process(arguments, config=config, shell="| true")
    assert done.returncode in {0, 1}  # 0 where everything was written before the reader went
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize("shell", ["2> /dev/full", "2>&-", "<&- >&- 2>&-", "2>&1 | true"])
def test_standard_error_that_takes_nothing_changes_no_exit_code(shell: str, config: Path) -> None:
    done = process(("check", "--config", "/nonexistent"), config=config, shell=shell)
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr


def test_standard_output_that_is_closed_is_an_error_and_not_a_success(config: Path) -> None:
    done = process(("check", "--offline"), config=config, shell=">&-")
    assert done.returncode == 1
    assert done.stderr == "cannot write the output: Bad file descriptor\n"


def test_what_an_encoding_cannot_show_gets_a_question_mark(config: Path) -> None:
    config.write_text(CONFIG.replace("- {match", "- {match: 'größe/{x}', mode: local}\n  - {match"))
    done = subprocess.run(
        [*FIREFLEET, "check", "--offline", "--config", str(config)],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_ctrl_c_ends_the_demo_with_130_and_one_line_that_says_how_far_it_was() -> None:
    demo = subprocess.Popen(
        [*FIREFLEET, "demo", "--backend", "memory", "--changes", "2000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert demo.stdout is not None
        while "writes" not in (line := demo.stdout.readline()):
            assert line, "it ended by itself"
        demo.send_signal(signal.SIGINT)
        _, errors = demo.communicate(timeout=SECONDS)
    finally:
        demo.kill()
    assert demo.returncode == 130
    assert errors.strip().startswith("interrupted after ")
    assert "writes done; nothing is left running" in errors
    assert "Traceback" not in errors


def interrupted() -> None:
    raise KeyboardInterrupt


def aborted_by_ctrl_c() -> None:
    raise click.Abort from KeyboardInterrupt()


def declined() -> None:
    raise click.Abort


def full() -> None:
    raise OSError(28, "No space left on device")


def no_such_file() -> None:
    raise FileNotFoundError(2, "No such file or directory", "a/b")


def reader_gone() -> None:
    raise BrokenPipeError


@pytest.mark.parametrize(
    ("work", "code", "text"),
    [
        (interrupted, 130, "interrupted; nothing is left running\n"),
        (aborted_by_ctrl_c, 130, "interrupted; nothing is left running\n"),
        (declined, 1, "aborted: nothing was done\n"),
        (full, 1, "cannot write the output: No space left on device\n"),
        (no_such_file, 1, "a/b: No such file or directory\n"),
        (reader_gone, 1, ""),
    ],
)
def test_each_end_has_its_code_and_words(
    work: object, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end(work, as_json=False) == code  # type: ignore[arg-type]
    assert capsys.readouterr().err == text


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        end(lambda: 1 / 0, as_json=False)


def test_publishing_that_ends_early_says_how_much_was_published() -> None:
    so_far = SoFar(1_000, "change")
    said = "interrupted: 312 of 1,000 changes published and confirmed"
    so_far.confirm(312)
    with pytest.raises(Interrupted, match=said), so_far.in_errors():
        raise KeyboardInterrupt
    said = "Pub/Sub is away; 312 of 1,000 changes had been"
    with pytest.raises(FirefleetError, match=said), so_far.in_errors():
        raise FirefleetError("Pub/Sub is away")


def test_where_no_pubsub_answers_the_start_command_is_named_within_seconds(config: Path) -> None:
    start = "gcloud beta emulators pubsub start --host-port=127.0.0.1:1 --project=my-project"
    for arguments in (["provision"], ["publish", "--replica", "eu"], ["check"]):
        result = run(*arguments, "--config", str(config))
        assert result.exit_code == 1
        assert start in result.output
