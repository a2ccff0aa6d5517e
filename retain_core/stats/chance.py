"""What guessing does to drops: the share really known, flips that mean nothing, and the corrected drop.

The model: of items with k choices a share is known and answered right; the rest is guessed, right one time in k.
A closed set of generated answers has chance levels too (6 colours: k = 6). Source: measurement section 5.
Base accuracies, rates and drops are fractions; arguments may be arrays. ValueError for fewer than two choices.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def known_share(base_accuracy: ArrayLike, k: ArrayLike) -> Floats:
    """Share of the items that the base knows: (k a - 1) / (k - 1), at least 0 (a base below chance knows nothing)."""
    choices = _choices(k)
    return np.clip((choices * np.asarray(base_accuracy, dtype=np.float64) - 1) / (choices - 1), 0.0, 1.0)


def null_lost_rates(base_accuracy: ArrayLike, k: ArrayLike) -> tuple[Floats, Floats]:
    """Right-to-wrong flips per item where nothing was forgotten: (0 if guesses persist, the rate if they are redrawn).

    The upper one is (1 - known)(k - 1) / k^2. It holds for a base below chance too, whose redrawn guesses flip less.
    """
    choices = _choices(k)
    redrawn = (1 - known_share(base_accuracy, choices)) * (choices - 1) / choices**2
    return np.zeros_like(redrawn), redrawn


def chance_corrected_drop(drop: ArrayLike, k: ArrayLike) -> Floats:
    """Share of the items that was known and is no longer, net: drop k / (k - 1). Signed, nothing is cut at 0."""
    choices = _choices(k)
    return np.asarray(drop, dtype=np.float64) * choices / (choices - 1)


def _choices(k: ArrayLike) -> Floats:
    choices = np.asarray(k, dtype=np.float64)
    if (choices < 2).any():
        raise ValueError(f"guessing needs at least two choices, not {choices.min():g}")
    return choices
