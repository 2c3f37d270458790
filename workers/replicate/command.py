"""`firefleet replicate`: applies the other replicas' changes to one replica, until SIGTERM."""

import logging

import click

from replication.fleet.model import Target
from workers.config import ConfigFile
from workers.replicate.clients import open_clients
from workers.replicate.worker import Worker
from workers.runtime.identity import described, introduce
from workers.runtime.loading import load_for_work
from workers.runtime.options import health_port_option, threads_option
from workers.runtime.run import run_worker

log = logging.getLogger(__name__)


@click.command("replicate")
@click.option("--replica", required=True, help="The replica to write to, by its id in the configuration.")
@health_port_option
@threads_option
@click.pass_obj
def command(file: ConfigFile, *, replica: str, health_port: int | None, threads: int | None) -> None:
    """Apply the other replicas' changes to one replica, until SIGTERM.

    Any number of workers may share a replica's subscription. On SIGTERM a worker finishes what it holds
    within 10 s, or releases it: nothing is lost.
    """
    configuration = load_for_work(file)
    fleet = configuration.fleet
    target = Target(fleet, fleet.replica(replica))
    with open_clients(fleet, replica) as clients:
        pullers = threads or fleet.pull.threads
        where = f"{described(target.replica)} from {fleet.subscription(replica)}"
        introduce(log, file, configuration, f"replicating to {where}, {pullers} pullers")
        worker = Worker(target, clients, threads=pullers, max_messages=fleet.pull.max_messages)
        run_worker(worker, health_port=health_port)
    log.info("stopped")
