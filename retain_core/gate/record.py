"""What was decided, kept. Owns the `decision` artifact: decision.json, the document that `retain gate --format json` prints.

Its key is the hash of what was compared (the keys of both sides' evaluations, the benchmarks that count) and of the margin,
so a model whose files, base and settings are as they were is decided already.
"""

from __future__ import annotations

import json
from typing import Any

from retain_core.plan import StudyPlan
from retain_core.store import Artifact, Store, key_of

CANDIDATE = "candidate"
"""Label of the judged model's arm. It names no model, so that `trend` is one line over all of them; its `model` names each."""
DECISION = "decision.json"
DECISION_VERSION = 1
"""Raised when the same answers are decided or told otherwise."""


def is_gate(spec: dict[str, Any]) -> bool:
    """Whether a declared text is one of the gate's own: its one arm is the model that is judged."""
    return str(spec.get("study")).endswith("-gate") and [m.get("label") for m in spec.get("methods", [])] == [CANDIDATE]


def find_decision(store: Store, plan: StudyPlan, margin: float) -> Artifact | None:
    """What was decided about the model of a gate's plan; None before. Nothing is evaluated."""
    return store.find("decision", key_of(_inputs(plan, margin)))


def keep_decision(store: Store, plan: StudyPlan, margin: float, document: dict[str, Any]) -> tuple[Artifact, bool]:
    """The artifact of a decision, and whether it is new."""
    inputs = _inputs(plan, margin)
    key = key_of(inputs)
    if known := store.find("decision", key):
        return known, False
    with store.create("decision", key, inputs) as draft:
        (draft.path / DECISION).write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")
    return store.get("decision", key), True


def decisions_of(store: Store, study: str) -> list[Artifact]:
    """All decisions under the name of a gate's study, oldest first."""
    found = [a for key in store.keys("decision") if (a := store.find("decision", key)) and a.inputs["study"] == study]
    return sorted(found, key=lambda a: (a.created_at, a.key))


def read_decision(decision: Artifact) -> dict[str, Any]:
    """The document of a decision: fractions, as in the warehouse."""
    document: dict[str, Any] = json.loads(decision.file(DECISION).read_text(encoding="utf-8"))
    return document


def decision_row(decision: Artifact) -> list[Any]:
    """The row of `trend` that a decision stands for."""
    study, told = decision.inputs["study"], read_decision(decision)
    return [
        study, decision.created_at[:10], f"{study}/base", CANDIDATE, None, None, told["drop"], told["ci_low"], told["ci_high"],
        None, told["name"], told["margin"], told["decision"], decision.key, decision.created_at,
    ]  # fmt: skip


def _inputs(plan: StudyPlan, margin: float) -> dict[str, Any]:
    (arm,) = plan.arms
    return {
        "study": plan.study.study, "version": DECISION_VERSION, "margin": margin, "target": plan.study.target,
        "retention": [one.model_dump(mode="json") for one in plan.study.retention],
        "base": sorted(p.key for p, _ in plan.base_evaluations),
        "model": sorted(p.key for pairs in arm.evaluations.values() for p, _ in pairs),
    }  # fmt: skip
