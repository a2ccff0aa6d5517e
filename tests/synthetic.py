"""A made-up study with known truths: its scores in memory, and the same in a warehouse, without any training.

Five retention benchmarks (the first is near the target, the third has clusters) and a target with an exact metric.
An item that the base has right gets lost, one that it has wrong gets found, each with a probability that gives the
planted drop. A seed shifts the drop of all benchmarks together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from retain_core.analysis.scores import Cell, Questions, StudyScores
from retain_core.evaluation.benchmarks import BENCHMARKS
from retain_core.methods import CONTROLS
from retain_core.warehouse.analyse import store_analysis
from retain_core.warehouse.compare import store_comparisons
from retain_core.warehouse.load import connect

RETENTION = ("addition", "sorting", "facts", "places", "safety")
TARGET = "countdown"
THEN = ("new_format", "new_facts")
STAGE = (40, 80)
"""Checkpoints of a stage of a sequence."""
RATES = (1e-4, 3e-4)
SEEDS = (0, 1, 2)
STEPS = (10, 20, 40, 80)
BASE_SHARE = 0.8
FOUND = 0.1
"""Share of the base's wrong items that every checkpoint finds: flips that a net drop hides."""


@dataclass(frozen=True)
class Truth:
    """What a method does by its last step at its first learning rate; both grow in equal parts over the steps."""

    gain: float = 0.3
    drop: float = 0.0
    faster: float = 1.2
    """Gain at the second learning rate, as a multiple."""
    dearer: float = 1.0
    """Drop at the second learning rate, as a multiple."""
    only: str | None = None
    """The one benchmark that drops; None: all."""


METHODS: dict[str, Truth] = {
    "harmful": Truth(drop=0.16), "harmless": Truth(drop=0.0), "twin": Truth(drop=0.16), "dear": Truth(drop=0.04, dearer=4),
    "idle": Truth(gain=0.0), "slow": Truth(gain=0.08, drop=0.02), "other": Truth(drop=0.08),
}  # fmt: skip
"""`harmful` and `twin` are alike; `dear` is better at its first rate, whatever it gains faster at the second."""


def study_spec(
    methods: Sequence[str], rates: Sequence[float], seeds: Sequence[int], primary: Mapping[str, Any] | None, base: str
) -> dict[str, Any]:
    """The spec as `studies` holds it."""
    return {
        "study": "made", "base": {"model": base}, "target": TARGET,
        "retention": [{"benchmark": b, "metric": None, "near": b == RETENTION[0]} for b in RETENTION], "probes": [],
        "methods": [{"label": m} for m in methods], "controls": list(CONTROLS) if base.startswith("lab/") else [],
        "learning_rates": list(rates), "seeds": list(seeds), "primary": None if primary is None else dict(primary),
        "budget": {"updates": STEPS[-1], "sequences_per_update": 8},
    }  # fmt: skip


