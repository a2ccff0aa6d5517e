"""Evaluating one checkpoint on benchmarks, and publishing an artifact for each.

The settings of an evaluation are everything that can change a score without changing the model; two
evaluations are compared only when their settings hashes agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retain_core.arms import LAB_TEMPLATE, ArmSpec, computed_by
from retain_core.canonical import digest
from retain_core.evaluation.answers import write_answers
from retain_core.evaluation.benchmarks import BATCH_SIZE, BENCHMARKS
from retain_core.store import Artifact, Store, key_of

EVALUATION_VERSION = 1
"""Raised when equal settings would give other answers or scores."""


@dataclass(frozen=True)
class EvaluationPlan:
    """One evaluation to be done or found: which checkpoint, which benchmark, under which settings."""

    checkpoint: dict[str, Any]
    benchmark: str
    settings: dict[str, Any]

    @property
    def inputs(self) -> dict[str, Any]:
        """What the answers depend on."""
        return {"evaluation": self.checkpoint, "benchmark": self.benchmark, "settings": self.settings}

    @property
    def key(self) -> str:
        """The key of the evaluation's artifact."""
        return key_of(self.inputs)


def evaluation_settings(benchmark: str, dataset_key: str, threads: int, chat_template: str) -> dict[str, Any]:
    """Everything that can change a score of this benchmark without changing the model."""
    known = BENCHMARKS[benchmark]
    return {
        "harness": known.harness_name, "metrics": list(known.metrics), "items": f"{dataset_key}/{benchmark}",
        "backend": "transformers", "dtype": "float32", "batch_size": BATCH_SIZE, "threads": threads,
        "chat_template": chat_template, "decoding": "greedy, 16 new tokens",
        "evaluation_version": EVALUATION_VERSION, **computed_by("torch", "transformers", "lm_eval"),
    }  # fmt: skip


def evaluation_plans(spec: ArmSpec, step: int) -> list[EvaluationPlan]:
    """The evaluations of one checkpoint of an arm."""
    return plans_of(spec.checkpoint_identity(step), spec.benchmarks, spec.dataset_key, spec.threads, spec.chat_template)


def plans_of(
    checkpoint: dict[str, Any], benchmarks: Sequence[str], dataset_key: str, threads: int, chat_template: str = LAB_TEMPLATE
) -> list[EvaluationPlan]:
    """The evaluations of one checkpoint on several benchmarks."""
    return [
        EvaluationPlan(checkpoint, name, evaluation_settings(name, dataset_key, threads, chat_template)) for name in benchmarks
    ]


class Evaluator:
    """Evaluates checkpoints one after another in this process; items are read and encoded once."""

    def __init__(self, store: Store, dataset: Artifact) -> None:
        self._store, self._items = store, dataset.file("items")
        self._exact: Any = None

    def evaluate(self, weights: Path, plans: list[EvaluationPlan]) -> None:
        """Publish each planned evaluation of the checkpoint whose weights lie at `weights`."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from retain_core.evaluation.harness import RecordingLM

        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32, use_safetensors=True).to(device).eval()
        tokenizer = AutoTokenizer.from_pretrained(weights)
        lm = RecordingLM(model, tokenizer)
        for plan in plans:
            answers = self.answers(lm, plan.benchmark)
            with self._store.create("evaluation", plan.key, plan.inputs) as draft:
                write_answers(draft.path, plan.benchmark, answers)
                draft.meta.update(
                    benchmark=plan.benchmark, settings=plan.settings, settings_hash=digest(plan.settings, 16), n=len(answers)
                )

    def answers(self, lm: Any, benchmark: str) -> list[Any]:
        """A model's answers to one benchmark, with the exact score where the benchmark has one."""
        from retain_core.evaluation.exact import exact_items, exact_scores
        from retain_core.evaluation.harness import ask

        answers = ask(lm, benchmark, str(self._items))
        if BENCHMARKS[benchmark].exact:
            if self._exact is None:
                self._exact = exact_items(lm.tokenizer, self._items)
            exact = exact_scores(lm.model, self._exact)
            for answer in answers:
                answer.scores["exact"] = exact[answer.doc_id]
        return answers
