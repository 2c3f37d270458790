"""Option types that the commands share; their errors use a user's words."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from replication.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])


class NamedOption(click.Option):
    """An option that blames its variable where the wrong value came from there."""

    def get_error_hint(self, ctx: click.Context | None) -> str:
        from_variable = click.core.ParameterSource.ENVIRONMENT
        if ctx is not None and self.name and ctx.get_parameter_source(self.name) is from_variable:
            return f"the variable {self.envvar}"
        return super().get_error_hint(ctx)


class Whole(click.IntRange):
    """A whole number; unlike click's own, it is not called a "valid integer range"."""

    name = "integer"


class Number(click.FloatRange):
    """A finite number."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


def is_text(value: str) -> bool:
    """Whether an argument is text; one that is not UTF-8 reaches Python with surrogates, which no one takes."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


class Name(click.ParamType[str]):
    """Text that a database or topic may be asked for."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not is_text(str(value)):
            self.fail(f"{value!r} is not UTF-8.", param, ctx)
        return str(value)


class OutputFile(click.Path):
    """A file to write at the end of long work; whether it can be written is checked before."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        try:
            _try_to_write(path)
        except (OSError, ValueError) as error:
            option = param.opts[0] if param else "the file"
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"{option}: cannot write '{path}' ({reason}); name a file in a folder of yours"
            ) from error
        return path


def _try_to_write(path: Path) -> None:
    """Raise the `OSError` that writing would; leaves what there is as it is."""
    if path.exists():
        if path.is_dir() or not os.access(path, os.W_OK):
            path.open("ab").close()
        return
    path.open("xb").close()
    path.unlink()


def health_port_option(command: F) -> F:
    """`--health-port`, of processes that serve nothing else."""
    return click.option(
        "--health-port",
        cls=NamedOption,
        type=Whole(0, 65535),
        envvar="PORT",
        help="Serve /live and /ready here; 0 takes a free port. Default: PORT, else no health server.",
    )(command)


def threads_option(command: F) -> F:
    """`--threads`, of workers."""
    return click.option("--threads", type=Whole(1, 64), help="Pullers; default: pull.threads of the config.")(
        command
    )
