"""Two studies side by side: every method at every learning rate that both have, at its last checkpoints.

What differs between the two is the row's difference, drop of a - drop of b (measurement: sections 2 and 7). Where both
have the same base, items and settings the base cancels and items are paired, by the machinery of a study's own
contrasts; elsewhere the two drops are independent estimates. Seeds are nested in studies: the prompts of two arms are
not known to be the same. Nothing here was declared by a study, so everything is exploratory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import duckdb
import numpy as np

from retain_core.analysis.cells import components_of, others
from retain_core.analysis.scores import Cell, Floats, Questions, StudyScores, read_scores
from retain_core.arms import rate_text
from retain_core.compare.origin import study_origin
from retain_core.compare.settings import Setting, differing_settings
from retain_core.errors import InputError
from retain_core.imported.samples import count, few
from retain_core.stats.crossed import (
    Components,
    Interval,
    Labels,
    contrast_interval,
    independent_contrast_interval,
    mean_drop_interval,
)
from retain_core.stats.multiple import benjamini_hochberg

Pairing = Literal["same arms", "paired", "independent"]
"""`same arms`: trained once, named by both studies. `paired`: same base and items. `independent`: nothing is shared."""
SAME: Final = "same arms"
PAIRED: Final = "paired"
INDEPENDENT: Final = "independent"


@dataclass(frozen=True)
class Side:
    """One study's figures of a row, over the benchmarks that both have. Fractions."""

    seeds: int
    drop: Interval
    gain: Interval | None
    """None for a study without a target."""


@dataclass(frozen=True)
class MethodRow:
    """One method at one learning rate in both studies. Differences are a - b: above 0, a lost (or gained) more."""

    method: str
    learning_rate: float | None
    a: Side
    b: Side
    pairing: Pairing
    drop: Interval
    gain: Interval | None
    """None where the targets differ."""
    p_adjusted: float
    """Benjamini and Hochberg's, over the rows; the same arms are no comparison and do not count."""

    @property
    def beyond_chance(self) -> bool:
        """Whether the drops differ: adjusted p under 5 %."""
        return bool(self.p_adjusted < 0.05)


