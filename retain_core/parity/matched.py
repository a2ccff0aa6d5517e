"""Drop of the old job where the arms have gained the same on parity, with an interval over bases.

Source: measurement sections 3 and 4. A curve is one arm at one learning rate, averaged over bases. The learning rate with
the lowest drop at the gain is chosen on one half of the old test images, and the drop there shown on the other half. Bases
vary in both gain and drop: each counts with its drop less the slope of drop in gain times its lead in gain. An arm is
"not reached" where the gain is more than .8 of the arm's largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retain_core.parity.methods import ARMS, GRPO, GRPO_KL, SFT_1, SFT_2, SFT_ORACLE
from retain_core.parity.training import Point
from retain_core.simulate.matched import MARGIN, Summary, summarise
from retain_core.stats.matched import SHARE_OF_LARGEST, Curve, crossing, isotonic
from retain_core.stats.paired import paired_interval
from retain_core.stats.verdict import Prediction, Word, verdict

GAINS = (0.05, 0.07)
"""Shares of parity images; the arms' largest gain is about .1."""
CONTRASTS: tuple[tuple[str, str, Prediction], ...] = (
    (SFT_ORACLE, GRPO, "<"),
    (GRPO, SFT_1, "<"),
    (GRPO, SFT_2, "<"),
    (GRPO_KL, GRPO, "<"),
    (SFT_ORACLE, GRPO_KL, "<"),
)
"""Which drops are subtracted, and the sign that RL's Razor claims: oracle SFT <= GRPO < SFT, and KL helps."""

Floats = NDArray[np.float64]


class AtGain(NamedTuple):
    """One arm at one gain: what was chosen on one half, and one drop a base on the other. None, NaN: not reached."""

    arm: str
    gain: float
    learning_rate: float | None
    at_edge: bool
    step: float
    drops: Floats | None
    summary: Summary | None


class Contrast(NamedTuple):
    """Drop of `a` less drop of `b` at the same gain, paired by base; None: one of them does not reach it."""

    a: str
    b: str
    gain: float
    predict: Prediction
    difference: Summary | None
    verdict: Word


def at_gains(points: Sequence[Point], gains: Sequence[float] = GAINS) -> list[AtGain]:
    """Every arm at every gain, gain by gain."""
    return [_at_gain(arm, points, gain) for gain in gains for arm in ARMS]


def contrasts(found: Sequence[AtGain]) -> list[Contrast]:
    """The claimed order, at every gain. The word is that of `stats.verdict`; the margin is the mixture's, 2 points."""
    by_name = {(row.arm, row.gain): row for row in found}
    gains = dict.fromkeys(row.gain for row in found)
    return [_contrast(by_name[a, gain], by_name[b, gain], predict) for gain in gains for a, b, predict in CONTRASTS]


def _at_gain(arm: str, points: Sequence[Point], gain: float) -> AtGain:
    mine = [p for p in points if p.arm == arm]
    rates = sorted({p.learning_rate for p in mine})
    chosen: tuple[float, float] | None = None
    largest = max(float(isotonic(_curve(mine, rate, "drop_select").mean_axis)[-1]) for rate in rates)
    if gain <= SHARE_OF_LARGEST * largest:
        crossings = [(crossing(_curve(mine, rate, "drop_select"), gain), rate) for rate in rates]
        chosen = min(((found.drop, rate) for found, rate in crossings if found), default=None)
    if chosen is None:
        return AtGain(arm, gain, None, False, float("nan"), None, None)
    rate = chosen[1]
    curve = _curve(mine, rate, "drop_report")
    found = crossing(curve, gain)
    assert found is not None
    drops = curve.drops[0][:, :, 0] @ found.weights - found.slope * (curve.axis @ found.weights - gain)
    return AtGain(arm, gain, rate, rate in (rates[0], rates[-1]), found.step, drops, summarise(drops))


def _curve(points: Sequence[Point], rate: float, half: str) -> Curve:
    """Gain and drop of every base at every checkpoint, the base itself first."""
    mine = [p for p in points if p.learning_rate == rate]
    bases, steps = sorted({p.base for p in mine}), sorted({p.step for p in mine})
    gain, drop = np.zeros((2, len(bases), 1 + len(steps)))
    for p in mine:
        at = bases.index(p.base), 1 + steps.index(p.step)
        gain[at], drop[at] = p.gain, getattr(p, half)
    return Curve([0, *steps], gain, [drop[:, :, None]])


def _contrast(a: AtGain, b: AtGain, predict: Prediction) -> Contrast:
    if a.drops is None or b.drops is None:
        return Contrast(a.arm, b.arm, a.gain, predict, None, "not reached")
    found = summarise(a.drops - b.drops)
    assert found is not None
    low, high = paired_interval(found.mean, found.sd / np.sqrt(found.n), found.n - 1, 0.9)
    word = verdict(
        controls_passed=True, matching="reached", interval_95=(found.low, found.high),
        interval_90=(float(low), float(high)), predict=predict, margin=MARGIN,
    )  # fmt: skip
    return Contrast(a.arm, b.arm, a.gain, predict, found, word)
