"""The target of the simulation, and how much of each of its modes a policy covers. Source: paper section 4.1, 4.2."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

GRID_POINTS = 500


class Component(NamedTuple):
    """A weighted normal density on the line."""

    weight: float
    mean: float
    sd: float


OLD = Component(0.75, -3.0, 1.0)
NEW = Component(0.25, 3.5, 0.7)


def log_kernel(y: Floats, mean: Floats | float, sd: Floats | float, weight: Floats | float = 1.0) -> Floats:
    """Log density at y of a weighted normal, up to -log(2 pi)/2, which cancels in every ratio of densities here."""
    values: Floats = y - mean
    values *= values
    values *= -0.5 / sd**2
    values += np.log(weight / sd)
    return values


class Ruler:
    """Measures a policy against both modes of the target by the trapezoid rule on [-limit, limit], 500 points."""

    def __init__(self, limit: float) -> None:
        self.grid: Floats = np.linspace(-limit, limit, GRID_POINTS)
        self.modes = [self.density(np.array([mode]).T)[0] for mode in (OLD, NEW)]
        self.areas = [float(self._trapezoid(mode)) for mode in self.modes]

    def density(self, component: Floats) -> Floats:
        """Weighted normal densities on the grid, (seeds, points), from (3, seeds): weight, mean and sd."""
        weight, mean, sd = component[:, :, None]
        values = log_kernel(self.grid, mean, sd, weight / np.sqrt(2 * np.pi))
        np.exp(values, out=values)
        return values

    def overlaps(self, old: Floats, new: Floats) -> tuple[Floats, Floats]:
        """The share of the old and of the new mode that a policy's densities cover, one number in [0, 1] a seed.

        It is the area under the lower of the two curves, over the area of the target's mode.
        """
        covered = [self._trapezoid(np.minimum(q, p)) for q, p in zip((old, new), self.modes, strict=True)]
        return covered[0] / self.areas[0], covered[1] / self.areas[1]

    def _trapezoid(self, values: Floats) -> Floats:
        ends = (values[..., 0] + values[..., -1]) / 2
        area: Floats = (values.sum(axis=-1) - ends) * (self.grid[1] - self.grid[0])
        return area
