"""A study's per-item scores as arrays, read from the warehouse once."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from retain_core.methods import interpolated
from retain_core.stats.crossed import Components, Labels

FEWEST_IN_A_HALF = 2
"""Items without which nothing varies: where points are chosen on one half and shown on the other, each needs as many."""
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Cell:
    """One method at one learning rate with all its finished seeds; the rows that a study's table shows."""

    method: str
    role: str
    learning_rate: float | None
    seeds: tuple[int | None, ...]
    steps: tuple[float, ...]
    """Evaluated by every seed, ascending, without the base's step 0; of blends their alphas, and 1 for the checkpoint."""
    checkpoints: tuple[tuple[str, ...], ...]
    """[seed][step] -> checkpoint."""
    facts: dict[str, Floats] = field(hash=False, compare=False)
    """weight_distance, kl_forward -> seeds x steps; NaN where unknown."""
    parent: Cell | None = None
    """Of blends, the cell whose last checkpoints were blended with the base."""
    stages: tuple[int, ...] = ()
    """The stage of every step; empty where there is one only."""

    @property
    def is_sequence(self) -> bool:
        """Whether it learned several targets, one after the other."""
        return len(set(self.stages)) > 1

    def end(self, stage: int) -> list[str]:
        """The last checkpoint of a stage, of every seed."""
        place = max(i for i, found in enumerate(self.stages) if found == stage)
        return [row[place] for row in self.checkpoints]

    def first_stage(self) -> Cell:
        """The same cell where it stopped to learn the first target: gain is that on the first."""
        if not self.is_sequence:
            return self
        cut = sum(stage == self.stages[0] for stage in self.stages)
        return replace(
            self, steps=self.steps[:cut], checkpoints=tuple(row[:cut] for row in self.checkpoints), stages=(),
            facts={name: table[:, :cut] for name, table in self.facts.items()},
        )  # fmt: skip

    def last(self) -> list[str]:
        """The last checkpoint of every seed."""
        return [row[-1] for row in self.checkpoints]


@dataclass(frozen=True)
class Questions:
    """One benchmark under one metric: its items in a fixed order."""

    benchmark: str
    metric: str
    near: bool
    clusters: Labels | None
    select: Mask
    """Items of the half on which points are chosen; the others are the report half."""


@dataclass
class StudyScores:
    """Everything that the analysis of one study reads."""

    study: str
    target: str
    spec: dict[str, Any]
    cells: list[Cell]
    retention: list[Questions]
    gain: Questions | None
    """The target under its primary metric; None for a study without a target."""
    exact: Questions | None
    scores: dict[tuple[str, str], dict[str, Floats]]
    """(benchmark, metric) -> checkpoint -> one score an item, in the order of the questions."""
    later: list[Questions] = field(default_factory=list)
    """In a sequence, the targets that are learned after the first, in order, under their primary metrics."""
    later_exact: list[Questions] = field(default_factory=list)
    """Those of them that have an exact score, under it."""
    interpolated: list[Cell] = field(default_factory=list)
    """From the base through blends to the last checkpoints. Apart from `cells`, because their ends are the same models."""
    components: dict[Hashable, Components] = field(default_factory=dict, repr=False)
    """Variance components computed so far (`cells.components_of`): many contrasts pool the same cells."""

    @property
    def base(self) -> str:
        """Address of the base."""
        return f"{self.study}/base"

    def of(self, questions: Questions, checkpoints: Sequence[str], items: Mask | None = None) -> Floats:
        """Scores, items x checkpoints."""
        found = self.scores[questions.benchmark, questions.metric]
        table = np.column_stack([found[c] for c in checkpoints])
        return table if items is None else table[items]

    def drops(self, questions: Questions, checkpoints: Sequence[str], items: Mask | None = None) -> Floats:
        """Base minus checkpoint, items x checkpoints."""
        return self.of(questions, [self.base], items) - self.of(questions, checkpoints, items)

    def methods(self) -> list[Cell]:
        """The cells of methods, without the controls."""
        return [cell for cell in self.cells if cell.role == "method"]

    @property
    def targets(self) -> list[Questions]:
        """All targets in the order in which they are learned, under their primary metrics."""
        return [*([self.gain] if self.gain else []), *self.later]

    @property
    def targets_exact(self) -> list[Questions]:
        """The same under their exact scores; empty where one has none."""
        return [self.exact, *self.later_exact] if self.exact and len(self.later_exact) == len(self.later) else []

    def too_few(self) -> str | None:
        """Why nothing can be chosen on one half of the items and shown on the other; None where it can."""
        for questions in [*self.retention, *([self.measured_gain] if self.measured_gain else [])]:
            for name in ("select", "report"):
                if (items := int(half(questions, name).sum())) < FEWEST_IN_A_HALF:
                    return f"no figure: {questions.benchmark} has {items} items in the half {name}, and 2 are needed"
        return None

    @property
    def measured_gain(self) -> Questions | None:
        """What gain is measured on where points are matched: the exact target score where there is one."""
        return self.exact or self.gain


