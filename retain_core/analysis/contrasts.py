"""Contrasts between methods: the verdict of a study, and everything else as exploration (measurement: sections 2, 3, 7).

A contrast is drop of a minus drop of b. The base cancels: it is score of b minus score of a, item by item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from retain_core.analysis.cells import components_of, others
from retain_core.analysis.matching import Curves, Half, pool, state_of
from retain_core.analysis.scores import Cell, Floats, Questions, StudyScores, clusters_of, half
from retain_core.stats.crossed import Components, Interval, contrast_interval, refused
from retain_core.stats.matched import NOT_REACHED, Curve, crossing, matched_contrast
from retain_core.stats.multiple import benjamini_hochberg, holm
from retain_core.stats.power import type_s_m
from retain_core.stats.sequential import interval_levels
from retain_core.stats.verdict import Matching, Prediction, robust, verdict

LAST = "last"
EXPLORATORY = "exploratory"
"""The word of a contrast whose interval leaves out 0 although no sign was declared for it."""
DEFAULT_GAIN, DEFAULT_MARGIN = 0.05, 0.02


@dataclass(frozen=True)
class Declared:
    """What a study declares before training, with what happened since."""

    a: str | None
    b: str | None
    predict: Prediction
    at: str
    gain: float
    margin: float
    look: int = 1
    level: float = 0.05
    """Nominal two-sided level of this look."""
    withheld: str | None = None
    """Why there is no verdict: a control that failed or was not run."""


@dataclass(frozen=True)
class PerBenchmark:
    """The contrast on one benchmark, and the contrast without it."""

    benchmark: str
    near: bool
    interval: Interval
    p_holm: float
    diff_without: float


@dataclass(frozen=True)
class Contrast:
    """One row of `contrasts`."""

    a: str
    b: str
    at: str
    rates: tuple[float | None, float | None]
    interval: Interval
    interval_90: tuple[float, float]
    level: float
    """Nominal two-sided level of `interval`."""
    rule: str
    primary: bool
    word: str
    reason: str | None
    robust: bool | None
    p_adjusted: float
    diff_far: float
    type_s: float
    type_m: float
    benchmarks: tuple[PerBenchmark, ...]


def declared(scores: StudyScores, look: int, level: float, withheld: str | None) -> Declared:
    """The study's declaration, with defaults where it declares nothing."""
    primary = scores.spec.get("primary") or {}
    a, b = primary.get("contrast") or (None, None)
    gain = primary.get("at_gain")
    at = LAST if primary.get("at") == LAST else at_gain(gain or DEFAULT_GAIN)
    margin = primary.get("margin", DEFAULT_MARGIN)
    return Declared(a, b, primary.get("predict", ">"), at, gain or DEFAULT_GAIN, margin, look, level, withheld)


def at_gain(gain: float) -> str:
    """How a contrast at matched gain is named: `gain=0.05`."""
    return f"gain={gain:g}"


def contrasts(scores: StudyScores, curves: Curves, said: Declared) -> list[Contrast]:
    """The primary contrast first, then every other pair at the last checkpoint and at the study's gain.

    The blends of a method meet that method at the study's gain only: at the last checkpoint they are the same models.
    Inside the primary contrast Holm's adjustment runs over its benchmarks; Benjamini and Hochberg's runs
    over everything else.
    """
    primary = [_primary(scores, curves, said)] if said.a and said.b else []
    rest: list[Pair] = []
    trained = list(combinations(dict.fromkeys(cell.method for cell in scores.methods()), 2))
    blended = list(dict.fromkeys((cell.method, cell.parent.method) for cell in scores.interpolated if cell.parent))
    for a, b in (*trained, *blended):
        rest += _at_last(scores, a, b)
        declared_here = {a, b} == {said.a, said.b} and said.at != LAST
        if a in curves.cells and b in curves.cells and not declared_here:
            rest.append(AtGain(scores, curves, a, b, said.gain))
    adjusted = benjamini_hochberg([pair.whole.p_value() for pair in rest])
    found = [_row(pair, said, pair.whole.p_value(), primary=True) for pair in primary]
    return found + [_row(pair, said, float(p), primary=False) for pair, p in zip(rest, adjusted, strict=True)]