def made_scores(
    methods: Mapping[str, Truth] | None = None,
    *,
    rates: Sequence[float] = RATES,
    seeds: Sequence[int] = SEEDS,
    steps: Sequence[int] = STEPS,
    n: int = 150,
    seed_sd: float = 0.0,
    primary: Mapping[str, Any] | None = None,
    base: str = "some/model",
    controls: bool = False,
    draw: int = 0,
    alphas: Sequence[float] = (),
    study: str = "made",
) -> StudyScores:
    """The scores of a study as the analysis reads them; `draw` is the random stream, from which the base comes first.

    With `alphas`, every method has blends: at alpha they have that share of its last gain, and its square of the drop.
    """
    rng = np.random.default_rng(draw)
    methods = METHODS if methods is None else methods
    questions = {b: _questions(b, i, n, rng) for i, b in enumerate((*RETENTION, TARGET))}
    right = {b: (rng.permutation(n) < BASE_SHARE * n).astype(float) for b in RETENTION}
    chance = rng.uniform(0.02, 0.1, n)
    scores: dict[tuple[str, str], dict[str, Any]] = {(b, "acc"): {f"{study}/base": right[b]} for b in RETENTION}
    scores[TARGET, "acc"] = {f"{study}/base": np.zeros(n)}
    scores[TARGET, "exact"] = {f"{study}/base": chance}
    cells: list[Cell] = []
    blends: list[Cell] = []

    def add(method: str, role: str, rate: float, chosen: Sequence[int], drops: Any, gains: Any, distance: float) -> None:
        shift = rng.normal(0, seed_sd if role == "method" else 0, len(chosen))
        names = tuple(tuple(f"{study}/{method}-lr{rate:g}-s{s}@{t}" for t in steps) for s in chosen)
        share = np.arange(1, len(steps) + 1) / len(steps)
        for place, row in enumerate(names):
            for name, part in zip(row, share, strict=True):
                for b in RETENTION:
                    planted = part * (drops[b] + shift[place]) if drops else None
                    scores[b, "acc"][name] = right[b] if planted is None else _answered(right[b], planted, rng)
                    if role == "control" and drops and not drops[b]:
                        scores[b, "acc"][name] = _as_many_lost_as_gained(right[b])
                reached = chance if drops is None else np.clip(chance + part * gains + rng.normal(0, 0.02, n), 0, 1)
                scores[TARGET, "exact"][name] = reached
                scores[TARGET, "acc"][name] = np.zeros(n) if drops is None else (rng.random(n) < reached).astype(float)
        facts = {
            "weight_distance": np.tile(distance * share, (len(chosen), 1)),
            "kl_forward": np.tile(distance * share**2, (len(chosen), 1)),
        }
        cells.append(Cell(method, role, rate, tuple(chosen), tuple(steps), names, facts))
        if role == "method" and alphas:
            blends.append(blended(cells[-1], drops, gains, shift, distance))

    def blended(parent: Cell, drops: Any, gains: Any, shift: Any, distance: float) -> Cell:
        names = tuple((*(f"{row[-1]}~{alpha}" for alpha in alphas), row[-1]) for row in parent.checkpoints)
        for place, row in enumerate(names):
            for name, alpha in zip(row, alphas, strict=False):
                for b in RETENTION:
                    scores[b, "acc"][name] = _answered(right[b], alpha**2 * (drops[b] + shift[place]), rng)
                reached = np.clip(chance + alpha * gains + rng.normal(0, 0.02, n), 0, 1)
                scores[TARGET, "exact"][name] = reached
                scores[TARGET, "acc"][name] = (rng.random(n) < reached).astype(float)
        share = np.array([*alphas, 1.0])
        facts = {
            "weight_distance": np.tile(distance * share, (len(names), 1)),
            "kl_forward": np.tile(distance * share**3, (len(names), 1)),
        }
        label = f"{parent.method}_interpolated"
        return Cell(label, "method", parent.learning_rate, parent.seeds, tuple(share.tolist()), names, facts, parent)

    for method, truth in methods.items():
        for k, rate in enumerate(rates):
            drop, gain = truth.drop * truth.dearer**k, truth.gain * truth.faster**k
            drops = {b: drop if truth.only in (None, b) else 0.0 for b in RETENTION}
            add(method, "method", rate, seeds, drops, gain, 1.0 + k + 10 * drop)
    if controls:
        flat = dict.fromkeys(RETENTION, 0.0)
        for name in CONTROLS:
            still = name in ("learning_rate_0", "constant_reward")
            planted = flat | {"sorting": 0.5} if name == "planted_harm" else flat
            rate = 0.0 if name == "learning_rate_0" else max(rates)
            add(name, "control", rate, seeds[:1], None if still else planted, 0.0, 0.0 if still else 1.0)
    return StudyScores(
        study=study, target=TARGET, cells=cells,
        spec={**study_spec(list(methods), rates, seeds, primary, base), "study": study},
        retention=[questions[b] for b in RETENTION], gain=questions[TARGET],
        exact=Questions(TARGET, "exact", False, questions[TARGET].clusters, questions[TARGET].select), scores=scores,
        interpolated=blends,
    )  # fmt: skip