def half(questions: Questions, name: str) -> Mask:
    """The items of `select` or `report`."""
    return questions.select if name == "select" else ~questions.select


def clusters_of(questions: Questions, items: Mask | None = None) -> Labels | None:
    """Cluster labels of the items, None where every item stands for itself."""
    if questions.clusters is None or items is None:
        return questions.clusters
    return np.asarray(questions.clusters)[items]


def read_scores(con: duckdb.DuckDBPyConnection, study: str) -> StudyScores:
    """Everything about one study that the analysis needs; repeats of an item are averaged."""
    row = con.execute("SELECT spec FROM studies WHERE study = ? AND is_current", [study]).fetchone()
    assert row is not None
    spec = json.loads(row[0])
    scores, order = _scores(con, study)
    questions = _questions(con, study, order)
    by_role = "SELECT benchmark, metric FROM study_benchmarks WHERE study = ? AND role = ? ORDER BY rowid"
    target = con.execute(by_role, [study, "target"]).fetchone()
    named = con.execute(by_role, [study, "retention"]).fetchall()
    later = con.execute(by_role, [study, "later_target"]).fetchall()
    cells = _cells(con, study, spec, _TRAINED)
    return StudyScores(
        study=study,
        target=target[0] if target else "",
        spec=spec,
        cells=cells,
        retention=[questions[pair] for pair in named if pair in questions],
        gain=questions.get(target) if target else None,
        exact=questions.get((target[0], "exact")) if target else None,
        scores=scores,
        later=[questions[pair] for pair in later if pair in questions],
        later_exact=[questions[name, "exact"] for name, _ in later if (name, "exact") in questions],
        interpolated=_with_parents(_cells(con, study, spec, _BLENDED), cells),
    )


def _scores(
    con: duckdb.DuckDBPyConnection, study: str
) -> tuple[dict[tuple[str, str], dict[str, Floats]], dict[tuple[str, str], NDArray[np.int64]]]:
    """(benchmark, metric) -> checkpoint -> scores by ascending item, and the items themselves."""
    found = con.execute(
        """SELECT s.benchmark, m.metric, n.checkpoint, list(x.score ORDER BY x.item) AS scores,
               list(x.item ORDER BY x.item) AS items
        FROM named_evaluations n JOIN stored_evaluations s USING (evaluation_id)
        JOIN (SELECT evaluation_id, metric_id, item, avg(score) AS score FROM sample_scores
              WHERE evaluation_id IN (SELECT evaluation_id FROM named_evaluations WHERE study = $study) GROUP BY ALL) x
             USING (evaluation_id)
        JOIN metrics m USING (metric_id)
        JOIN study_benchmarks b ON b.study = n.study AND b.benchmark = s.benchmark
        WHERE n.study = $study AND b.role <> 'probe'
          AND (m.metric = b.metric OR (b.role IN ('target', 'later_target') AND m.metric = 'exact'))
        GROUP BY ALL ORDER BY ALL""",
        {"study": study},
    )
    scores: dict[tuple[str, str], dict[str, Floats]] = {}
    order: dict[tuple[str, str], NDArray[np.int64]] = {}
    while rows := found.fetchmany(500):
        for benchmark, metric, checkpoint, values, items in rows:
            scores.setdefault((benchmark, metric), {})[checkpoint] = np.asarray(values, dtype=np.float64)
            order.setdefault((benchmark, metric), np.asarray(items, dtype=np.int64))
    return scores, order


