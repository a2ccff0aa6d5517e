"""Adjusted p-values for several comparisons, to be read like a single one's. Source: measurement section 7.

Comparisons without a p-value (NaN) are not counted and stay NaN. Shapes (m,).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def holm(p_values: ArrayLike) -> Floats:
    """Step-down adjustment of Holm (1979): bounds the chance of any false finding. For a study's primary contrast."""
    p = np.asarray(p_values, dtype=np.float64)
    order, m = _ranked(p)
    adjusted = np.full_like(p, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(m, 0, -1)), 1.0)
    return adjusted


def benjamini_hochberg(p_values: ArrayLike) -> Floats:
    """Step-up adjustment of Benjamini and Hochberg (1995): bounds the share of false findings. For what is exploratory."""
    p = np.asarray(p_values, dtype=np.float64)
    order, m = _ranked(p)
    scaled = p[order] * (m / np.arange(1, m + 1))
    adjusted = np.full_like(p, np.nan)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return adjusted


def _ranked(p: Floats) -> tuple[NDArray[np.intp], int]:
    """Positions of the known p-values from small to large, and how many there are."""
    m = int(np.count_nonzero(~np.isnan(p)))
    return np.argsort(p, kind="stable")[:m], m