def made_sequence(
    methods: Mapping[str, Truth] | None = None, *, then: Sequence[str] = THEN, forgets: float = 0.2, n: int = 150, **more: Any
) -> StudyScores:
    """`made_scores` of a sequence: every method learns one target a stage, and forgets that share of the earlier ones.

    A stage is two checkpoints: half-way a target is half known, in later stages it is known less. Controls are single-stage.
    """
    stages = tuple(stage for stage in range(1, len(then) + 2) for _ in STAGE)
    steps = tuple((stage - 1) * STAGE[-1] + step for stage in range(1, len(then) + 2) for step in STAGE)
    made = made_scores(methods, steps=steps, n=n, **more)
    rng = np.random.default_rng(99)
    later = [_questions(b, i, n, rng) for i, b in enumerate(then, start=len(RETENTION))]
    for learned, b in enumerate((TARGET, *then), start=1):
        made.scores[b, "acc"] = {made.base: np.zeros(n)}
        made.scores[b, "exact"] = {made.base: rng.uniform(0.02, 0.1, n)}
        for cell in made.cells:
            shifts = rng.normal(0, 0.05, len(cell.seeds))
            for row, shift in zip(cell.checkpoints, shifts, strict=True):
                for name, stage, step in zip(row, stages, steps, strict=True):
                    half_way = 0.5 if step % STAGE[-1] else 1.0
                    share = 0.05 if stage < learned else 0.7 * half_way if stage == learned else 0.7 - forgets - shift
                    known = np.clip(share + rng.normal(0, 0.05, n), 0, 1)
                    made.scores[b, "exact"][name] = known
                    made.scores[b, "acc"][name] = (rng.random(n) < known).astype(float)
    staged = [replace(cell, stages=stages) for cell in made.cells]
    spec = {**made.spec, "then": list(then), "budget": {"updates": STAGE[-1], "sequences_per_update": 8}}
    return replace(
        made, cells=[cell if cell.role == "method" else cell.first_stage() for cell in staged], spec=spec, later=later,
        later_exact=[replace(q, metric="exact") for q in later],
    )  # fmt: skip


