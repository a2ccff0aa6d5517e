"""Endless streams that know how much was taken of them, so that a killed training can go on where it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class Stream(Iterator[Entry], Generic[Entry]):
    """An iterator that counts. What it gives depends on nothing but how much was taken before."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.taken = 0
        self._entries = iter(entries)

    def __next__(self) -> Entry:
        entry = next(self._entries)
        self.taken += 1
        return entry

    def skip(self, count: int) -> None:
        """Take as many entries and drop them."""
        for _ in islice(self, count):
            pass
