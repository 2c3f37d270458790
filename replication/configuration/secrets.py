"""Secrets that the file names: read through a function, long enough, and an error that says how to make one."""

import shlex
from collections.abc import Callable

from replication.errors import ConfigError

SECRET_BYTES_MIN = 16
"""As long as the seal it keys: a shorter one is easier to guess than the seal."""


def read_secret_file(name: str, read_file: Callable[[str], bytes]) -> bytes:
    """A secret's bytes; `read_file` gets the name as written, and may raise `OSError`. Raises `ConfigError`."""
    remedy = f"write one with: openssl rand -hex 32 > {shlex.quote(name)}"
    try:
        secret = read_file(name).strip()
    except OSError as error:
        raise ConfigError(f"cannot read '{name}' ({error.strerror or error}); {remedy}") from error
    except ValueError as error:  # a NUL in the name
        raise ConfigError(f"{name!r} is not a file name ({error}); name the file with the secret") from error
    return checked_secret(secret, f"'{name}'", remedy)


def checked_secret(secret: bytes, where: str, remedy: str) -> bytes:
    """The secret, if it is long enough; raises `ConfigError`."""
    if len(secret) < SECRET_BYTES_MIN:
        raise ConfigError(f"{where} holds {len(secret)} bytes, fewer than {SECRET_BYTES_MIN}; {remedy}")
    return secret
