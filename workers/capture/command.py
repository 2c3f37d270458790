"""`firefleet capture`: the process; `workers.capture.app` says what it answers."""

import logging
from functools import partial

import click

from replication.adapters.firestore import open_database
from replication.adapters.otel import open_telemetry
from replication.adapters.pubsub import open_publisher
from workers.capture.app import build_app
from workers.config import ConfigFile
from workers.runtime.identity import described, introduce, version
from workers.runtime.loading import load_for_work
from workers.runtime.options import NamedOption, Whole
from workers.runtime.serving import CLOSE_S_MAX, close_within, listen, run_until_signalled

logger = logging.getLogger(__name__)


@click.command("capture")
@click.option("--host", default="0.0.0.0", show_default=True, help="Address to listen on.")  # noqa: S104 - Eventarc
@click.option(
    "--port",
    cls=NamedOption,
    type=Whole(0, 65535),
    envvar="PORT",
    default=8080,
    show_default=True,
    show_envvar=True,
    help="Port to listen on.",
)
@click.pass_obj
def command(config: ConfigFile, *, host: str, port: int) -> None:
    """Receive Eventarc's events of all replicas and publish the changes, until SIGTERM."""
    configuration = load_for_work(config)
    fleet = configuration.fleet
    bound = listen(host, port)
    databases = {replica.id: open_database(replica) for replica in fleet.replicas.values()}
    publisher = open_publisher(fleet.project, fleet.topic, emulator_host=fleet.pubsub_emulator_host)
    telemetry = open_telemetry(service="firefleet-capture", version=version())
    replicas = ", ".join(described(replica) for replica in fleet.replicas.values())
    doing = f"capturing on port {bound.getsockname()[1]} from {replicas}, publishing to {fleet.topic}"
    try:
        app = build_app(fleet, databases, publisher, telemetry)
        run_until_signalled(app, bound, started=lambda: introduce(logger, config, configuration, doing))
    finally:
        closers = {f"database {replica}": database.close for replica, database in databases.items()}
        flush = partial(telemetry.close, timeout=CLOSE_S_MAX)
        close_within(CLOSE_S_MAX, {**closers, "publisher": publisher.close, "telemetry": flush})
    logger.info("stopped")