def _questions(benchmark: str, place: int, n: int, rng: np.random.Generator) -> Questions:
    clusters = np.array([f"entity {i // 3}" for i in range(n)]) if place == 2 else None
    return Questions(benchmark, "acc", place == 0, clusters, rng.permutation(n) < n // 2)


def _answered(right: Any, drop: float, rng: np.random.Generator) -> Any:
    lost = np.clip((drop + (1 - BASE_SHARE) * FOUND) / BASE_SHARE, 0, 1)
    return np.where(right == 1, rng.random(len(right)) >= lost, rng.random(len(right)) < FOUND).astype(float)


def _as_many_lost_as_gained(right: Any) -> Any:
    changed = right.copy()
    for value in (0, 1):
        changed[np.flatnonzero(right == value)[:5]] = 1 - value
    return changed


def put(con: duckdb.DuckDBPyConnection, table: str, rows: list[dict[str, Any]]) -> None:
    """Insert rows by column name; columns that are not named are null."""
    if not rows:
        return
    names = dict.fromkeys(name for row in rows for name in row)
    con.register("put_rows", pa.table({name: [row.get(name) for row in rows] for name in names}))
    con.execute(f"INSERT INTO {table} BY NAME FROM put_rows")
    con.unregister("put_rows")


def fill(
    path: Path,
    scores: StudyScores,
    *,
    declared_at: str = "2030-01-01 00:00:00",
    trained_at: str = "2030-01-02 00:00:00",
    looks: Sequence[int] | None = None,
    analyse: bool = True,
    texts: bool = False,
    items: int = 0,
) -> duckdb.DuckDBPyConnection:
    """A warehouse with these scores and everything computed from them; the connection is open for writing.

    With `texts` every answer says whether it is right and which checkpoint gave it, so that changed answers have texts.
    A warehouse that is there gets one study more; `items` is where its items begin, the same for the same questions.
    """
    con = connect(path)
    con.execute("SET threads TO 1")
    study, spec, primary = scores.study, scores.spec, scores.spec["primary"]
    put(con, "studies", [{
        "study": study, "revision": 1, "spec": json.dumps(spec), "spec_hash": "hash",
        "primary_contrast": None if primary is None else json.dumps(primary, sort_keys=True), "is_current": True,
        "looks": list(looks or [len(spec["seeds"])]),
    }])  # fmt: skip
    con.execute("UPDATE studies SET declared_at = ?, created_at = declared_at", [declared_at])
    pairs = [(q, "retention") for q in scores.retention] + [(scores.gain, "target")]
    pairs += [(q, "later_target") for q in scores.later]
    stages = {q.benchmark: stage for stage, q in enumerate(scores.targets, start=1)}
    put(con, "study_benchmarks", [
        {"study": study, "benchmark": q.benchmark, "metric": q.metric, "role": role,
         "near": q.near if role == "retention" else None, "choices": BENCHMARKS[q.benchmark].choices,
         "stage": stages.get(q.benchmark)}
        for q, role in pairs
    ])  # fmt: skip
    shared = {"study": study, "base": scores.base, "target": scores.target, "status": "done"}
    arms = [{**shared, "arm": scores.base, "method": "base", "algorithm": "none", "role": "base", "config": "{}"}]
    checkpoints = [{"checkpoint": scores.base, "arm": scores.base, "study": study, "step": 0, "kept": True,
                    "weight_distance": 0.0, "path_length": 0.0}]  # fmt: skip
    for cell in scores.cells:
        config = json.dumps({"harm": "sorting"} if cell.method == "planted_harm" else {})
        for place, (seed, row) in enumerate(zip(cell.seeds, cell.checkpoints, strict=True)):
            arm = row[0].partition("@")[0]
            arms.append({**shared, "arm": arm, "method": cell.method, "algorithm": "sft", "role": cell.role, "config": config,
                         "learning_rate": cell.learning_rate, "seed": seed, "artifact": arm})  # fmt: skip
            checkpoints += [
                {"checkpoint": name, "arm": arm, "study": study, "step": step, "stage": stage, "kept": False,
                 "weight_distance": float(distance), "path_length": float(distance)}
                for name, step, stage, distance in zip(
                    row, cell.steps, cell.stages or [1] * len(row), cell.facts["weight_distance"][place], strict=True
                )
            ]  # fmt: skip
    for cell in scores.interpolated:
        for place, row in enumerate(cell.checkpoints):
            checkpoints += [
                {"checkpoint": name, "arm": row[-1].partition("@")[0], "study": study, "step": cell.parent.steps[-1],
                 "alpha": alpha, "kept": False, "weight_distance": float(distance)}
                for name, alpha, distance in zip(row[:-1], cell.steps, cell.facts["weight_distance"][place], strict=False)
            ]  # fmt: skip
    put(con, "arms", arms)
    con.execute("UPDATE arms SET created_at = ? WHERE role <> 'base'", [trained_at])
    put(con, "checkpoints", checkpoints)
    _fill_evaluations(con, scores, items)
    _fill_divergences(con, scores)
    if texts:
        con.execute("""INSERT INTO answers
            SELECT evaluation_id, item, repeat, true, 'stop', 3, if(score = 1, 'right', 'wrong') || ' says ' || evaluation_id
            FROM sample_scores WHERE metric_id = 1 AND evaluation_id NOT IN (SELECT evaluation_id FROM answers)""")
    store_comparisons(con, study)
    if analyse:
        store_analysis(con, study)
    return con


def _fill_evaluations(con: duckdb.DuckDBPyConnection, scores: StudyScores, items: int) -> None:
    names = {"acc": 1, "exact": 2}
    ((before,),) = con.execute("SELECT coalesce(max(evaluation_id), 0) FROM stored_evaluations").fetchall()
    if not before:
        put(con, "metrics", [{"metric_id": i, "metric": m} for m, i in names.items()])
    known = {first for (first,) in con.execute("SELECT DISTINCT item FROM items").fetchall()}
    questions = {q.benchmark: q for q in (*scores.retention, *scores.targets)}
    base = {b: i + 1 for i, b in enumerate(questions)}
    stored, named, columns = [], [], []
    for b, q in questions.items():
        n, first = len(q.select), 10_000 * base[b] + items
        put(con, "items", [] if first in known else [
            {"benchmark": b, "item": first + i, "doc_id": i, "prompt_hash": first + i, "prompt": f"{b} {i}", "target": "yes",
             "cluster": None if q.clusters is None else str(q.clusters[i]), "split": "select" if q.select[i] else "report"}
            for i in range(n)
        ])  # fmt: skip
        checkpoints = scores.scores[b, "acc"]
        for checkpoint in checkpoints:
            number = before + (base[b] if checkpoint == scores.base else len(base) + 1 + len(stored))
            stored.append({"evaluation_id": number, "artifact": f"{checkpoint}/{b}", "seal": "seal", "benchmark": b,
                           "settings": "{}", "settings_hash": "same", "n": n})  # fmt: skip
            named.append({"evaluation": f"{checkpoint}/{b}", "study": scores.study, "checkpoint": checkpoint,
                          "evaluation_id": number, "base_evaluation_id": before + base[b]})  # fmt: skip
            for metric, code in names.items():
                if (b, metric) in scores.scores:
                    values = scores.scores[b, metric][checkpoint]
                    columns.append((np.full(n, number), np.full(n, code), first + np.arange(n), values))
    put(con, "stored_evaluations", stored)
    put(con, "named_evaluations", named)
    evaluation_id, metric_id, item, score = (np.concatenate(column) for column in zip(*columns, strict=True))
    con.register("put_scores", pa.table({"evaluation_id": evaluation_id, "metric_id": metric_id, "item": item, "score": score}))
    con.execute("INSERT INTO sample_scores BY NAME SELECT *, 0 AS repeat FROM put_scores ORDER BY ALL")
    con.unregister("put_scores")


def _fill_divergences(con: duckdb.DuckDBPyConnection, scores: StudyScores) -> None:
    known = [
        (name, float(nats))
        for cell in (*scores.cells, *scores.interpolated)
        for row, values in zip(cell.checkpoints, cell.facts["kl_forward"], strict=True)
        for name, nats in zip(row, values, strict=True)
        if cell.parent is None or "~" in name
    ]
    ((first,),) = con.execute("SELECT coalesce(max(divergence_id) + 1, 0) FROM stored_divergences").fetchall()
    numbered = [(i, name, nats) for i, (name, nats) in enumerate(known, start=first)]
    put(con, "stored_divergences", [{"divergence_id": i, "artifact": name, "seal": "seal"} for i, name, _ in numbered])
    put(con, "named_divergences", [
        {"study": scores.study, "checkpoint": name, "divergence_id": i} for i, name, _ in numbered
    ])  # fmt: skip
    put(con, "divergence_items", [
        {"divergence_id": i, "prompts": "target", "direction": direction, "item": 1, "nats": nats, "tokens": 1}
        for i, _, nats in numbered for direction in ("forward", "reverse")
    ])  # fmt: skip


def analyse_again(con: duckdb.DuckDBPyConnection, *statements: str) -> None:
    """Change stored rows, then compute everything that follows from them anew."""
    for statement in statements:
        con.execute(statement)
    for table in ("comparisons", "evaluation_scores", "analyses"):
        con.execute(f"DELETE FROM {table}")
    store_comparisons(con, "made")
    store_analysis(con, "made")


def plain_scores(
    base: Mapping[str, Sequence[float]],
    tuned: Mapping[str, Sequence[float]],
    clusters: Mapping[str, Sequence[str]] | None = None,
    target: tuple[Sequence[float], Sequence[float]] | None = None,
) -> StudyScores:
    """One checkpoint beside its base, every score given: benchmark -> a score an item. `target`: of base and checkpoint."""
    row, facts = ("made/one-lr0.0001-s0@10",), dict.fromkeys(("weight_distance", "kl_forward"), np.ones((1, 1)))
    named = {**{b: (base[b], tuned[b]) for b in base}, TARGET: target or ([0.0] * 8, [0.0] * 8)}
    questions = {}
    for b, (values, _) in named.items():
        labels = np.array(clusters[b]) if clusters and b in clusters else None
        questions[b] = Questions(b, "acc", b == RETENTION[0], labels, np.arange(len(values)) % 2 == 0)
    return StudyScores(
        study="made", target=TARGET, spec=study_spec(["one"], [1e-4], [0], None, "some/model"),
        cells=[Cell("one", "method", 1e-4, (0,), (10,), (row,), facts)],
        retention=[questions[b] for b in base], gain=questions[TARGET], exact=None,
        scores={(b, "acc"): {"made/base": np.array(x, float), row[0]: np.array(y, float)} for b, (x, y) in named.items()},
    )  # fmt: skip
