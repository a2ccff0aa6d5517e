"""Which artifacts a study looks up in the store: what keeps them from being removed, and what its disk is made of."""

from __future__ import annotations

from retain_core.arms import weights_key
from retain_core.evaluation.evaluate import EvaluationPlan, own_items
from retain_core.judge.benchmark import JudgedBenchmark
from retain_core.overlap import overlap_inputs
from retain_core.plan import StudyPlan
from retain_core.store import key_of
from retain_core.training.traces import teacher

Reference = tuple[str, str]
"""Kind and key of an artifact."""
KINDS = (
    "base",
    "dataset",
    "items",
    "base_samples",
    "support",
    "answers",
    "evaluation",
    "divergence",
    "arm",
    "weights",
    "traces",
    "overlap",
)
"""The kinds that studies look up by key."""


def references_of(plan: StudyPlan) -> dict[Reference, str]:
    """Every artifact that a study looks up -> the benchmark that it belongs to, empty where it is none's."""
    found = {
        ("dataset", plan.dataset_key): "",
        ("base_samples", key_of(plan.divergence_settings.inputs())): "",
        ("support", plan.support_key): "",
        ("overlap", key_of(overlap_inputs(plan))): "",
    }
    if plan.base.lab:
        found["base", plan.base.fingerprint] = ""
    found |= {("items", key): name for name, key in own_items(plan.study.benchmarks())}
    for planned, _ in [*plan.base_evaluations, *(pair for pairs in plan.floor.values() for pair in pairs)]:
        found |= _of_evaluation(planned)
    for arm in plan.arms:
        for pairs in arm.evaluations.values():
            for p, _ in pairs:
                found |= _of_evaluation(p) if isinstance(p, EvaluationPlan) else {(p.kind, p.key): ""}
        if arm.spec.trained:
            found["arm", arm.spec.key] = ""
            found |= {("weights", weights_key(arm.spec, step)): "" for step in arm.spec.kept_steps()}
        if arm.spec.config.get("traces_of"):
            found["traces", key_of({"traces": teacher(arm.spec).inputs()})] = ""
    return found


def _of_evaluation(plan: EvaluationPlan) -> dict[Reference, str]:
    """An evaluation, and the answers that a judge read for it."""
    found = {(plan.kind, plan.key): plan.benchmark}
    if isinstance(plan.of.own, JudgedBenchmark):
        found["answers", key_of(plan.answers_inputs)] = plan.benchmark
    return found
