"""Where random and endless streams stand, so that a killed training can go on there."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np
import torch

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


def random_streams() -> dict[str, Any]:
    """Where the random streams of this process stand: Python's, NumPy's, torch's, and those of the GPUs."""
    kind, words, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (kind, [int(word) for word in words], *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def put_random_streams(streams: dict[str, Any]) -> None:
    """Put them where `random_streams` found them."""
    kind, words, *rest = streams["numpy"]
    random.setstate(streams["python"])
    np.random.set_state((kind, np.array(words, dtype=np.uint32), *rest))
    torch.set_rng_state(streams["torch"])
    if streams["cuda"]:
        torch.cuda.set_rng_state_all(streams["cuda"])
