"""Evaluating one checkpoint on benchmarks, and publishing an artifact for each.

The settings of an evaluation are everything that can change a score without changing the model; two
evaluations are compared only when their settings hashes agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retain_core.arms import LAB_TEMPLATE, ArmSpec, Checkpoint, computed_by
from retain_core.canonical import digest
from retain_core.evaluation.answers import write_answers
from retain_core.evaluation.benchmarks import BENCHMARKS, SAMPLING_SEED, Benchmark
from retain_core.evaluation.divergence import DivergencePlan, Divergences, DivergenceSettings, load_model
from retain_core.evaluation.floor import USUAL, Nuisance
from retain_core.store import Artifact, Store, key_of

EVALUATION_VERSION = 2
"""Raised when equal settings would give other answers or scores."""


@dataclass(frozen=True)
class EvaluationPlan:
    """One evaluation to be done or found: which checkpoint, which benchmark, under which settings."""

    checkpoint: dict[str, Any]
    benchmark: str
    settings: dict[str, Any]
    kind = "evaluation"

    @property
    def inputs(self) -> dict[str, Any]:
        """What the answers depend on."""
        return {"evaluation": self.checkpoint, "benchmark": self.benchmark, "settings": self.settings}

    @property
    def key(self) -> str:
        """The key of the evaluation's artifact."""
        return key_of(self.inputs)


Plan = EvaluationPlan | DivergencePlan
"""Something to be computed of one checkpoint."""


def evaluation_settings(
    benchmark: str, dataset_key: str, threads: int, chat_template: str, nuisance: Nuisance = USUAL
) -> dict[str, Any]:
    """Everything that can change a score of this benchmark without changing the model."""
    known = BENCHMARKS[benchmark]
    return {
        "harness": known.harness_name, "metrics": list(known.metrics), "items": f"{dataset_key}/{benchmark}",
        "backend": "transformers", "dtype": nuisance.dtype, "batch_size": nuisance.batch_size,
        "threads": threads + nuisance.more_threads, "item_order": nuisance.item_order,
        "chat_template": chat_template, "decoding": decoding(known),
        "evaluation_version": EVALUATION_VERSION, **computed_by("torch", "transformers", "lm_eval"),
    }  # fmt: skip


def decoding(benchmark: Benchmark) -> str:
    """How answers are drawn, in words."""
    if benchmark.samples == 1:
        return "greedy, 16 new tokens"
    return f"{benchmark.samples} samples at temperature 1 from seed {SAMPLING_SEED}, 16 new tokens"


def checkpoint_plans(spec: ArmSpec, checkpoint: Checkpoint) -> list[Plan]:
    """Everything that is computed of one checkpoint of an arm."""
    identity = spec.checkpoint_identity(*checkpoint)
    settings = DivergenceSettings(
        base=spec.base.fingerprint, dataset_key=spec.dataset_key, target=spec.target, retention=spec.retention,
        threads=spec.threads, chat_template=spec.base.chat_template,
    )  # fmt: skip
    return [
        *plans_of(identity, spec.benchmarks, spec.dataset_key, spec.threads, spec.chat_template),
        DivergencePlan(identity, settings),
    ]


def plans_of(
    checkpoint: dict[str, Any],
    benchmarks: Sequence[str],
    dataset_key: str,
    threads: int,
    chat_template: str = LAB_TEMPLATE,
    nuisance: Nuisance = USUAL,
) -> list[EvaluationPlan]:
    """The evaluations of one checkpoint on several benchmarks."""
    return [
        EvaluationPlan(checkpoint, name, evaluation_settings(name, dataset_key, threads, chat_template, nuisance))
        for name in benchmarks
    ]


class Evaluator:
    """Evaluates checkpoints one after another in this process; items and the base are read once."""

    def __init__(self, store: Store, dataset: Artifact, base_weights: Path, nuisance: Nuisance = USUAL) -> None:
        self._store, self._items, self._base_weights = store, dataset.file("items"), base_weights
        self._nuisance = nuisance
        self._exact: dict[str, Any] = {}
        self._divergences: Divergences | None = None

    def evaluate(self, weights: Path, plans: Sequence[Plan]) -> None:
        """Publish everything planned of the checkpoint whose weights lie at `weights`."""
        from retain_core.evaluation.harness import RecordingLM

        model, tokenizer = load_model(weights)
        lm = RecordingLM(self._nuisance.applied_to(model), tokenizer, self._nuisance.batch_size)
        for plan in plans:
            if isinstance(plan, DivergencePlan):
                self._measure_divergence(plan, model, tokenizer)
                continue
            answers = self.answers(lm, plan.benchmark)
            with self._store.create("evaluation", plan.key, plan.inputs) as draft:
                write_answers(draft.path, plan.benchmark, answers)
                draft.meta.update(
                    benchmark=plan.benchmark,
                    settings=plan.settings,
                    settings_hash=digest(plan.settings, 16),
                    n=len({answer.doc_id for answer in answers}),
                )

    def answers(self, lm: Any, benchmark: str) -> list[Any]:
        """A model's answers to one benchmark, with the exact score where the benchmark has one."""
        from retain_core.evaluation.exact import exact_items, exact_scores
        from retain_core.evaluation.harness import ask

        with self._nuisance.ordered(self._items, benchmark) as items:
            answers = ask(lm, benchmark, str(items))
        if BENCHMARKS[benchmark].exact:
            if benchmark not in self._exact:
                self._exact[benchmark] = exact_items(lm.tokenizer, self._items / f"{benchmark}.jsonl")
            exact = exact_scores(lm.model, self._exact[benchmark])
            for answer in answers:
                answer.scores["exact"] = exact[answer.doc_id]
        return answers

    def _measure_divergence(self, plan: DivergencePlan, model: Any, tokenizer: Any) -> None:
        if self._divergences is None:
            samples = self._store.get("base_samples", key_of(plan.settings.inputs()))
            self._divergences = Divergences(self._base_weights, samples)
        self._divergences.measure(self._store, plan, model, tokenizer)
