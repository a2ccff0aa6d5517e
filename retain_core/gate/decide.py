"""The decision about one model, from its answers paired with those of its base.

The rule is that of a declared contrast (measurement section 7), with the prediction that the model lost something:
ALLOW stands where "equivalent" does (the loss is shown to be below the margin), REJECT where "supported" does (a loss is
shown, and it is not shown to be below the margin), INCONCLUSIVE for the rest. A gain of any size is no reason against a model,
so only the upper side of the margin counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.optimize import brentq

from retain_core.compare.runs import DETECTABLE, Comparison, Mean, Row, mean_drop
from retain_core.errors import InputError
from retain_core.stats.noninferior import largest_drop
from retain_core.stats.paired import paired_interval

Word = Literal["ALLOW", "REJECT", "INCONCLUSIVE"]
EXIT_CODES: dict[Word, int] = {"ALLOW": 0, "REJECT": 3, "INCONCLUSIVE": 4}
"""Beside 1 for a failure and 2 for wrong input, as everywhere."""
ALLOWS, REJECTS = 0.95, 0.975
"""One-sided levels: the ends of a 90 % and of a 95 % interval."""
_Z = 1.645
"""The normal quantile of `ALLOWS`."""
_POWER = 0.842
"""The normal quantile of 4 times in 5."""
MOST_TIMES = 1e6


@dataclass(frozen=True)
class Decision:
    """What is decided and all that it was decided on. Drops and margin are fractions; + means that the model lost."""

    word: Word
    margin: float
    mean: Mean
    at_least: float | None
    """The drop is at least this, at the one-sided level `REJECTS`; None where an interval is refused."""
    at_most: float | None
    """The drop is at most this, at the one-sided level `ALLOWS`."""
    comparison: Comparison

    @property
    def counted(self) -> list[Row]:
        """The benchmarks that the mean is over."""
        return _counted(self.comparison.rows)

    @property
    def exit_code(self) -> int:
        """What the command line ends with."""
        return EXIT_CODES[self.word]

    @property
    def stderr(self) -> float | None:
        """Standard error of the mean drop, not below what so few flips leave open."""
        if self.at_most is None or self.mean.stderr is None:
            return None
        return max(self.mean.stderr, (self.at_most - self.mean.drop) / _Z)

    @property
    def detectable(self) -> float | None:
        """Smallest true mean drop that so many items show 4 times in 5."""
        return None if self.stderr is None else DETECTABLE * self.stderr

    @property
    def times(self) -> float | None:
        """How many times as many items on every benchmark would allow a model that lost nothing, 4 times in 5.

        Such a model is taken to change as many answers as this one did, as many for the better as for the worse.
        """
        return None if self.stderr is None else _times(self.counted, self.margin)

    @property
    def harmed(self) -> list[Row]:
        """Benchmarks that lost more than the margin, beyond chance after Holm: a mean over others can hide them."""
        return [row for row in self.counted if row.beyond_chance and row.drop > self.margin]


def decide(found: Comparison, margin: float) -> Decision:
    """Decide about the second model of a comparison; `margin` is the drop that would not matter, a fraction above 0.

    Raises InputError for a margin that is none, and where there is no benchmark to decide on.
    """
    if not 0 < margin < 1:
        raise InputError(f"a margin of {100 * margin:g} points decides nothing: give one between 0 and 100")
    mean = mean_drop(found.rows)
    if mean is None:
        raise InputError(
            "there is nothing to decide on: no benchmark of both has a score between 0 and 1 that counts as retention"
        )
    at_least, at_most = _bound(found.rows, mean, REJECTS, -1), _bound(found.rows, mean, ALLOWS, 1)
    word: Word = "INCONCLUSIVE"
    if at_most is not None and at_most < margin:
        word = "ALLOW"
    elif at_least is not None and at_least > 0:
        word = "REJECT"
    return Decision(word, margin, mean, at_least, at_most, found)


def _counted(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.role == "mean"]


def _bound(rows: Sequence[Row], mean: Mean, level: float, side: Literal[-1, 1]) -> float | None:
    """One-sided bound of the mean drop: the end of the printed kind of interval, or further out where flips are few.

    A t interval of 0/1 answers with few flips is too narrow, without any it has no width. So each benchmark also gets a score
    bound, and distances to bounds add in squares as standard errors do (Zou and Donner, 2008). None where one is refused.
    """
    if mean.stderr is None:
        return None
    reaches = [_reach(row, level, side) for row in _counted(rows)]
    by_score = math.sqrt(math.fsum(reach**2 for reach in reaches)) / mean.benchmarks
    return mean.drop + side * max(by_score, _half(mean.stderr, mean.df, level))


def _times(rows: Sequence[Row], margin: float) -> float:
    def beyond(log_times: float) -> float:
        k = math.exp(log_times)
        reaches, spread = zip(*(_expected(row, k) for row in rows), strict=True)
        return (math.hypot(*reaches) + _POWER * math.hypot(*spread)) / len(rows) - margin

    least, most = -math.log(MOST_TIMES), math.log(MOST_TIMES)
    if beyond(least) <= 0:
        return math.exp(least)
    return math.exp(brentq(beyond, least, most)) if beyond(most) < 0 else math.inf


def _expected(row: Row, k: float) -> tuple[float, float]:
    """Of k times as many items of a benchmark without a drop: distance of the bound, and standard error of the drop."""
    assert row.stderr is not None
    if _is_counted(row):
        flips = (row.lost + row.gained) * k  # type: ignore[operator]
        return largest_drop(flips / 2, flips / 2, row.n * k, ALLOWS), math.sqrt(flips) / (row.n * k)
    if row.stderr == 0:
        return largest_drop(0, 0, (row.clusters or row.n) * k, ALLOWS), 0.0
    return _half(row.stderr, row.df, ALLOWS) / math.sqrt(k), row.stderr / math.sqrt(k)


def _is_counted(row: Row) -> bool:
    """Whether the drop is (lost - gained) / n of items that stand alone and weigh the same."""
    if row.lost is None or row.gained is None or row.clusters is not None:
        return False
    return math.isclose(row.drop, (row.lost - row.gained) / row.n, abs_tol=1e-12)


def _reach(row: Row, level: float, side: Literal[-1, 1]) -> float:
    """How far the bound of one benchmark lies from its drop."""
    assert row.stderr is not None
    if _is_counted(row):
        flips = (row.lost, row.gained) if side > 0 else (row.gained, row.lost)
        return largest_drop(*flips, row.n, level) - side * row.drop  # type: ignore[arg-type]
    return _half(row.stderr, row.df, level) if row.stderr > 0 else largest_drop(0, 0, row.clusters or row.n, level)


def _half(stderr: float, df: float, level: float) -> float:
    return float(paired_interval(0.0, stderr, df, 2 * level - 1)[1])