@dataclass(frozen=True)
class StudiesCompared:
    """Two studies, what differs between them, and every row that both have."""

    a: StudyScores
    b: StudyScores
    settings: tuple[Setting, ...]
    benchmarks: tuple[str, ...]
    """The drop is the mean over these."""
    rows: tuple[MethodRow, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    notes: tuple[str, ...]
    origin: tuple[Setting, ...]
    """Where both come from."""

    @property
    def same_base(self) -> bool:
        """Whether one base stands behind both."""
        return not any(setting.name.startswith("base") for setting in self.settings)

    @property
    def same_target(self) -> bool:
        """Whether both were trained for the same."""
        return not any(setting.name.startswith(("target", "then")) for setting in self.settings)


@dataclass(frozen=True)
class _Base:
    """What the base answered to one benchmark under one metric."""

    items: list[int]
    settings_hash: str
    scores: Floats


class _Study:
    """A study's part of the comparison: its cells, and the questions that the other study asks too."""

    def __init__(self, con: duckdb.DuckDBPyConnection, study: str) -> None:
        self.scores = read_scores(con, study)
        self.cells = {(cell.method, cell.learning_rate): cell for cell in self.scores.methods()}
        if not self.cells:
            raise InputError(f"{study} has no finished arm of a method yet, so there is nothing to compare")
        found = con.execute(_ARTIFACTS, {"study": study}).fetchall()
        self.artifacts = {(method, rate, seed): artifact for method, rate, seed, artifact in found}
        self.bases = {
            (benchmark, metric): _Base(items, settings, self.scores.of(_plain(benchmark, metric), [self.scores.base]))
            for benchmark, metric, items, settings in con.execute(_BASE_ITEMS, {"study": study}).fetchall()
            if (benchmark, metric) in self.scores.scores
        }
        self.retention: list[Questions] = []


@dataclass(frozen=True)
class _Part:
    """Some seeds of a cell on some benchmarks: what figures and differences are taken of."""

    study: _Study
    cell: Cell
    seeds: Sequence[int | None]
    questions: Sequence[Questions]

    @property
    def last(self) -> list[str]:
        """The last checkpoint of every seed."""
        rows = zip(self.cell.seeds, self.cell.checkpoints, strict=True)
        return [row[-1] for seed, row in rows if seed in self.seeds]

    @property
    def scores(self) -> list[Floats]:
        """Items x seeds, a table for each benchmark."""
        return [self.study.scores.of(q, self.last) for q in self.questions]

    @property
    def drops(self) -> list[Floats]:
        """The same of base minus checkpoint."""
        return [self.study.scores.drops(q, self.last) for q in self.questions]

    @property
    def clusters(self) -> list[Labels | None]:
        """Cluster labels of each benchmark."""
        return [q.clusters for q in self.questions]

    @property
    def pool(self) -> list[Components]:
        """The cells whose seed variance moderates that of this one, as in the study itself."""
        scores = self.study.scores
        return others(self.cell, {cell: components_of(scores, cell, self.questions) for cell in scores.cells})

    def interval(self) -> Interval:
        """Of the mean drop."""
        return mean_drop_interval(self.drops, self.pool, self.clusters)


_ARTIFACTS = "SELECT method, learning_rate, seed, artifact FROM arms WHERE study = $study AND role = 'method'"
_BASE_ITEMS = """
    SELECT s.benchmark, m.metric, list(DISTINCT x.item ORDER BY x.item), any_value(s.settings_hash)
    FROM named_evaluations n JOIN stored_evaluations s USING (evaluation_id)
    JOIN sample_scores x USING (evaluation_id) JOIN metrics m USING (metric_id)
    WHERE n.checkpoint = $study || '/base' GROUP BY ALL
"""


def compare_studies(con: duckdb.DuckDBPyConnection, a: str, b: str) -> StudiesCompared:
    """Compare two studies of one warehouse.

    Raises InputError when they have no method at the same learning rate, or no retention benchmark, in common.
    """
    left, right = _Study(con, a), _Study(con, b)
    notes = _share_benchmarks(left, right)
    keys = [key for key in left.cells if key in right.cells]
    only_a, only_b = ([_label(*key) for key in side.cells if key not in keys] for side in (left, right))
    if not keys:
        raise InputError(
            f"{a} and {b} have no method at the same learning rate in common: {a} has {few(only_a)}; {b} has {few(only_b)}"
        )
    unequal = [q.benchmark for q in left.retention if not _equal(left, right, q)]
    if unequal:
        notes.append(
            f"not the same items, base scores or evaluation settings on {few(unequal)}: the two drops are independent "
            "estimates, which makes every interval wider"
        )
    rows = [_row(left, right, key, not unequal, notes) for key in keys]
    tested = [float("nan") if row.pairing == SAME else row.drop.p_value() for row in rows]
    adjusted = [1.0 if row.pairing == SAME else float(p) for row, p in zip(rows, benjamini_hochberg(tested), strict=True)]
    return StudiesCompared(
        a=left.scores, b=right.scores, settings=tuple(differing_settings(con, a, b)),
        benchmarks=tuple(q.benchmark for q in left.retention),
        rows=tuple(replace(row, p_adjusted=p) for row, p in zip(rows, adjusted, strict=True)),
        only_a=tuple(only_a), only_b=tuple(only_b), notes=tuple(notes), origin=study_origin(con, a, b),
    )  # fmt: skip


def _share_benchmarks(left: _Study, right: _Study) -> list[str]:
    """Keep the retention benchmarks that both sides have under one metric; returns what is left out."""
    of_a, of_b = ({(q.benchmark, q.metric): q for q in side.scores.retention} for side in (left, right))
    left.retention = [q for pair, q in of_a.items() if pair in of_b]
    right.retention = [of_b[q.benchmark, q.metric] for q in left.retention]
    a, b = left.scores.study, right.scores.study
    if not left.retention:
        raise InputError(f"{a} and {b} have no retention benchmark in common: {_listed(of_a)} against {_listed(of_b)}")
    found = [(side, [pair for pair in own if pair not in other]) for side, own, other in ((a, of_a, of_b), (b, of_b, of_a))]
    return [f"retention benchmarks of {side} only, not part of any drop here: {_listed(left)}" for side, left in found if left]


def _listed(pairs: Sequence[tuple[str, str]] | dict[tuple[str, str], Questions]) -> str:
    return few(f"{benchmark} ({metric})" for benchmark, metric in pairs)


def _equal(left: _Study, right: _Study, questions: Questions) -> bool:
    """Whether both bases gave the same scores to the same items under the same settings."""
    x, y = (side.bases[questions.benchmark, questions.metric] for side in (left, right))
    return x.settings_hash == y.settings_hash and x.items == y.items and np.array_equal(x.scores, y.scores)


def _row(left: _Study, right: _Study, key: tuple[str, float | None], equal: bool, notes: list[str]) -> MethodRow:
    x, y = (_Part(side, side.cells[key], side.cells[key].seeds, side.retention) for side in (left, right))
    pairing: Pairing = PAIRED if equal else INDEPENDENT
    if equal and (shared := _same_arms(left, right, key)):
        pairing = SAME
        notes += _left_out(key, shared, x, y)
        x, y = (replace(part, seeds=shared) for part in (x, y))
    gain_x, gain_y = (replace(part, questions=[part.study.scores.gain]) if part.study.scores.gain else None for part in (x, y))
    gain = None
    if gain_x and gain_y and _asks(gain_x) == _asks(gain_y):
        same_questions = _equal(left, right, gain_x.questions[0])
        # A gain is a drop with the sign turned, so the sides change places.
        gain = _difference(gain_y, gain_x, (pairing if equal else PAIRED) if same_questions else INDEPENDENT)
    return MethodRow(
        *key, _side(x, gain_x), _side(y, gain_y), pairing, _difference(x, y, pairing), gain, p_adjusted=float("nan")
    )


def _same_arms(left: _Study, right: _Study, key: tuple[str, float | None]) -> list[int | None]:
    """The seeds whose arm was trained once and is named by both studies."""
    found = [s for s in left.cells[key].seeds if s in right.cells[key].seeds]
    artifacts = [(left.artifacts.get((*key, s)), right.artifacts.get((*key, s))) for s in found]
    return [s for s, (x, y) in zip(found, artifacts, strict=True) if x is not None and x == y]


def _left_out(key: tuple[str, float | None], shared: Sequence[int | None], *parts: _Part) -> list[str]:
    """A note on seeds that stand beside shared arms: there too the recipe is one, so only seeds could differ."""
    unshared = [
        f"{count(len(part.seeds) - len(shared), 'seed', 'seeds')} of {part.study.scores.study}"
        for part in parts
        if len(part.seeds) > len(shared)
    ]
    arms = count(len(shared), "arm is", "arms are")
    return [f"{_label(*key)}: {arms} the same in both, so {' and '.join(unshared)} are left out"] if unshared else []


def _asks(part: _Part) -> list[tuple[str, str]]:
    return [(q.benchmark, q.metric) for q in part.questions]


def _side(part: _Part, gain: _Part | None) -> Side:
    if gain is None:
        return Side(len(part.seeds), part.interval(), None)
    drop = gain.interval()
    turned = replace(drop, estimate=-drop.estimate, low=-drop.high, high=-drop.low)
    return Side(len(part.seeds), part.interval(), turned)


def _difference(x: _Part, y: _Part, pairing: Pairing) -> Interval:
    """Drop of x - drop of y."""
    if pairing == INDEPENDENT:
        return independent_contrast_interval(x.drops, y.drops, x.pool, y.pool, x.clusters, y.clusters)
    if pairing == SAME:
        return replace(contrast_interval(x.scores, y.scores, paired_seeds=True), rule=SAME)
    return contrast_interval(x.scores, y.scores, x.pool, y.pool, x.clusters)


def _plain(benchmark: str, metric: str) -> Questions:
    return Questions(benchmark, metric, False, None, np.zeros(0, dtype=bool))


def _label(method: str, rate: float | None) -> str:
    return method if rate is None else f"{method} at {rate_text(rate)}"
