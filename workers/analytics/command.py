"""`firefleet analytics`: buffers one region's analytics events and writes them in batches.

firefleet analytics run --replica eu      the worker, until SIGTERM
firefleet analytics read --replica eu     the stored events, each once
"""

import gc
import logging
import signal

import click

from replication.configuration.parse import Fleet, Mode
from workers.analytics.clients import open_clients, plan_job
from workers.analytics.read import command as read_command
from workers.analytics.shared import Job
from workers.analytics.worker import Worker
from workers.command_line import CommandGroup
from workers.config import ConfigFile
from workers.options import health_port_option, threads_option
from workers.runtime.health import HealthServer

log = logging.getLogger(__name__)


@click.group("analytics", cls=CommandGroup)
def command() -> None:
    """Buffer one region's analytics events and write them in batches; read what is stored."""


@command.command("run")
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
    fleet = file.load()
    job = plan_job(file, fleet, replica)
    _warn_of_replication(fleet, job)
    run(fleet, job, health_port=health_port, threads=threads)


command.add_command(read_command)


def run(fleet: Fleet, job: Job, *, health_port: int | None, threads: int | None) -> None:
    """Run a worker until SIGTERM or SIGINT."""
    with open_clients(fleet, job) as clients:
        worker = Worker(
            job, clients, threads=threads or fleet.pull.threads, max_messages=fleet.pull.max_messages
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stop())
        health = HealthServer(
            live={"loop": worker.progress.stuck},
            ready={"reachable": worker.progress.unreachable, "progress": worker.progress.stalled},
        )
        if health_port is not None:
            health.start(health_port)
            log.info("health at %s", health.url, extra={"url": health.url})
        # What is alive now stays alive: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        worker.start()
        subscription = job.settings.subscription(job.replica)
        log.info("analytics of %s from %s", job.replica, subscription, extra={"worker": job.token})
        worker.join()
        health.stop()
    log.info("stopped")


def _warn_of_replication(fleet: Fleet, job: Job) -> None:
    """Say so if what is written here would be captured and sent to every other region."""
    collection = job.settings.collection
    if fleet.rule_for(f"{collection}/event").mode is not Mode.LOCAL:
        log.warning(
            "documents of %s are replicated to the other regions; to keep them here, put "
            '{match: "%s/{event}", mode: local} before the rule that matches them',
            collection,
            collection,
        )
