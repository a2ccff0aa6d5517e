"""What one study puts into the warehouse: rows for the study's tables and the artifacts to be read.

Built from a study's plan alone; nothing is read from Parquet here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from retain_core.arms import ArmSpec, Checkpoint
from retain_core.canonical import canonical_json
from retain_core.evaluation.evaluate import EvaluationPlan, Plan
from retain_core.overlap import overlap_rows
from retain_core.plan import PlannedArm, StudyPlan
from retain_core.revisions import Revision
from retain_core.store import Artifact
from retain_core.study import Study
from retain_core.warehouse.trend import trend_rows


@dataclass(frozen=True)
class Evaluated:
    """One evaluation artifact under the name that the study gives it."""

    checkpoint: str
    benchmark: str
    settings: dict[str, Any]
    artifact: Artifact


@dataclass
class Contents:
    """All that a study says, ready to be inserted."""

    study: str
    tables: dict[str, list[list[Any]]]
    """Table -> its rows of this study."""
    evaluations: list[Evaluated]
    floor: list[tuple[str, Evaluated]] = field(default_factory=list)
    """(nuisance, the base evaluated again under it)."""
    divergences: list[tuple[str, Artifact]] = field(default_factory=list)
    """(checkpoint, its divergence artifact)."""
    predictions: Sequence[Artifact] | None = None
    """All predictions of the home; None leaves those that the warehouse has."""


STUDY_TABLES = (
    "studies",
    "study_benchmarks",
    "arms",
    "checkpoints",
    "support",
    "target_symbols",
    "trend",
    "left_out",
    "overlap",
)


def contents_of(
    plan: StudyPlan,
    revisions: list[Revision],
    errors: dict[str, str],
    summaries: Sequence[Artifact] = (),
    predictions: Sequence[Artifact] | None = None,
) -> Contents:
    """What a trained study puts into the warehouse.

    `errors` maps the arms that failed to why; `summaries` is what the study said at earlier times,
    `predictions` what was foretold in this home of whatever study.
    """
    study = plan.study
    base = f"{study.study}/base"
    checkpoints: list[list[Any]] = [[base, base, study.study, 0, None, None, True, 0.0, 0.0]]
    evaluations, divergences = _found(base, plan.base_evaluations), []
    for arm in plan.arms:
        for checkpoint in arm.evaluated:
            name, pairs = arm.spec.checkpoint(*checkpoint), arm.evaluations[checkpoint]
            checkpoints.append(_checkpoint_row(arm, checkpoint))
            evaluations += _found(name, pairs)
            divergences += [(name, a) for p, a in pairs if a and p.kind == "divergence"]
    support: list[list[Any]] = []
    if plan.support:
        items = plan.support.inputs["items"]
        support = [[study.study, base, study.target, int(k), v, items] for k, v in plan.support.meta["pass_at"].items()]
    tables = {
        "studies": [study_row(study.study, r) for r in revisions],
        "study_benchmarks": _benchmark_rows(study),
        "arms": [_base_row(plan), *(_arm_row(plan, arm, errors) for arm in plan.arms)],
        "checkpoints": checkpoints,
        "support": support,
        "target_symbols": [[study.study, symbol] for symbol in target_symbols(plan)],
        "left_out": [[study.study, part, file, row.line, row.reason] for part, file, row in study.own.left_out()],
        "overlap": overlap_rows(plan),
        "trend": [row for summary in summaries for row in trend_rows(summary)],
    }
    floor = [(name, found) for name, pairs in plan.floor.items() for found in _found(base, pairs)]
    return Contents(study.study, tables, evaluations, floor, divergences, predictions)


def target_symbols(plan: StudyPlan) -> list[str]:
    """Words that the targets' answers use and those of no retention benchmark do (for the spill audit)."""
    if plan.base.lab is None or plan.study.own.target is not None:
        return []
    from retain_core.lab.targets import LAB_TARGETS
    from retain_core.lab.world import World

    world = World(plan.world)
    return list(dict.fromkeys(symbol for name in plan.study.targets() for symbol in LAB_TARGETS[name](world, "varied").symbols))


