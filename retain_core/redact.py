"""Secrets of the environment, kept out of what retain writes and prints.

A secret is the value of an environment variable whose name says so (HF_TOKEN, AWS_SECRET_ACCESS_KEY, …), and a password
inside an address that a variable holds (https://user:password@host).
"""

from __future__ import annotations

import io
import os
import re
import threading
from typing import TextIO
from urllib.parse import unquote, urlsplit

_SAYS_SO = re.compile(r"(?:^|_)(?:TOKEN|KEY|APIKEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS|PAT)S?(?:_|$)", re.IGNORECASE)
SHORTEST = 8
"""A shorter value stands in too many places by chance."""


def secrets() -> dict[str, str]:
    """Secret -> the variable that holds it, the longest first."""
    found: dict[str, str] = {}
    for name, value in os.environ.items():
        if _SAYS_SO.search(name):
            found[value] = name
        elif "://" in value and (password := _password(value)):
            found |= {password: name, unquote(password): name}
    return {value: found[value] for value in sorted(found, key=len, reverse=True) if len(value) >= SHORTEST}


def redact(text: str) -> str:
    """A text with the name of its variable in place of every secret."""
    for value, name in secrets().items():
        text = text.replace(value, f"${name}")
    return text


def secret_in(text: str) -> str | None:
    """The variable whose value stands in a text; None where there is none."""
    return next((name for value, name in secrets().items() if value in text), None)


class Redacted(io.TextIOBase):
    """A stream that writes whole lines to another, with the names of variables in place of secrets."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._line, self._lock = stream, "", threading.Lock()

    def write(self, text: str) -> int:
        """Keep what is no whole line yet: a secret may come in pieces. A progress bar begins anew with a carriage return."""
        with self._lock:
            so_far = self._line + text
            end = max(so_far.rfind("\n"), so_far.rfind("\r")) + 1
            self._line = so_far[end:]
            if end:
                self._stream.write(redact(so_far[:end]))
        return len(text)

    def flush(self) -> None:
        """Lines are written as they end; half of one waits until `close`."""
        self._stream.flush()

    def close(self) -> None:
        """Write what is left; the other stream stays open."""
        if not self.closed:
            self._stream.write(redact(self._line))
            self._stream.flush()
        super().close()

    def fileno(self) -> int:
        """That of the other stream, for what writes past Python."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """It is."""
        return True


def public_address(uri: str | None) -> str | None:
    """An address on the web without user, password, query and fragment; None for anything else."""
    parts = urlsplit(uri or "")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _password(address: str) -> str | None:
    try:
        return urlsplit(address).password
    except ValueError:
        return None