class AtLast:
    """Two cells at their last checkpoints."""

    at = LAST
    state: Matching = "reached"

    def __init__(self, scores: StudyScores, a: Cell, b: Cell, rule: str, part: Half | None = None, level: float = 0.05) -> None:
        self.scores, self.a, self.b, self.rule, self.part, self.level = scores, a.method, b.method, rule, part, level
        self.cells = (a, b)
        self.rates = (a.learning_rate, b.learning_rate)
        self.whole = self.interval(scores.retention)

    def interval(self, questions: Sequence[Questions]) -> Interval:
        """The contrast on some of the benchmarks."""
        if self.part and (few := self.scores.too_few()):
            return refused(float("nan"), few, 0, 0)
        masks = [half(q, self.part) if self.part else None for q in questions]
        clusters = [clusters_of(q, mask) for q, mask in zip(questions, masks, strict=True)]

        def tables(cell: Cell) -> list[Floats]:
            return [self.scores.of(q, cell.last(), mask) for q, mask in zip(questions, masks, strict=True)]

        # Of drops, not of scores: arms are alike by what they lost.
        parts = {cell: components_of(self.scores, cell, questions, self.part) for cell in self.scores.cells}
        a, b = self.cells
        like_a, like_b = others(a, parts), others(b, parts)
        return contrast_interval(tables(a), tables(b), like_a, like_b, clusters, level=1 - self.level)

    def estimate(self, questions: Sequence[Questions]) -> float:
        """The contrast on some of the benchmarks, without its interval."""
        masks = [half(q, self.part) if self.part else None for q in questions]
        each = [
            [self.scores.of(q, cell.last(), mask).mean() for cell in self.cells]
            for q, mask in zip(questions, masks, strict=True)
        ]
        return float(np.mean([b - a for a, b in each])) if each else float("nan")


class AtGain:
    """Two methods where they have gained the same, each at the learning rate that lost least there on `select`."""

    def __init__(
        self,
        scores: StudyScores,
        curves: Curves,
        a: str,
        b: str,
        gain: float,
        level: float = 0.05,
    ) -> None:
        self.scores, self.a, self.b, self.gain, self.level = scores, a, b, gain, level
        self.at, self.rates = at_gain(gain), (curves.chosen(a, gain), curves.chosen(b, gain))
        exact = "exact " if scores.exact else ""
        self.rule = f"{exact}gain {gain:g}; learning rate with the lowest drop there on select, shown on report"
        self._sides: list[Curve] = []
        self._pools: list[list[Components]] = [[], []]
        if few := scores.too_few():
            self.whole = refused(float("nan"), few, 0, 0)
        elif self.rates[0] is None or self.rates[1] is None:
            self.whole = refused(float("nan"), NOT_REACHED, 0, 0)
        else:
            cells = [curves.cells[method][rate] for method, rate in zip((a, b), self.rates, strict=True) if rate is not None]
            parts = curves.components(gain, "gain")
            self._sides = [curves.of(cell, "report") for cell in cells]
            self._pools = [pool(cell, parts) for cell in cells]
            a_side, b_side = self._sides
            self.whole = matched_contrast(a_side, b_side, gain, self._pools[0], self._pools[1], 1 - level)
        self.state = state_of(self.whole.rule)

    def interval(self, questions: Sequence[Questions]) -> Interval:
        """The contrast on some of the benchmarks; their seed variance is each method's own."""
        a, b = self._only(questions)
        return matched_contrast(a, b, self.gain, level=1 - self.level)

    def estimate(self, questions: Sequence[Questions]) -> float:
        """The contrast on some of the benchmarks, without its interval."""
        found = [crossing(curve, self.gain) for curve in self._only(questions)] if questions else []
        drops = [hit.drop for hit in found if hit is not None]
        return drops[0] - drops[1] if len(drops) == 2 else float("nan")

    def _only(self, questions: Sequence[Questions]) -> tuple[Curve, Curve]:
        places = [i for i, q in enumerate(self.scores.retention) if q in questions]

        def cut(curve: Curve) -> Curve:
            labels = curve.drop_clusters or [None] * len(curve.drops)
            return replace(curve, drops=[curve.drops[i] for i in places], drop_clusters=[labels[i] for i in places])

        return cut(self._sides[0]), cut(self._sides[1])