def _found(checkpoint: str, pairs: Sequence[tuple[Plan, Artifact | None]]) -> list[Evaluated]:
    return [Evaluated(checkpoint, p.benchmark, p.settings, a) for p, a in pairs if a and isinstance(p, EvaluationPlan)]


def study_row(study: str, revision: Revision) -> list[Any]:
    """The row of `studies` for one revision."""
    contrast = revision.spec.get("primary")
    return [
        study, revision.number, canonical_json(revision.spec), revision.spec_hash,
        canonical_json(contrast) if contrast else None, revision.declared_at, revision.declared_at, revision.current,
        list(revision.looks),
    ]  # fmt: skip


def _benchmark_rows(study: Study) -> list[list[Any]]:
    named: list[tuple[str | None, str, bool | None]] = [(None, "target", None)]
    named += [(None, "later_target", None) for _ in study.then]
    named += [(r.metric, "retention", r.near) for r in study.retention]
    named += [(None, "probe", None) for _ in study.probes]
    stages = {name: stage for stage, name in enumerate(study.targets(), start=1)}
    return [
        [study.study, known.name, metric or known.metrics[0], role, near, known.choices, stages.get(known.name)]
        for known, (metric, role, near) in zip(study.benchmarks(), named, strict=True)
    ]


def _base_row(plan: StudyPlan) -> list[Any]:
    study, weights = plan.study, plan.base_weights
    base = f"{study.study}/base"
    init_seed = plan.base.lab.seed if plan.base.lab else None
    return [
        base, study.study, base, study.target, "base", "none", "base", canonical_json(study.base), None, None, None,
        init_seed, None, None, "done" if plan.base_ready else "missing", None, 0, 0, 0, 0, 0, None, 0.0, 0.0, 0.0, None, None,
        weights.created_at if weights else None, plan.base.fingerprint,
    ]  # fmt: skip


def _arm_row(plan: StudyPlan, arm: PlannedArm, errors: dict[str, str]) -> list[Any]:
    spec, meta = arm.spec, arm.record.meta if arm.record else {}
    status = "done" if arm.done else "failed" if spec.arm in errors else "missing"
    distance, path = meta.get("distances", {}).get(str(spec.steps[-1]), (None, None))
    init_seed = plan.base.lab.seed if plan.base.lab else None
    config = {**spec.config, "updates": spec.updates, "sequences_per_update": spec.sequences_per_update}
    if spec.then:
        config["then"] = list(spec.then)
    return [
        spec.arm, spec.study, f"{spec.study}/base", spec.target, spec.method, spec.config["algorithm"], spec.role,
        canonical_json(config),
        spec.learning_rate, spec.seed, spec.seed, init_seed, spec.seed, None, status, errors.get(spec.arm),
        meta.get("updates"), meta.get("sequences"), meta.get("unique_prompts"), meta.get("tokens_trained"),
        meta.get("tokens_generated"), meta.get("style_distance"), meta.get("seconds"), path, distance, meta.get("git_sha"),
        meta.get("hardware"), arm.record.created_at if arm.record else None, spec.key,
    ]  # fmt: skip


def _checkpoint_row(arm: PlannedArm, checkpoint: Checkpoint) -> list[Any]:
    spec: ArmSpec = arm.spec
    step, alpha = checkpoint
    distances = arm.record.meta["distances"] if arm.record else {}
    distance, path = distances.get(str(step), (None, None))
    if alpha is not None:  # on the straight line from the base, which no training went along
        distance, path = distance and alpha * distance, None
    kept = not spec.trained or (alpha is None and step in spec.kept_steps())
    return [spec.checkpoint(*checkpoint), spec.arm, spec.study, step, alpha, spec.stage(step), kept, distance, path]
