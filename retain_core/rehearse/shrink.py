"""A study made small enough to be rehearsed: what is turned down, and the sentences that say so."""

from __future__ import annotations

import math
from typing import Any

from retain_core.errors import InputError
from retain_core.study import Study
from retain_core.training.size import TrainingSize

UPDATES = 2
LEAST_SEQUENCES = 8
PROMPTS = 8
"""Along which the KL to the base is measured, of the target and of retention."""
NEW_TOKENS = 16
"""Tokens of a sampled answer at most."""
TRAIN, ITEMS, OWN_ITEMS = 40, 8, 16
"""Rows of a target's training data, held-out items of a benchmark, and of a target of the user's own. With fewer items one of
the two halves that points are chosen and shown on would be too small for an interval."""


def shrunk(study: Study) -> tuple[Study, list[str]]:
    """A study with everything in it, over one learning rate, one seed and a few updates; and what was turned down.

    Raises InputError for a study that needs no rehearsal.
    """
    if study.base.lab() is not None:
        raise InputError(
            f"{study.study}: its base {study.base.model} is one of the lab, which is small already: "
            "run the study itself, or studies/smoke.yaml"
        )
    unit = math.lcm(*(method.unit()[0] for method in study.all_methods()))
    sequences = unit * -(-LEAST_SEQUENCES // unit)
    rate, seed = max(study.learning_rates), study.seeds[0]
    said: dict[str, Any] = {
        "learning_rates": (rate,), "seeds": (seed,), "checkpoints": 1,
        "budget": {"updates": UPDATES, "sequences_per_update": sequences},
        "methods": [_one_cell(method) for method in study.model_dump()["methods"]],
        "divergence_prompts": min(PROMPTS, study.divergence_prompts),
        "execution": {"threads_per_arm": 1, "work_pool": None},
        "training": {"activation_checkpointing": study.training.activation_checkpointing},
        "interpolate": study.interpolate[:1],
        "data": study.data.model_copy(update={"longest_answer": NEW_TOKENS, "max_length": None}).model_dump(),
    }  # fmt: skip
    lines = []
    if study.generation.backend != "transformers":
        said["generation"] = {"backend": "transformers"}
        lines.append(f"backend: transformers in this process (the study: {study.generation.backend})")
    if study.training.rollouts is not None:
        lines.append(f"rollouts: sampled by the trainer itself (the study: the server at {study.training.rollouts.server})")
    if study.training.model_copy(update={"rollouts": None}) != TrainingSize():
        lines.append("training: whole batches in this machine's own precision, not compiled")
    if study.execution.processes_per_arm > 1:
        lines.append(f"one process an arm (the study: {study.execution.processes_per_arm}, {study.execution.parallel})")
    small = Study.model_validate({**_said(study), **said})
    cells = len(study.learning_rates) * len(study.seeds)
    return small, [
        f"budget: {UPDATES} updates of {sequences} sequences (the study: {study.budget.updates} of "
        f"{study.budget.sequences_per_update}), one checkpoint ({study.checkpoints}), answers of at most {NEW_TOKENS} tokens",
        f"KL to the base: along {small.divergence_prompts} prompts of target and of retention (the study: "
        f"{study.divergence_prompts})",
        f"grid: learning rate {rate:g} and seed {seed} (the study: {len(study.learning_rates)} x {len(study.seeds)} = "
        f"{cells} of each method)",
        *lines,
    ]


def _said(study: Study) -> dict[str, Any]:
    """A study as a file would say it, without what sealing fills in."""
    return study.model_dump(exclude={"own"})


def _one_cell(method: dict[str, Any]) -> dict[str, Any]:
    """A method at the study's one learning rate and seed; one that draws anew does so at every update."""
    small = {**method, "learning_rates": None, "seeds": None}
    if method["staleness"] is not None:
        small["staleness"] = 1
    return small
