"""Health over HTTP for processes that serve nothing else: `/live` and `/ready`, as Cloud Run's probes ask them.

A check is a callable that answers at once from what the process remembers: None when all is well, else the
problem as a text. It must not call out to anything: a probe has its own deadline, and a health server
that waits for a dead database looks like a dead process.
"""

from collections.abc import Callable, Mapping

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from workers.runtime.identity import version
from workers.runtime.serving import ServerThread

Checks = Mapping[str, Callable[[], str | None]]

GRACE_S = 1


def report(checks: Checks) -> Response:
    """200 when every check is fine, else 503; the body names the failing ones, and the version."""
    failing = {name: problem for name, check in checks.items() if (problem := _problem(check)) is not None}
    return Response(
        orjson.dumps({"ok": not failing, "failing": failing, "checks": sorted(checks), "version": version()}),
        status_code=503 if failing else 200,
        media_type="application/json",
    )


def _problem(check: Callable[[], str | None]) -> str | None:
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - a check that breaks is a failing check, and the answer says so
        return f"the check itself failed: {error!r}"


def health_routes(*, live: Checks, ready: Checks) -> list[BaseRoute]:
    """The two routes, for an application that serves other things too."""

    async def answer_live(_request: Request) -> Response:
        return report(live)

    async def answer_ready(_request: Request) -> Response:
        return report(ready)

    return [Route("/live", answer_live), Route("/ready", answer_ready)]


class HealthServer:
    """`/live` and `/ready` on their own port, served by a separate thread."""

    def __init__(self, *, live: Checks, ready: Checks) -> None:
        self._server = ServerThread(
            Starlette(routes=health_routes(live=live, ready=ready)), name="health", grace_s=GRACE_S
        )

    @property
    def url(self) -> str:
        """Where it listens, once started."""
        return self._server.url

    def start(self, port: int, *, host: str = "0.0.0.0") -> None:  # noqa: S104 - probes come from outside
        """Listen; port 0 takes a free one. `ConfigError` when the port is taken."""
        self._server.start(host=host, port=port, option="--health-port")

    def stop(self) -> None:
        """Stop listening and end the thread, within seconds."""
        self._server.stop()
