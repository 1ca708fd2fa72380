"""Secrets come from files and are never logged: passwords, and whom to take for a server."""

from __future__ import annotations

import ssl
from functools import cache
from pathlib import Path

from services.contract.errors import InvalidInput

# Shorter ones are guessed, or were cut while they were written.
MIN_PASSWORD_CHARS = 16


def read_password(field: str, path: str) -> str:
    """The password in a file. InvalidInput: no file, or none that holds one whole line of enough characters;
    the value is not said."""
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput.one(field, path, f"a file that can be read ({error})") from error
    password = text.removesuffix("\n")
    if len(password) < MIN_PASSWORD_CHARS or not password.isprintable():
        allowed = f"one line of at least {MIN_PASSWORD_CHARS} printable characters, has {len(password)}"
        raise InvalidInput.one(field, path, allowed)
    return password


@cache
def signed_by(field: str, path: str) -> ssl.SSLContext:
    """For connections to servers whose certificates the authorities in a PEM file have signed. InvalidInput
    when it holds none."""
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput.one(field, path, f"whole certificates in PEM ({error})") from error
