"""Where the conclusion ends: two modes, forward against reverse KL, with three dials of the published program turned.

Source: paper section 4.4, hypothesis H16. Forward KL has neither reward nor samples of its own, so only the slow factor
changes it. Reverse KL is run with every combination. The prediction is the paper's: forward KL drops more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import NamedTuple

import numpy as np

from retain_core.simulate.dynamics import Ratio, Setting, Support, initial_overlaps
from retain_core.simulate.matched import PUBLISHED_GAIN, Crossing, Outcome, Summary, gap, outcomes, summarise
from retain_core.stats.verdict import Word

SLOW_FACTORS = (0.005, 0.02, 0.05, 0.2, 1.0)
BETAS = (1.0, 0.1, 0.01, 0.0001)


class Sampling(NamedTuple):
    """What reverse KL samples from and what its reward compares, for the program and in words."""

    support: Support
    ratio: Ratio
    samples: str
    reward: str


SAMPLINGS = (
    Sampling("new mode", "new/q2", "new mode", "log new/q2"),
    Sampling("policy", "new/q2", "policy", "log new/q2"),
    Sampling("policy", "new/q", "policy", "log new/q"),
    Sampling("policy", "all/q", "policy", "log all/q"),
)
"""The published one; the same reward for samples of the whole policy; reverse KL to the new mode; to the whole target."""
NEARLY_ALL = 0.95
MOST_STEPS = 400
"""Twice the published number: samples of the whole policy reach the new mode less often."""


@dataclass(frozen=True)
class Cell:
    """One combination of the dials. Drops are at a gain of exactly .9; None where not every seed reached it.

    `reverse_last_gain` is the mean gain at the last step of the seeds for which reverse KL never reached it, NaN if none.
    """

    slow: float
    beta: float
    sampling: Sampling
    seeds: int
    forward_reached: int
    reverse_reached: int
    reverse_last_gain: float
    forward: Summary | None
    reverse: Summary | None
    gap: Summary | None
    verdict: Word

    @property
    def saturated(self) -> bool:
        """Whether both have lost nearly all of the old mode: being equal then says nothing about the methods."""
        most = NEARLY_ALL * initial_overlaps("two modes")[0]
        return all(drop is not None and drop.mean >= most for drop in (self.forward, self.reverse))


def sweep(seeds: int, seed: int, tick: Callable[[int], object] | None = None) -> list[Cell]:
    """Every combination of slow factor, sampling and beta, in this order. Raises InputError as `outcomes` does."""
    cells = []
    dials = [(sampling, beta) for sampling in SAMPLINGS for beta in BETAS]
    for slow in SLOW_FACTORS:
        settings = [Setting("two modes", "forward", 0.15, MOST_STEPS, slow, until=PUBLISHED_GAIN)] + [
            Setting(
                "two modes",
                "reverse",
                0.01,
                MOST_STEPS,
                slow,
                log(1 / beta),
                support=how.support,
                ratio=how.ratio,
                until=PUBLISHED_GAIN,
            )
            for how, beta in dials
        ]
        forward, *reverse = outcomes(settings, seeds, seed, tick)
        cells += [_cell(slow, beta, how, forward, found) for (how, beta), found in zip(dials, reverse, strict=True)]
    return cells


def _cell(slow: float, beta: float, sampling: Sampling, forward: Outcome, reverse: Outcome) -> Cell:
    a, b = forward.published, reverse.published
    difference = gap(a, b)
    never = reverse.last_gain[np.isfinite(reverse.last_gain)]
    return Cell(
        slow, beta, sampling, len(a.step), _reached(a), _reached(b), float(never.mean()) if never.size else np.nan,
        summarise(a.drop_exactly), summarise(b.drop_exactly), difference.gap, difference.verdict,
    )  # fmt: skip


def _reached(crossing: Crossing) -> int:
    return int(np.isfinite(crossing.step).sum())
