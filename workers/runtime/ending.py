"""How a command ends: its last words and its exit code, whatever happened, and never with a traceback.

    0     done
    1     found a difference, or failed: the cloud, a disk, a pipe
    2     a mistake in the command line or the configuration
    130   interrupted

Words go to standard error. With `--json` standard output gets one object as well: `ok`, `error`, `exit_code`,
and `findings` with a configuration's faults. A reader of standard output that has gone away (`| head`) is no
news to anyone, and ends in silence. What no one foresaw still ends in a traceback: that is a bug.
"""

import contextlib
import errno
import io
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

import click

from replication.errors import ConfigError, Fault, FirefleetError, Interrupted

log = logging.getLogger(__name__)

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
_OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""Of a full or broken disk. Whoever writes a file names it, so what has no name is standard output."""


@dataclass(frozen=True, slots=True)
class Ending:
    """An exit code, and what is said: nothing where `text` is empty. `show` prints more than the text."""

    code: int
    text: str = ""
    faults: tuple[Fault, ...] = ()
    show: Callable[[], None] | None = None


def end(run: Callable[[], Any], *, as_json: bool) -> int:
    """Run a command, say its last words, and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # What a terminal or pipe cannot show is replaced: text of another encoding, arguments that are no text.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")
    ending = _ending(run)
    if ending.text:
        with contextlib.suppress(OSError, ValueError):
            (ending.show or (lambda: click.echo(ending.text, err=True)))()
        if as_json:
            with contextlib.suppress(OSError, ValueError):
                _print_error(ending)
    return _settled(ending.code)


def _ending(run: Callable[[], Any]) -> Ending:
    try:
        result = run()
        sys.stdout.flush()
        return Ending(result if isinstance(result, int) else 0)
    except SystemExit as error:
        return Ending(error.code) if isinstance(error.code, int) else Ending(FAILED, str(error.code or ""))
    except (click.Abort, KeyboardInterrupt, Interrupted) as error:
        return _aborted(error)
    except click.ClickException as error:
        return Ending(error.exit_code, error.format_message(), show=error.show)
    except ConfigError as error:
        return Ending(MISUSED, str(error), error.faults)
    except FirefleetError as error:
        return Ending(FAILED, str(error))
    except BrokenPipeError:
        return Ending(FAILED)
    except OSError as error:
        log.debug("the system refused", exc_info=error)
        return Ending(FAILED, _system_text(error))


def _aborted(error: BaseException) -> Ending:
    """The end after Ctrl-C, and after a question that was answered with no or not at all."""
    asked = isinstance(error, click.Abort)
    if asked and not isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
        return Ending(FAILED, "aborted: nothing was done")
    return Ending(INTERRUPTED, str(error) or "interrupted; nothing is left running")


def _system_text(error: OSError) -> str:
    reason = error.strerror or str(error)
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {reason}"
    return f"cannot write the output: {reason}" if error.errno in _OUTPUT_ERRORS else reason


def _print_error(ending: Ending) -> None:
    # Not at the top: nothing that works needs it here.
    from workers.runtime.output import print_json  # noqa: PLC0415

    findings = [
        {"level": "fail", "subject": fault.key or fault.file, "text": fault.text, "remedy": []}
        | {"file": fault.file, "line": fault.line or None, "key": fault.key}
        for fault in ending.faults
    ]
    print_json({"ok": False, "error": ending.text, "exit_code": ending.code, "findings": findings})


def _settled(code: int) -> int:
    """Flush what was printed, so that Python's own end has nothing left to complain about; the exit code."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
        code = code or FAILED
    except OSError as error:
        _discard(sys.stdout)
        if not code:
            code = FAILED
            with contextlib.suppress(OSError):
                click.echo(f"cannot write the output: {error.strerror or error}", err=True)
    try:
        sys.stderr.flush()
    except OSError:
        _discard(sys.stderr)
    return code


def _discard(stream: TextIO) -> None:
    """Send the rest of a stream nowhere (https://docs.python.org/3/library/signal.html#note-on-sigpipe)."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def open_missing_streams() -> None:
    """Give a process that was started with a standard stream closed one that fails when it is used.

    Otherwise the next file or socket would get the stream's number, and what is printed.
    """
    for number, name, flags in (
        (0, "stdin", os.O_WRONLY),
        (1, "stdout", os.O_RDONLY),
        (2, "stderr", os.O_WRONLY),
    ):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
            mode = "w" if number else "r"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - it stays
