"""`firefleet dev`: starts the fleet, prints what applications need, and watches it until Ctrl-C."""

import io
import sys
import threading
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path

import click
from rich.console import Console

from workers.config import ConfigFile
from workers.dev.plan import PORT_BASE, PORTS_MAX, Ports, config_path, layout, plan, prepare_folder
from workers.dev.supervise import Supervisor
from workers.dev.view import LiveView, PlainView, View, picture
from workers.local.emulators import programs
from workers.local.fleet import LocalFleet
from workers.local.meters import Meters
from workers.local.otlp import Receiver
from workers.runtime.interrupt import stopping
from workers.runtime.output import print_table

EXPORT_MS = 1_000
LOOK_S = 0.5


@click.command("dev")
@click.option(
    "--replicas",
    metavar="ID,ID,…",
    help="Run these replicas, with every document replicated, instead of the configuration's.",
)
@click.option(
    "--port-base",
    type=click.IntRange(1024, PORTS_MAX),
    default=PORT_BASE,
    show_default=True,
    help="The first port: Firestore here, Pub/Sub one above, then the others.",
)
@click.pass_obj
def command(config: ConfigFile, *, replicas: str | None, port_base: int) -> None:
    """Run a whole fleet on this machine, on Google's emulators, until Ctrl-C.

    Runs the replicas and rules of the configuration (fleet.yaml, or --config); without a fleet.yaml,
    the replicas eu, us and apac with every document replicated. Prints the variables for applications, and
    shows what arrives. The ports are the same each time. Documents are kept in memory: they are gone when it
    ends. Nothing else is left running, however it ends.

    A worker that dies is started again. Exit code 0 after Ctrl-C or SIGTERM, 1 when an emulator died. Needs the
    emulators of the Google Cloud CLI, and Java.

    \b
    Example:
      firefleet dev                                              # in one terminal
      firefleet --config .firefleet/dev.yaml probe               # in another one
    """  # noqa: D301 - click's mark for lines that it must not fold
    chosen = plan(config, replicas)
    programs()
    ports = Ports(port_base, chosen)
    ports.check()
    prepare_folder()
    path = config_path(port_base)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A pipe of another encoding gets question marks for arrows, and not a traceback.
        sys.stdout.reconfigure(errors="replace")
    console = Console(file=sys.stdout, highlight=False)
    with ExitStack() as stack:
        meters = Meters()
        receiver = Receiver(meters.take)
        receiver.start()
        stack.callback(receiver.stop)
        click.echo(f"firefleet dev: {', '.join(chosen.replicas)}; {chosen.origin}")
        environment = receiver.environment(interval_ms=EXPORT_MS)
        arranged = layout(chosen, ports, path=path, environment=environment)
        fleet = stack.enter_context(LocalFleet(arranged, log=lambda text: click.echo(f"{text} …")))
        stop = stack.enter_context(stopping())
        introduce(fleet, path)
        with _view(console) as view:
            _watch(fleet, meters, view, stop)
    click.echo("stopped: nothing is left running, and the documents are gone")


def introduce(fleet: LocalFleet, path: Path) -> None:
    """Print what applications and other terminals need."""
    replicas = list(fleet.fleet.replicas.values())
    click.echo("\nFor applications (the ports stay the same, so this can go into a .env file):")
    click.echo(f"  export FIRESTORE_EMULATOR_HOST={replicas[0].emulator_host}")
    click.echo(f"  export PUBSUB_EMULATOR_HOST={fleet.pubsub.host}")
    click.echo(f"  export GOOGLE_CLOUD_PROJECT={fleet.fleet.project}\n")
    print_table(
        ("REPLICA", "PROJECT", "DATABASE"), [(each.id, each.project, each.database) for each in replicas]
    )
    here, there = replicas[0], replicas[-1]
    click.echo("\nIn Python:")
    click.echo("  from google.cloud import firestore")
    for name, each in dict.fromkeys(((_name(here.id), here), (_name(there.id), there))):
        click.echo(f'  {name} = firestore.Client(project="{each.project}", database="{each.database}")')
    click.echo(f'  {_name(here.id)}.document("orders/1").set({{"status": "pending"}})')
    click.echo(f'  {_name(there.id)}.document("orders/1").get().to_dict()   # a moment later')
    click.echo(f"\nFrom another terminal, with the configuration {path}:")
    click.echo(f"  firefleet --config {path} probe")
    click.echo(f"  firefleet --config {path} explain orders/1")
    click.echo("\nRunning. Ctrl-C ends it.")


def _name(replica: str) -> str:
    return replica.replace("-", "_")


def _watch(fleet: LocalFleet, meters: Meters, view: View, stop: threading.Event) -> None:
    supervisor = Supervisor(fleet, say=view.say, now=time.monotonic)
    began = time.monotonic()
    while not stop.wait(LOOK_S):
        supervisor.look()
        seconds = time.monotonic() - began
        replicas = list(fleet.fleet.replicas)
        view.show(picture(meters, replicas, seconds=seconds, waiting=fleet.undelivered()))


def _view(console: Console) -> AbstractContextManager[View]:
    return LiveView(console) if console.is_terminal else nullcontext(PlainView(console))
