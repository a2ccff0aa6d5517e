"""The published setting, and the printed figures beside what it gives here.

`published.csv` holds one printed number a row; `status` says how it was read: `paper` (the paper's text and program, one
run of one seed) or `rerun` (someone's re-implementation of it, mean over `seeds` seeds).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from scipy.special import stdtrit

from retain_core.simulate.dynamics import Setting, initial_overlaps
from retain_core.simulate.matched import PUBLISHED_GAIN, Outcome
from retain_core.simulate.mixture import Floats

NO_FLOOR = "one mode reverse without floor"
LONGER = "two modes forward lr .01 longer"
RUNS: dict[str, Setting] = {
    "one mode forward": Setting("one mode", "forward", 0.05, 1000, until=PUBLISHED_GAIN),
    "one mode reverse": Setting("one mode", "reverse", 0.005, 1000, until=PUBLISHED_GAIN),
    NO_FLOOR: Setting("one mode", "reverse", 0.005, 1000, floor=0.0, until=PUBLISHED_GAIN),
    "two modes forward": Setting("two modes", "forward", 0.15, 200),
    "two modes forward lr .01": Setting("two modes", "forward", 0.01, 200),
    LONGER: Setting("two modes", "forward", 0.01, 1000, until=PUBLISHED_GAIN),
    "two modes reverse": Setting("two modes", "reverse", 0.01, 200),
}
"""The five published runs; one without the floor, which the paper's formulas do not have; one that is given more steps."""


@dataclass(frozen=True)
class Figure:
    """One printed number, over how many seeds it was taken, and how it was read."""

    run: str
    quantity: str
    printed: str
    seeds: int
    status: str
    note: str


@dataclass(frozen=True)
class Comparison:
    """A printed number and ours: mean and spread over our seeds. None where a seed has no value, or there is one seed."""

    figure: Figure
    here: float | None
    sd: float | None
    agrees: bool | None


def figures() -> list[Figure]:
    """Every printed number of the package's file."""
    text = files("retain_core.simulate").joinpath("published.csv").read_text(encoding="utf-8")
    return [
        Figure(row["run"], row["quantity"], row["value"], int(row["seeds"]), row["status"], row["note"])
        for row in csv.DictReader(text.splitlines())
    ]


def compare(figure: Figure, outcome: Outcome) -> Comparison:
    """Whether a printed mean over its seeds may well be a draw from what is seen here.

    It agrees if it is within half a unit of its last digit plus the half-width of a 95 % prediction interval,
    t sd sqrt(1/S + 1/S'), S seeds here and S' there. One seed here cannot tell.
    """
    values = values_of(outcome, figure.quantity)
    if np.isnan(values).any():
        return Comparison(figure, None, None, False)
    n, mean = len(values), float(values.mean())
    if n == 1:
        return Comparison(figure, mean, None, None)
    sd = float(values.std(ddof=1))
    half = float(stdtrit(n - 1, 0.975)) * sd * np.sqrt(1 / n + 1 / figure.seeds)
    within = abs(mean - float(figure.printed)) <= half + _half_unit(figure.printed) + 1e-9
    return Comparison(figure, mean, sd, bool(within))


def values_of(outcome: Outcome, quantity: str) -> Floats:
    """One value a seed of a quantity that the file names, NaN where a seed did not reach the gain."""
    crossing = outcome.published
    old, new = initial_overlaps(outcome.setting.start)
    seeds = np.ones_like(crossing.step)
    found: dict[str, Floats] = {
        "step": crossing.step,
        "gain": crossing.gain,
        "drop": crossing.drop,
        "reached": np.isfinite(crossing.step).astype(np.float64),
        "last_gain": outcome.last_gain,
        "last_drop": outcome.last_drop,
        "last_old_weight": outcome.last_parameters[0],
        "old_overlap": old * seeds,
        "new_overlap": new * seeds,
    }
    return found[quantity]


def _half_unit(printed: str) -> float:
    """Half a unit of the last digit of a printed number: 0.005 of "0.12"."""
    return float(0.5 * 10.0 ** -len(printed.partition(".")[2]))
