"""Telling a webhook."""

from __future__ import annotations

import ipaddress
import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from retain_core.errors import InputError

SECONDS = 10.0


class _StaysThere(urllib.request.HTTPRedirectHandler):
    """A redirection could lead anywhere, so none is followed."""

    def redirect_request(self, *_: Any) -> None:
        return None


def check_address(address: str) -> None:
    """Raises InputError for what is neither https nor http on this machine. The address itself is not repeated."""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        raise InputError("the webhook's address is no address") from None
    if parts.scheme == "https" and host:
        return
    if parts.scheme != "http" or not _is_here(host):
        raise InputError("the webhook's address must begin with https:// (http:// only on this machine)")


def post(address: str, document: dict[str, Any]) -> str:
    """POST a document as JSON. Returns why it could not, empty when it could; the address, a secret, is never in it."""
    try:
        check_address(address)
        body = json.dumps(document, ensure_ascii=False).encode()
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"}, method="POST")  # noqa: S310
        with urllib.request.build_opener(_StaysThere).open(request, timeout=SECONDS) as answer:
            answer.read(1)
    except InputError as error:
        return str(error)
    except urllib.error.HTTPError as error:
        return f"the webhook answered {error.code}"
    except (OSError, ValueError) as error:
        return f"the webhook does not answer ({type(error).__name__})"
    return ""


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