Pair = AtLast | AtGain


def _primary(scores: StudyScores, curves: Curves, said: Declared) -> Pair:
    assert said.a is not None
    assert said.b is not None
    cells = [_best_at_last(scores, method) for method in (said.a, said.b)]
    if said.at == LAST and cells[0] and cells[1]:
        gain = "mean gain on all targets" if scores.later else "gain"
        rule = f"last checkpoint; learning rate with the highest {gain} on select, shown on report"
        return AtLast(scores, cells[0], cells[1], rule, "report", said.level)
    pair = AtGain(scores, curves, said.a, said.b, said.gain, said.level)
    if said.at == LAST:  # one of them has no finished arm, so nothing is reached at any gain either
        pair.at, pair.rule = LAST, "last checkpoint; a method has no finished arm"
    return pair


def _best_at_last(scores: StudyScores, method: str) -> Cell | None:
    """The cell of a method with the highest gain on `select`, the mean over its targets; the smaller rate of equals."""
    targets = scores.targets_exact or scores.targets
    cells = [c for c in scores.methods() if c.method == method]
    if not targets or not cells or scores.too_few():
        return cells[0] if cells else None
    gains = [np.mean([-scores.drops(q, cell.last(), q.select).mean() for q in targets]) for cell in cells]
    return cells[int(np.argmax(gains))]


def _at_last(scores: StudyScores, a: str, b: str) -> list[AtLast]:
    """Two methods at each learning rate that both have, on all items: nothing is chosen."""
    of_a, of_b = ([c for c in scores.methods() if c.method == m] for m in (a, b))
    # An external model has no learning rate: it meets every rate of the other method.
    return [
        AtLast(scores, x, y, "last checkpoint, same learning rate, all items")
        for x in of_a
        for y in of_b
        if x.learning_rate == y.learning_rate or None in (x.learning_rate, y.learning_rate)
    ]


def _row(pair: Pair, said: Declared, p_adjusted: float, primary: bool) -> Contrast:
    """Everything that is said of one pair."""
    missing, whole, retention = float("nan"), pair.whole, pair.scores.retention
    read = pair.state == "reached" and np.isfinite(whole.estimate)
    without = [pair.estimate([q for q in retention if q is not left]) if read else missing for left in retention]
    far = [q for q in retention if not q.near]
    confidence, narrower = interval_levels(pair.level)
    intervals = [(i.low, i.high) for i in (whole.at(confidence), whole.at(narrower))]
    controls, predict = said.withheld is None, said.predict
    word: str = verdict(
        controls_passed=controls, matching=pair.state, interval_95=intervals[0], interval_90=intervals[1],
        predict=predict, margin=said.margin,
    )  # fmt: skip
    if not primary and word in ("supported", "reversed"):
        word = EXPLORATORY
    known = bool(whole.stderr > 0)
    worth = type_s_m(said.margin, whole.stderr, whole.df, pair.level) if known else None
    return Contrast(
        a=pair.a,
        b=pair.b,
        at=pair.at,
        rates=pair.rates,
        interval=whole,
        interval_90=intervals[1],
        level=pair.level,
        rule=f"{pair.rule}; {whole.rule}",
        primary=primary,
        word=word,
        reason=said.withheld if word == "withheld" else None,
        robust=robust(whole.estimate, without) if read else None,
        p_adjusted=p_adjusted,
        diff_far=pair.estimate(far) if read and far else missing,
        type_s=worth.type_s if worth else missing,
        type_m=worth.type_m if worth else missing,
        benchmarks=_per_benchmark(pair, without) if primary and read else (),
    )


def _per_benchmark(pair: Pair, without: Sequence[float]) -> tuple[PerBenchmark, ...]:
    retention = pair.scores.retention
    each = [pair.interval([q]) for q in retention]
    adjusted = holm([interval.p_value() for interval in each])
    return tuple(
        PerBenchmark(q.benchmark, q.near, interval, float(p), left)
        for q, interval, p, left in zip(retention, each, adjusted, without, strict=True)
    )
