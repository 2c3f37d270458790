"""Where log lines go, and how they look.

To standard error, so that a command's own output stays whole: readable lines where standard output is a
terminal, else one JSON object a line in the form that Cloud Logging parses
(https://cloud.google.com/logging/docs/structured-logging#special-payload-fields). What is passed as `extra`
becomes fields; `extra={"traceparent": …}` (W3C trace context) ties the line to its trace.
"""

import logging
import re
import sys
from typing import Any

from pythonjsonlogger.orjson import OrjsonFormatter
from rich.console import Console
from rich.logging import RichHandler

PACKAGES = ("conflict", "replication", "workers")
_NAME = "firefleet"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}.*")


def configure(level: str = "info", *, project: str | None = None) -> logging.Handler:
    """Send log lines to standard error, this project's from `level` up, and libraries' from warnings up.

    A second call replaces what the first set up. `project` is where traces are kept. Returns the handler, for
    whoever wants to remove it again.
    """
    handler = _plain() if sys.stdout.isatty() else _structured(project)
    handler.set_name(_NAME)
    root = logging.getLogger()
    for earlier in [each for each in root.handlers if each.get_name() == _NAME]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    for package in PACKAGES:
        logging.getLogger(package).setLevel(level.upper())
    return handler


def _plain() -> logging.Handler:
    handler = RichHandler(console=Console(stderr=True), show_path=False, log_time_format="[%X]")
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler


def _structured(project: str | None) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(CloudLoggingFormatter(project))
    return handler


class CloudLoggingFormatter(OrjsonFormatter):
    """One JSON object a line, with Cloud Logging's names; `project` completes the name of a trace."""

    def __init__(self, project: str | None = None) -> None:
        super().__init__(
            ["levelname", "message", "name"],
            rename_fields={
                "levelname": "severity",
                "name": "logger",
                "exc_info": "exception",
                "stack_info": "stack",
            },
            timestamp="time",
        )
        self._project = project

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Add the trace's fields where the line carries a trace context."""
        found = _TRACEPARENT.fullmatch(str(log_data.get("traceparent", "")))
        if found:
            trace = found["trace"]
            log_data["logging.googleapis.com/trace"] = (
                f"projects/{self._project}/traces/{trace}" if self._project else trace
            )
            log_data["logging.googleapis.com/spanId"] = found["span"]
        return log_data
