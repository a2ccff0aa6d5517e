"""The one word that a contrast gets, and whether it is robust. Source: measurement section 7.

A contrast is drop of a minus drop of b; the prediction is its sign, declared before training.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

Word = Literal["withheld", "not reached", "too noisy", "equivalent", "supported", "reversed", "inconclusive"]
Matching = Literal["reached", "not reached", "too noisy"]
Prediction = Literal[">", "<"]
Interval = tuple[float, float]


def verdict(
    *,
    controls_passed: bool | None,
    matching: Matching,
    interval_95: Interval,
    interval_90: Interval,
    predict: Prediction,
    margin: float,
) -> Word:
    """The first word that holds, in the order of `Word`.

    `controls_passed` is None where none were run: no verdict then either. `matching` is "reached" where the
    contrast is taken at the last step. Intervals and margin are fractions; after a sequential look both
    intervals are at that look's level (`sequential.interval_levels`). An interval of NaN (one seed) decides
    nothing: inconclusive. The intervals are open: one that only touches 0 or the margin is not inside.
    """
    if not controls_passed:
        return "withheld"
    if matching != "reached":
        return matching
    if -margin < interval_90[0] and interval_90[1] < margin:
        return "equivalent"
    low, high = interval_95 if predict == ">" else (-interval_95[1], -interval_95[0])
    if low > 0:
        return "supported"
    return "reversed" if high < 0 else "inconclusive"


def robust(estimate: float, leave_one_out: ArrayLike) -> bool:
    """Whether the sign of the estimate survives leaving out any one benchmark.

    `leave_one_out` holds the estimate without each benchmark in turn, one entry per benchmark. False with
    fewer than two benchmarks (nothing is left to look at), for an estimate of 0, and where any is NaN.
    """
    left = np.asarray(leave_one_out, dtype=np.float64)
    return bool(left.size > 1 and estimate != 0 and np.all(np.sign(left) == np.sign(estimate)))
