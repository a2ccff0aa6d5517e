"""Does KL to the base predict the drop, and better than what is trivially known? Source: measurement section 8.

A second-degree polynomial of each predictor, as in RL's Razor (arXiv 2509.04259). The headline figure is R2 with
one method left out: each method's drops are predicted by a fit to the others. Intervals resample whole runs (arms),
as checkpoints of one run are not independent. All fits come from power sums per run, so that a resample costs a
few sums and one 3 x 3 system per method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

KL = "kl"
FEWEST_METHODS = 3
FEWEST_RUNS = 6
"""Fewer runs than this cannot be resampled to any purpose."""
BETTER = 0.95
"""Share of the resamples in which KL must predict better than every trivial predictor."""

_FLAT = 1e-10
"""A fit is degenerate where the determinant is this small beside the product of the diagonal."""

Floats = NDArray[np.float64]
Labels = NDArray[np.intp]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class LawRow:
    """How well one predictor explains the drop of checkpoints; R2 is 1 for all of it, below 0 for worse than the mean.

    `low` and `high` are the 95 % interval of `r2_left_out`. `kl_better` is the share of joint resamples in which KL has
    the higher `r2_left_out` (NaN for KL itself). `beats_all_trivial`, in KL's row only: it has the highest `r2_left_out`,
    and beats all others at once in 95 % of the resamples. `reason` says why the figures are NaN.
    """

    name: str
    r2_in: float
    r2_left_out: float
    low: float
    high: float
    kl_better: float
    beats_all_trivial: bool | None
    n_checkpoints: int
    n_runs: int
    n_methods: int
    reason: str = ""


def kl_law(
    kl: ArrayLike,
    drop: ArrayLike,
    runs: ArrayLike,
    methods: ArrayLike,
    predictors: Mapping[str, ArrayLike],
    rng: np.random.Generator,
    resamples: int = 2000,
) -> list[LawRow]:
    """One row for KL and one for each trivial predictor (step x learning rate, distance in weights, gain).

    All arrays have one entry per checkpoint, base rows left out; `runs` names the arm, `methods` its method. Checkpoints
    with a missing figure are left out for every predictor, so that all rows speak of the same ones.
    """
    names = [KL, *predictors]
    x = np.array([kl, *predictors.values()], dtype=np.float64)
    y = np.asarray(drop, dtype=np.float64)
    known = np.isfinite(x).all(axis=0) & np.isfinite(y)
    x, y = x[:, known], y[known]
    run_names, run = np.unique(np.asarray(runs)[known], return_inverse=True)
    method_names, method = np.unique(np.asarray(methods)[known], return_inverse=True)
    counts = (y.size, run_names.size, method_names.size)
    reason = _too_few(run_names.size, method_names.size) or ("" if np.ptp(y) > 0 else "the drop does not vary")
    if reason:
        return [_nothing(name, counts, reason) for name in names]
    # Unweighted sums first, then one row of run weights per resample.
    weights = np.vstack([np.ones(counts[1]), rng.multinomial(counts[1], np.full(counts[1], 1 / counts[1]), size=resamples)])
    fits = [_r2(values, y, run, method, weights) for values in x]
    left_out = np.array([outside for _, outside in fits])
    return [
        _row(name, fits[i][0][0], left_out, i, counts) if np.ptp(x[i]) > 0 else _nothing(name, counts, "it does not vary")
        for i, name in enumerate(names)
    ]


def quadratic_r2(x: ArrayLike, y: ArrayLike, groups: ArrayLike) -> tuple[float, float]:
    """R2 of y on 1, x and x squared: in sample, and with each group predicted by a fit to the others."""
    group = np.unique(np.asarray(groups), return_inverse=True)[1]
    inside, outside = _r2(
        np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), group, group, np.ones((1, group.max() + 1))
    )
    return float(inside[0]), float(outside[0])


def _r2(x: Floats, y: Floats, run: Labels, method: Labels, weights: Floats) -> tuple[Floats, Floats]:
    """In-sample and left-out R2 of each row of run weights; NaN where a fit is degenerate. Shapes (rows,)."""
    y = y - y.mean()
    everything = np.ones(y.size, dtype=bool)
    total = _sums(x, y, run, weights, everything, everything)
    around_mean = total[:, 3, 3] - total[:, 0, 3] ** 2 / total[:, 0, 0]
    inside = _squared_error(total, _coefficients(total))
    outside = np.zeros(len(weights))
    for left in range(method.max() + 1):
        mine = method == left
        others = _coefficients(_sums(x, y, run, weights, ~mine, ~mine))
        own = _sums(x, y, run, weights, mine, ~mine)
        # A method that a resample does not hold has nothing to predict.
        outside += np.where(own[:, 0, 0] > 0, _squared_error(own, others), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1 - inside / around_mean, 1 - outside / around_mean


def _sums(x: Floats, y: Floats, run: Labels, weights: Floats, of: Flags, scale: Flags) -> Floats:
    """Sums over the points `of` of all products of (1, z, z squared, y), per row of run weights. Shape (rows, 4, 4).

    z is x in standard units of the points `scale`, those that are fitted: methods may differ a hundredfold in KL, and
    the square would otherwise be lost beside the constant.
    """
    z = (x[of] - x[scale].mean()) / (np.std(x[scale]) or 1.0)
    features = np.stack([np.ones_like(z), z, z**2, y[of]], axis=1)
    by_run = np.zeros((weights.shape[1], 4, 4))
    np.add.at(by_run, run[of], features[:, :, None] * features[:, None, :])
    return np.asarray(np.tensordot(weights, by_run, axes=1))


def _coefficients(sums: Floats) -> Floats:
    """Least squares from sums of products (..., 4, 4), the last feature being y. NaN where they are degenerate."""
    xx, xy = sums[..., :3, :3], sums[..., :3, 3]
    flat = ~(np.linalg.det(xx) > _FLAT * xx[..., 0, 0] * xx[..., 1, 1] * xx[..., 2, 2])
    solved = np.linalg.solve(np.where(flat[..., None, None], np.eye(3), xx), xy[..., None])[..., 0]
    return np.where(flat[..., None], np.nan, solved)


def _squared_error(sums: Floats, coefficients: Floats) -> Floats:
    """Sum of (y - prediction)^2 over the points whose sums of products are given."""
    signed = np.concatenate([-coefficients, np.ones_like(coefficients[..., :1])], axis=-1)
    return np.asarray(np.einsum("...i,...ij,...j->...", signed, sums, signed))


def _row(name: str, inside: float, left_out: Floats, i: int, counts: tuple[int, int, int]) -> LawRow:
    usable = left_out[i, 1:][np.isfinite(left_out[i, 1:])]
    low, high = np.quantile(usable, [0.025, 0.975]) if usable.size else (np.nan, np.nan)
    better = _share_better(left_out[0], left_out[i : i + 1]) if i else float("nan")
    beats = None
    if i == 0 and len(left_out) > 1:
        highest = bool(left_out[0, 0] > np.nanmax(left_out[1:, 0], initial=-np.inf))
        beats = highest and _share_better(left_out[0], left_out[1:]) >= BETTER
    reason = "" if np.isfinite(left_out[i, 0]) else "the other methods do not determine a curve"
    return LawRow(name, float(inside), float(left_out[i, 0]), float(low), float(high), better, beats, *counts, reason)


def _share_better(kl: Floats, others: Floats) -> float:
    """Share of resamples in which KL has an R2 above all the others; one that cannot be fitted is no rival."""
    rivals = np.where(np.isfinite(others[:, 1:]), others[:, 1:], -np.inf).max(axis=0)
    usable = np.isfinite(kl[1:])
    return float(np.mean(kl[1:][usable] > rivals[usable])) if usable.any() else float("nan")


def _too_few(runs: int, methods: int) -> str:
    if methods < FEWEST_METHODS:
        return f"{methods} methods: leaving one out needs {FEWEST_METHODS}"
    return f"{runs} runs: resampling them needs {FEWEST_RUNS}" if runs < FEWEST_RUNS else ""


def _nothing(name: str, counts: tuple[int, int, int], reason: str) -> LawRow:
    nan = float("nan")
    return LawRow(name, nan, nan, nan, nan, nan, None, *counts, reason)
