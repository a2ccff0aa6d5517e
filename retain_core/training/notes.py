"""What is drawn from the base before training begins, drawn once although a killed training is prepared again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

Drawn = TypeVar("Drawn")
Once = Callable[[Callable[[], Any]], Any]
"""Gives what the function draws, or what it drew the last time, and leaves the random streams as after drawing."""

_once: ContextVar[Once | None] = ContextVar("once", default=None)


@contextmanager
def noted(once: Once) -> Iterator[None]:
    """Within it `drawn_once` asks `once`."""
    token = _once.set(once)
    try:
        yield
    finally:
        _once.reset(token)


def drawn_once(draw: Callable[[], Drawn]) -> Drawn:
    """What `draw` gives: plain values, which depend on the spec of an arm and on the random streams alone."""
    once = _once.get()
    found: Drawn = draw() if once is None else once(draw)
    return found
