"""How much disk a study will take, from the size of its model and the number of its items."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from retain_core.cost import parameter_count
from retain_core.evaluation.benchmarks import Benchmark
from retain_core.judge.benchmark import JudgedBenchmark
from retain_core.lab.dataset import PROBE_TEXTS
from retain_core.lab.spec import LabSpec
from retain_core.own.benchmark import OwnBenchmark
from retain_core.plan import StudyPlan
from retain_core.references import Reference, references_of
from retain_core.store import Store
from retain_core.suite.benchmark import SuiteBenchmark

_WEIGHT = 4
"""Bytes of a parameter in a checkpoint (float32)."""
_RESUME = 12
"""Bytes of a parameter in what a training needs to go on: weights and Adam's two moments."""
_MODEL_FILES = 25_000
"""Configuration and tokenizer beside the weights of a lab model; of others it is small against the weights."""
_EVALUATION = 7_000
"""Bytes of an evaluation before its first answer: manifest and the two files' own."""
_ANSWER, _LONG_ANSWER = 62, 600
"""Bytes of an answer with its scores, compressed (measured): of a lab model, and of one that answers in paragraphs."""
_OTHERS = {
    "dataset": 1_200_000, "base_samples": 13_000, "support": 11_000, "divergence": 11_500, "arm": 9_000, "traces": 175_000,
    "overlap": 1_500,
}  # fmt: skip
"""Bytes of what hardly depends on the study (measured in the lab)."""
_WAREHOUSE, _EMPTY = 0.55, 9_000_000
"""Bytes of the warehouse for each byte of answers, and of a new home's warehouse and MLflow database (measured)."""


def disk_bytes(plan: StudyPlan) -> dict[Reference, int]:
    """Every artifact that a study looks up -> the bytes that it is expected to take."""
    weights = _WEIGHT * parameter_count(plan) + _MODEL_FILES
    answered = {b.name: _evaluation_bytes(plan, b) for b in plan.study.benchmarks()}
    sizes = {"base": weights, "weights": weights, **_OTHERS}
    return {
        (kind, key): answered[name]
        if kind in ("evaluation", "answers")
        else _items_bytes(plan, name)
        if kind == "items"
        else sizes[kind]
        for (kind, key), name in references_of(plan).items()
    }


def working_bytes(plan: StudyPlan, lanes: int) -> int:
    """Bytes that arms side by side need while they train: all their checkpoints and what they would resume from."""
    training = [arm.spec for arm in plan.arms if arm.to_train]
    each = max((len(spec.steps) * _WEIGHT + _RESUME for spec in training), default=0)
    return min(lanes, len(training)) * each * parameter_count(plan)


def disk_lines(plans: Sequence[StudyPlan], store: Store, lanes: int, free: int) -> list[str]:
    """What is still to be written for some studies, as sentences; `free` is what the disk of the home has left."""
    sizes = {one: size for plan in plans for one, size in disk_bytes(plan).items() if not store.path(*one).is_dir()}
    if not sizes:
        return []
    weights = sum(size for (kind, _), size in sizes.items() if kind == "weights")
    answers = sum(size for (kind, _), size in sizes.items() if kind in ("evaluation", "answers"))
    new = 0 if (store.root.parent / "warehouse.duckdb").exists() else _EMPTY
    total = sum(sizes.values()) + round(_WAREHOUSE * answers) + new
    working = max(working_bytes(plan, lanes) for plan in plans)
    lines = [
        f"disk: about {size_text(total)} more when it is done: {size_text(weights)} weights (keep: {plans[0].study.keep}), "
        f"{size_text(answers)} answers, {size_text(total - weights - answers)} base, records and warehouse; while arms train "
        f"another {size_text(working)} for checkpoints that wait for their evaluation"
    ]
    if total + working > free:
        lines.append(f"disk: only {size_text(free)} is free, which is too little")
    return lines


def free_bytes(store: Store) -> int:
    """Bytes that the disk of the home has left."""
    there = next(folder for folder in (store.root, *store.root.parents) if folder.exists())
    return shutil.disk_usage(there).free


def size_text(size: float) -> str:
    """Bytes as a person reads them: 12.3 MB."""
    for length, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= length:
            return f"{size / length:.1f} {unit}"
    return f"{size:.0f} B"


def _evaluation_bytes(plan: StudyPlan, benchmark: Benchmark) -> int:
    """Bytes of one evaluation: as the base's was, where it is there."""
    for planned, found in plan.base_evaluations:
        if found and planned.benchmark == benchmark.name:
            return sum(path.stat().st_size for path in found.path.iterdir())
    each = _ANSWER if plan.base.lab else _LONG_ANSWER
    return _EVALUATION + each * _item_count(plan, benchmark) * benchmark.samples


def _item_count(plan: StudyPlan, benchmark: Benchmark) -> int:
    """How many items a benchmark asks; of a benchmark of the user's own that was never read, rows of its largest file."""
    own = benchmark.own
    if own is None:
        return _lab_items(plan.world, benchmark.name)
    if found := plan.own_items[benchmark.name]:
        return int(found.meta["n"])
    if isinstance(own, OwnBenchmark):
        return max((_lines(Path(file)) for file in own.yaml.files if file.endswith((".jsonl", ".json", ".csv"))), default=0)
    if isinstance(own, SuiteBenchmark):
        return own.entry.items
    return len(own.rows() if isinstance(own, JudgedBenchmark) else own.rows("items"))


@lru_cache(maxsize=64)
def _lab_items(world: LabSpec, name: str) -> int:
    from retain_core.lab.world import World

    return PROBE_TEXTS if name == "heldout_loss" else len(World(world).items(name.removesuffix("_sampled")))


def _lines(path: Path) -> int:
    with path.open("rb") as stream:
        return sum(1 for line in stream if line.strip())


def _items_bytes(plan: StudyPlan, name: str) -> int:
    own = next(b.own for b in plan.study.benchmarks() if b.name == name)
    if isinstance(own, SuiteBenchmark):
        return _LONG_ANSWER * own.entry.items
    source = own.yaml if isinstance(own, OwnBenchmark) else own.items if own else None
    return math.ceil(1.5 * sum(Path(file).stat().st_size for file in source.files if Path(file).is_file())) if source else 0
