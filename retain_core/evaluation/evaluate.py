"""Evaluating one checkpoint on benchmarks, and publishing an artifact for each.

The settings of an evaluation are everything that can change a score without changing the model; two
evaluations are compared only when their settings hashes agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retain_core.arms import LAB_TEMPLATE, ArmSpec, Checkpoint, computed_by, templated
from retain_core.canonical import digest
from retain_core.evaluation.answers import write_answers
from retain_core.evaluation.benchmarks import SAMPLING_SEED, Benchmark
from retain_core.evaluation.divergence import DivergencePlan, Divergences, DivergenceSettings, load_model
from retain_core.evaluation.floor import USUAL, Nuisance
from retain_core.own.items import FILE, items_key, read_items
from retain_core.own.target import OwnTarget, longest_answer
from retain_core.store import Artifact, Store, key_of

EVALUATION_VERSION = 2
"""Raised when equal settings would give other answers or scores."""


@dataclass(frozen=True)
class EvaluationPlan:
    """One evaluation to be done or found: which checkpoint, which benchmark, under which settings."""

    checkpoint: dict[str, Any]
    of: Benchmark
    settings: dict[str, Any]
    kind = "evaluation"

    @property
    def benchmark(self) -> str:
        """The benchmark's name."""
        return self.of.name

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
    benchmark: Benchmark, dataset_key: str, threads: int, chat_template: str, nuisance: Nuisance = USUAL
) -> dict[str, Any]:
    """Everything that can change a score of this benchmark without changing the model."""
    return {
        "harness": benchmark.harness_name, "metrics": list(benchmark.metrics), **_items_settings(benchmark, dataset_key),
        "backend": "transformers", "dtype": nuisance.dtype, "batch_size": nuisance.batch_size,
        "threads": threads + nuisance.more_threads, "item_order": nuisance.item_order,
        "chat_template": chat_template, "decoding": decoding(benchmark),
        "evaluation_version": EVALUATION_VERSION, **templated(chat_template),
        **computed_by("torch", "transformers", "lm_eval"),
    }  # fmt: skip


def decoding(benchmark: Benchmark) -> str:
    """How answers are drawn, in words."""
    if benchmark.own is not None:
        return "greedy" if isinstance(benchmark.own, OwnTarget) else "greedy, as the YAML says"
    if benchmark.samples == 1:
        return f"greedy, {benchmark.longest} new tokens"
    return f"{benchmark.samples} samples at temperature 1 from seed {SAMPLING_SEED}, {benchmark.longest} new tokens"


def _items_settings(benchmark: Benchmark, dataset_key: str) -> dict[str, Any]:
    """Which items are asked, and who judges the answers where it is the user's verifier."""
    if benchmark.own is None:
        return {"items": f"{dataset_key}/{benchmark.name}"}
    items = {"items": f"{items_key(benchmark)}/{benchmark.name}"}
    return items | ({"scoring": benchmark.own.evaluation_identity()} if isinstance(benchmark.own, OwnTarget) else {})


def checkpoint_plans(spec: ArmSpec, checkpoint: Checkpoint) -> list[Plan]:
    """Everything that is computed of one checkpoint of an arm."""
    identity = spec.checkpoint_identity(*checkpoint)
    settings = DivergenceSettings(
        base=spec.base.fingerprint, dataset_key=spec.dataset_key, target=spec.target, retention=spec.retention,
        threads=spec.threads, chat_template=spec.base.chat_template, own=own_items(spec.benchmarks),
        longest=spec.benchmarks[0].longest,
    )  # fmt: skip
    return [
        *plans_of(identity, spec.benchmarks, spec.dataset_key, spec.threads, spec.chat_template),
        DivergencePlan(identity, settings),
    ]


def plans_of(
    checkpoint: dict[str, Any],
    benchmarks: Sequence[Benchmark],
    dataset_key: str,
    threads: int,
    chat_template: str = LAB_TEMPLATE,
    nuisance: Nuisance = USUAL,
) -> list[EvaluationPlan]:
    """The evaluations of one checkpoint on several benchmarks."""
    return [
        EvaluationPlan(checkpoint, benchmark, evaluation_settings(benchmark, dataset_key, threads, chat_template, nuisance))
        for benchmark in benchmarks
    ]


def own_items(benchmarks: Sequence[Benchmark]) -> tuple[tuple[str, str], ...]:
    """(benchmark, key of its items) of those that are the user's own."""
    return tuple((benchmark.name, items_key(benchmark)) for benchmark in benchmarks if benchmark.own)


class Evaluator:
    """Evaluates checkpoints one after another in this process; items and the base are read once."""

    def __init__(self, store: Store, dataset: Artifact, base_weights: Path, nuisance: Nuisance = USUAL) -> None:
        self._store, self._items, self._base_weights = store, dataset.file("items"), base_weights
        self._nuisance = nuisance
        self._exact: dict[str, Any] = {}
        self._longest: dict[str, int] = {}
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
            answers = self.answers(lm, plan.of)
            with self._store.create("evaluation", plan.key, plan.inputs) as draft:
                write_answers(draft.path, plan.benchmark, answers)
                draft.meta.update(
                    benchmark=plan.benchmark,
                    settings=plan.settings,
                    settings_hash=digest(plan.settings, 16),
                    n=len({answer.doc_id for answer in answers}),
                )

    def answers(self, lm: Any, benchmark: Benchmark) -> list[Any]:
        """A model's answers to one benchmark, with the exact score where the benchmark has one."""
        from retain_core.evaluation.exact import exact_items, exact_scores
        from retain_core.evaluation.harness import ask

        name = benchmark.name
        if benchmark.own:
            answers, file = self._own_answers(lm, benchmark), self._store.get("items", items_key(benchmark)).file(FILE)
        else:
            with self._nuisance.ordered(self._items, name) as items:
                answers, file = ask(lm, benchmark, str(items)), self._items / f"{name}.jsonl"
        if benchmark.exact:
            if name not in self._exact:
                self._exact[name] = exact_items(lm.tokenizer, file)
            exact = exact_scores(lm.model, self._exact[name])
            for answer in answers:
                answer.scores["exact"] = exact[answer.doc_id]
        return answers

    def _own_answers(self, lm: Any, benchmark: Benchmark) -> list[Any]:
        """A model's answers to one of the user's own benchmarks."""
        from retain_core.own.asking import ask_benchmark, ask_target
        from retain_core.training.encode import read_tokenizer

        items = read_items(self._store, benchmark)
        lm.item_order = self._nuisance.item_order
        try:
            if not isinstance(benchmark.own, OwnTarget):
                return ask_benchmark(lm, benchmark, items)
            if benchmark.name not in self._longest:
                self._longest[benchmark.name] = longest_answer(benchmark.own, read_tokenizer(self._base_weights))
            return ask_target(lm, benchmark, items, self._longest[benchmark.name])
        finally:
            lm.item_order = "given"

    def _measure_divergence(self, plan: DivergencePlan, model: Any, tokenizer: Any) -> None:
        if self._divergences is None:
            samples = self._store.get("base_samples", key_of(plan.settings.inputs()))
            self._divergences = Divergences(self._base_weights, samples)
        self._divergences.measure(self._store, plan, model, tokenizer)
