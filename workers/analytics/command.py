"""`firefleet analytics`: buffers one region's analytics events and writes them in batches.

firefleet analytics run --replica eu      the worker, until SIGTERM
firefleet analytics read --replica eu     the stored events, each once
"""

import logging

import click

from replication.analytics.job import Job
from replication.fleet.model import Fleet
from workers.analytics.clients import open_clients, plan_job
from workers.analytics.read import command as read_command
from workers.analytics.worker import AnalyticsWorker
from workers.config import ConfigFile
from workers.runtime.command_line import CommandGroup
from workers.runtime.identity import described, introduce
from workers.runtime.loading import load_for_work
from workers.runtime.options import health_port_option, threads_option
from workers.runtime.run import run_worker

log = logging.getLogger(__name__)


@click.group("analytics", cls=CommandGroup)
def command() -> None:
    """Buffer one region's analytics events and write them in batches; read what is stored."""


@command.command("run", short_help="Buffer a region's events and write them in batches.")
@click.option(
    "--replica",
    required=True,
    help="The replica whose region's events to take, by its id in the configuration.",
)
@health_port_option
@threads_option
@click.pass_obj
def run_command(file: ConfigFile, *, replica: str, health_port: int | None, threads: int | None) -> None:
    """Buffer one region's analytics events and write them in batches, until SIGTERM.

    Any number of workers may share a region's subscription. On SIGTERM a worker writes what it holds within
    7 s and releases the rest: nothing is lost.
    """
    configuration = load_for_work(file)
    fleet = configuration.fleet
    job = plan_job(file, configuration, replica)
    pullers = threads or fleet.pull.threads
    subscription = job.settings.subscription(job.replica)
    where = f"{described(fleet.replica(job.replica))} from {subscription}"
    doing = f"writing analytics events to {where}, {pullers} pullers, worker {job.token}"
    introduce(log, file, configuration, doing, worker=job.token)
    run(fleet, job, health_port=health_port, threads=pullers)


command.add_command(read_command)


def run(fleet: Fleet, job: Job, *, health_port: int | None, threads: int) -> None:
    """Run a worker until SIGTERM or SIGINT."""
    with open_clients(fleet, job) as clients:
        worker = AnalyticsWorker(job, clients, threads=threads, max_messages=fleet.pull.max_messages)
        run_worker(worker, health_port=health_port)
    log.info("stopped")
