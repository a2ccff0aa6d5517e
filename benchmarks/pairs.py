"""Timing two things side by side: interleaved pairs, the order swapped every time, the median ratio."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table: the median of ours / theirs over pairs, and the median times."""

    name: str
    ratio: float
    low: float
    high: float
    ours: float
    theirs: float
    pairs: int
    goal: str

    def text(self) -> str:
        """The row as Markdown."""
        return (
            f"| {self.name} | {self.ratio:.3g} | {self.low:.3g} to {self.high:.3g} | {self.ours:.3g} s | "
            f"{self.theirs:.3g} s | {self.pairs} | {self.goal} |"
        )


HEAD = "| what | median ratio | range | ours | the other | pairs | goal |\n|---|---|---|---|---|---|---|"


def compare(
    name: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    goal: str,
    pairs: int = 7,
    clock: Callable[[], float] = time.perf_counter,
) -> Row:
    """Run both `pairs` times in turn and compare each pair."""
    times: list[tuple[float, float]] = []
    for number in range(pairs):
        order = (ours, theirs) if number % 2 == 0 else (theirs, ours)
        spent = [_seconds(run, clock) for run in order]
        times.append((spent[0], spent[1]) if number % 2 == 0 else (spent[1], spent[0]))
    ratios = [a / b for a, b in times]
    return Row(
        name, statistics.median(ratios), min(ratios), max(ratios), statistics.median(a for a, _ in times),
        statistics.median(b for _, b in times), pairs, goal,
    )  # fmt: skip


def _seconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    started = clock()
    run()
    return clock() - started
