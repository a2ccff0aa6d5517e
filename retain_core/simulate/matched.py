"""What is read off a run: drop where the gain is the same, with an interval over seeds.

Source: paper section 4.2 (first step with a gain of at least .9); measurement section 4 (a seed that never gets there is
not left out: the setting is "not reached"). Gains and drops are shares of a mode's area, from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from retain_core.errors import InputError
from retain_core.simulate.dynamics import Setting, Trajectory, trajectories
from retain_core.simulate.mixture import Floats
from retain_core.stats.paired import paired_interval
from retain_core.stats.verdict import Prediction, Word, verdict

PUBLISHED_GAIN = 0.9
EARLY_GAIN = 0.4
"""A gain that every published run reaches, also forward KL at the smaller learning rate."""
MARGIN = 0.02
SEEDS_AT_ONCE = 10
"""So that the samples of one step stay in the processor's cache."""


class Crossing(NamedTuple):
    """Where each seed first has a gain of `at`: NaN for a seed that never does.

    `step`, `gain` and `drop` are those of the first step there; `drop_exactly` is on the line between that step and the
    one before, where the gain is `at` itself.
    """

    step: Floats
    gain: Floats
    drop: Floats
    drop_exactly: Floats


@dataclass(frozen=True)
class Outcome:
    """One setting over its seeds. Arrays have one entry a seed.

    `last_*` are at the setting's last step; NaN for seeds with the gain that the run may end at.
    """

    setting: Setting
    published: Crossing
    early: Crossing
    last_gain: Floats
    last_drop: Floats
    last_parameters: Floats


class Summary(NamedTuple):
    """Mean over n seeds, its spread, and a 95 % t interval of the mean; no spread or interval from one seed."""

    n: int
    mean: float
    sd: float
    low: float
    high: float
    median: float


class Gap(NamedTuple):
    """Drop of forward KL minus drop of reverse KL, seed by seed, where both have gained the same; None: not reached."""

    gap: Summary | None
    verdict: Word


def crossing(gain: Floats, drop: Floats, at: float) -> Crossing:
    """Each seed's first step with a gain of at least `at`, from curves (seeds, steps + 1) that begin at a gain of 0."""
    there = gain >= at
    step = there.argmax(axis=1)
    rows = np.arange(len(gain))
    before, after = gain[rows, step - 1], gain[rows, step]
    with np.errstate(all="ignore"):
        share = (at - before) / (after - before)
        exactly = drop[rows, step - 1] + share * (drop[rows, step] - drop[rows, step - 1])
    ever = there.any(axis=1)
    found = (step.astype(np.float64), after, drop[rows, step], exactly)
    return Crossing(*(np.where(ever, values, np.nan) for values in found))


def outcomes(settings: Sequence[Setting], seeds: int, seed: int, tick: Callable[[int], object] | None = None) -> list[Outcome]:
    """Run every setting for `seeds` seeds of stream `seed`; `tick` hears how many seeds were added.

    Raises:
        InputError: fewer than one seed, or a negative stream.
    """
    if seeds < 1:
        raise InputError(f"--seeds {seeds}: at least 1 seed is needed, and 2 for an interval")
    if seed < 0:
        raise InputError(f"--seed {seed}: the number of a random stream is 0 or more")
    parts = []
    for first in range(0, seeds, SEEDS_AT_ONCE):
        some = range(first, min(first + SEEDS_AT_ONCE, seeds))
        parts.append([_read(*pair) for pair in zip(settings, trajectories(settings, some, seed), strict=True)])
        if tick:
            tick(len(some))
    return [_join(blocks) for blocks in zip(*parts, strict=True)]


def summarise(values: Floats) -> Summary | None:
    """Mean, spread and interval over seeds; None if any seed has no value."""
    if np.isnan(values).any():
        return None
    n, mean = len(values), float(values.mean())
    sd = float(values.std(ddof=1)) if n > 1 else np.nan
    low, high = paired_interval(mean, sd / np.sqrt(n), n - 1)
    return Summary(n, mean, sd, float(low), float(high), float(np.median(values)))


def gap(forward: Crossing, reverse: Crossing, predict: Prediction = ">") -> Gap:
    """Forward minus reverse at exactly the same gain, paired by seed since both see the same draws.

    The word is that of `stats.verdict` with a margin of .02; there is no other control than the exactness of the areas.
    """
    difference = forward.drop_exactly - reverse.drop_exactly
    found = summarise(difference)
    if found is None:
        return Gap(None, "not reached")
    low, high = paired_interval(found.mean, found.sd / np.sqrt(found.n), found.n - 1, 0.9)
    word = verdict(
        controls_passed=True, matching="reached", interval_95=(found.low, found.high),
        interval_90=(float(low), float(high)), predict=predict, margin=MARGIN,
    )  # fmt: skip
    return Gap(found, word)


def _read(setting: Setting, run: Trajectory) -> Outcome:
    at_published, early = (crossing(run.gain, run.drop, at) for at in (PUBLISHED_GAIN, EARLY_GAIN))
    ended = np.zeros(len(run.gain), dtype=bool) if setting.until is None else (run.gain >= setting.until).any(axis=1)
    last = (np.where(ended, np.nan, values) for values in (run.gain[:, -1], run.drop[:, -1], run.parameters))
    return Outcome(setting, at_published, early, *last)


def _join(blocks: Sequence[Outcome]) -> Outcome:
    def crossings(parts: Sequence[Crossing]) -> Crossing:
        return Crossing(*(np.concatenate(values) for values in zip(*parts, strict=True)))

    return Outcome(
        blocks[0].setting,
        crossings([b.published for b in blocks]),
        crossings([b.early for b in blocks]),
        np.concatenate([b.last_gain for b in blocks]),
        np.concatenate([b.last_drop for b in blocks]),
        np.concatenate([b.last_parameters for b in blocks], axis=1),
    )
