"""What all commands share: `--config` and `--log-level` anywhere, suggestions, and one way to end.

An option of `firefleet` may stand before or after any command and sub-command; the last one counts. Click
parses: each command gets the same two options when it is looked up.
"""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from workers.runtime.ending import end, open_missing_streams
from workers.runtime.options import NamedOption


def _read_config_from(ctx: click.Context, _param: click.Parameter, path: Path | None) -> None:
    if path is not None:
        # Not at the top: with the configuration's models it is most of what `--help` would wait for.
        from workers.config import ConfigFile  # noqa: PLC0415

        ctx.obj = ConfigFile(path)


def _log_from(ctx: click.Context, _param: click.Parameter, level: str | None) -> None:
    if level is not None:
        from workers import logs  # noqa: PLC0415 - see above

        handler = logs.configure(level, project=os.environ.get("GOOGLE_CLOUD_PROJECT"))
        ctx.call_on_close(lambda: logging.getLogger().removeHandler(handler))


def shared_options(*, top: bool = False) -> list[click.Option]:
    """The options of `firefleet` itself (`top`), and the same for a command: without default or variable."""
    return [
        NamedOption(
            ["--config"],
            type=click.Path(path_type=Path),
            envvar="FIREFLEET_CONFIG" if top else None,
            default="fleet.yaml" if top else None,
            show_default=top,
            show_envvar=top,
            expose_value=False,
            callback=_read_config_from,
            help="The fleet's configuration; - reads standard input." if top else "See firefleet --help.",
        ),
        NamedOption(
            ["--log-level"],
            type=click.Choice(["debug", "info", "warning", "error"]),
            envvar="FIREFLEET_LOG_LEVEL" if top else None,
            default="info" if top else None,
            show_default=top,
            show_envvar=top,
            expose_value=False,
            callback=_log_from,
            help="Log to standard error from this level up." if top else "See firefleet --help.",
        ),
    ]


def _with_shared_options(command: click.Command) -> click.Command:
    has = {option for param in command.params for option in param.opts}
    command.params += [option for option in shared_options() if option.opts[0] not in has]
    return command


class CommandGroup(click.Group):
    """A group whose commands all take the shared options, and which knows what was probably meant."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = self.find_command(ctx, cmd_name)
        return None if command is None else _with_shared_options(command)

    def find_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, as it is without the shared options."""
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            # click suggests among the commands that are loaded.
            raise click.NoSuchCommand(
                error.command_name, possibilities=self.list_commands(ctx), ctx=ctx
            ) from error

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            takers = [name for name, each in self.commands.items() if _takes(each, error.option_name)]
            if not takers:
                raise
            text = f"{error.option_name} comes after the sub-command: {ctx.command_path} {' or '.join(takers)}"
            raise click.UsageError(text, ctx) from error


def _takes(command: click.Command, option: str) -> bool:
    return any(option in param.opts for param in command.params)


class CommandLine(CommandGroup):
    """The outermost group: runs a command and ends the process as `workers.runtime.ending` says."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        arguments = sys.argv[1:] if args is None else list(args)

        def run() -> Any:
            return super(CommandLine, self).main(
                arguments, prog_name, complete_var, standalone_mode=False, **extra
            )

        if not standalone_mode:
            return run()
        open_missing_streams()
        # Looked for here and not in what click parsed: the error to report may be a mistake in the arguments.
        sys.exit(end(run, as_json="--json" in arguments))
