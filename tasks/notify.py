"""Telling people of something: a webhook, a Prefect notification block. That it cannot be told changes nothing of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from retain_core.webhook import post

log = logging.getLogger("retain")


def notify(text: str, subject: str, document: dict[str, Any], *, address: Callable[[], str] | None, block: str | None) -> None:
    """Send a document to a webhook and a text to a block, where either is given. What fails is a warning in the log."""
    if address:
        attempt("the webhook", lambda: _warn("the webhook", post(address(), document)))
    if block:
        attempt(f"the block {block}", lambda: _send(block, text, subject))


def attempt(what: str, tell: Callable[[], Any]) -> None:
    """Call something that tells; whatever it raises is a warning."""
    try:
        tell()
    except Exception as error:  # whatever a block or a server does, what is told of stands
        _warn(what, type(error).__name__)


def _send(block: str, text: str, subject: str) -> None:
    from prefect.blocks.core import Block

    Block.load(block).notify(text, subject=subject)  # type: ignore[union-attr,attr-defined]


def _warn(what: str, problem: str) -> None:
    """Errors of others may quote an address, so only their kind is told."""
    if problem:
        log.warning("%s was not told: %s", what, problem)