def _questions(
    con: duckdb.DuckDBPyConnection, study: str, order: dict[tuple[str, str], NDArray[np.int64]]
) -> dict[tuple[str, str], Questions]:
    near = dict(con.execute("SELECT benchmark, near FROM study_benchmarks WHERE study = ?", [study]).fetchall())
    questions = {}
    for (benchmark, metric), items in order.items():
        known = con.execute("SELECT item, cluster, split FROM items WHERE benchmark = ?", [benchmark]).fetchall()
        facts = {item: (cluster, split) for item, cluster, split in known}
        clusters = [facts[item][0] for item in items.tolist()]
        select = np.array([facts[item][1] == "select" for item in items.tolist()])
        labels = None if any(c is None for c in clusters) else np.array(clusters)
        questions[benchmark, metric] = Questions(benchmark, metric, bool(near[benchmark]), labels, select)
    return questions


_TRAINED = """
SELECT g.method, g.role, g.learning_rate, g.seed, g.step, g.checkpoint, c.stage, g.weight_distance, g.kl_forward
FROM gain_drop g JOIN arms a USING (arm) JOIN checkpoints c USING (checkpoint)
WHERE g.study = ? AND a.role <> 'base' AND a.status = 'done' ORDER BY g.step
"""
_BLENDED = """
SELECT g.method, a.role, g.learning_rate, g.seed, g.alpha, g.checkpoint, CAST(NULL AS INTEGER), g.weight_distance, g.kl_forward
FROM interpolated g JOIN arms a USING (arm) WHERE g.study = ? AND g.alpha > 0 AND a.status = 'done' ORDER BY g.alpha
"""


def _cells(con: duckdb.DuckDBPyConnection, study: str, spec: dict[str, Any], sql: str) -> list[Cell]:
    """Methods at learning rates in the order of the study file; only arms that are done."""
    rows = con.execute(sql, [study]).fetchall()
    order = {label: i for i, label in enumerate(m["label"] for m in spec["methods"])}
    grouped: dict[tuple[str, str, float | None], dict[int | None, dict[float, tuple[Any, ...]]]] = {}
    for method, role, rate, seed, step, *facts in rows:
        grouped.setdefault((method, role, rate), {}).setdefault(seed, {})[step] = tuple(facts)
    cells = []
    for (method, role, rate), seeds in grouped.items():
        chosen = tuple(sorted(seeds, key=lambda s: -1 if s is None else s))
        steps = tuple(sorted(set.intersection(*(set(seeds[s]) for s in chosen))))
        if not steps:
            continue

        def table(place: int, chosen: Any = chosen, steps: Any = steps, seeds: Any = seeds) -> Floats:
            return np.array([[seeds[s][t][place] for t in steps] for s in chosen], dtype=np.float64)

        names = tuple(tuple(str(seeds[s][t][0]) for t in steps) for s in chosen)
        facts_by_name = {"weight_distance": table(2), "kl_forward": table(3)}
        stages = tuple(seeds[chosen[0]][t][1] for t in steps)
        cell = Cell(method, role, rate, chosen, steps, names, facts_by_name, stages=stages)
        cells.append(cell if cell.is_sequence else replace(cell, stages=()))
    return sorted(cells, key=lambda c: (order.get(c.method, len(order)), c.method, c.learning_rate or 0.0))


def _with_parents(blended: list[Cell], cells: list[Cell]) -> list[Cell]:
    """Cells of blends under a label of their own, each beside the cell that it came from."""
    parents = {(cell.method, cell.learning_rate): cell for cell in cells}
    return [
        replace(cell, method=interpolated(cell.method), parent=parents[cell.method, cell.learning_rate]) for cell in blended
    ]
