"""`firefleet init`: writes the first configuration and its secret; never changes a secret that exists."""

import os
import secrets
from pathlib import Path

import click

from replication.configuration.first import DEFAULT_REPLICAS, SECRET_FILE, first_config, parse_replica
from replication.errors import ConfigError
from workers.config import ConfigFile

SECRET_BYTES = 32
DEFAULT_PATH = Path("fleet.yaml")
"""What every command reads without --config."""
_DEFAULTS = ", ".join(f"{each.id}={each.database}@{each.location}" for each in DEFAULT_REPLICAS)


@click.command("init")
@click.option("--project", default="my-project", show_default=True, help="The Google Cloud project's id.")
@click.option(
    "--replica",
    "replicas",
    multiple=True,
    metavar="ID=DATABASE@LOCATION",
    help=f"A replica; repeat it for each. Default: {_DEFAULTS}.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="The file to write, or - for standard output. Default: the file that --config names.",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.pass_obj
def command(
    config: ConfigFile, *, project: str, replicas: tuple[str, ...], output: Path | None, force: bool
) -> None:
    """Write a first configuration, with comments, and next to it a secret that only you can read.

    Asks nothing and connects to nothing. A file that exists is kept unless --force is given; a secret that
    exists is always kept. With -o - only the configuration is printed and no secret is created.

    \b
    Examples:
      firefleet init
      firefleet init --project my-shop --replica eu=app-eu@europe-west1 \\
                     --replica us=app-us@us-central1
    """  # noqa: D301 - click's mark for lines that it must not fold
    text = first_config(
        project=project, replicas=tuple(map(parse_replica, replicas)) if replicas else DEFAULT_REPLICAS
    )
    target = output or config.path
    if str(target) == "-":
        click.echo(text, nl=False)
        return
    _write(target, text, force=force)
    secret = target.parent / SECRET_FILE
    created = _create_secret(secret)
    click.echo(f"wrote {target}")
    click.echo(f"wrote {secret}, readable by you only" if created else f"kept {secret}, which exists")
    click.echo(f"\nKeep the secret out of git:\n  echo {SECRET_FILE} >> {target.parent / '.gitignore'}")
    firefleet = "firefleet" if target == DEFAULT_PATH else f"firefleet --config {target}"
    click.echo(f"\nNext:\n  {firefleet} check --offline   # what the configuration alone says")
    click.echo(f"  {firefleet} dev               # the fleet on this machine, on emulators")


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise ConfigError(
            f"{path}: exists; name another file with --output, or replace this one with --force"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot write the configuration ({error.strerror}); name another file with --output"
        ) from error


def _create_secret(path: Path) -> bool:
    """Create a secret unless there is one; whether it was created."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot write the secret ({error.strerror}); create it with: openssl rand -hex 32"
        ) from error
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(SECRET_BYTES) + "\n")
    return True
