"""Evaluating one checkpoint on benchmarks, and publishing an artifact for each.

The settings of an evaluation are everything that can change a score without changing the model; two
evaluations are compared only when their settings hashes agree.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retain_core.arms import LAB_TEMPLATE, ArmSpec, Checkpoint, computed_by, templated
from retain_core.canonical import digest
from retain_core.evaluation.answers import Answer, write_answers
from retain_core.evaluation.benchmarks import SAMPLING_SEED, Benchmark
from retain_core.evaluation.divergence import DivergencePlan, Divergences, DivergenceSettings, load_model
from retain_core.evaluation.floor import USUAL, Nuisance, usual
from retain_core.evaluation.generation import TRANSFORMERS, Generation
from retain_core.judge.benchmark import JudgedBenchmark
from retain_core.judge.judging import (
    judge_dtype,
    judge_folder,
    judge_identity,
    judged,
    read_unjudged,
    write_unjudged,
    write_verdicts,
)
from retain_core.own.items import FILE, items_key, read_items
from retain_core.own.target import OwnTarget, longest_answer
from retain_core.store import Artifact, Store, key_of
from retain_core.suite.benchmark import SuiteBenchmark

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

    @property
    def answers_inputs(self) -> dict[str, Any]:
        """What the answers of a judged benchmark depend on: everything but the judge."""
        settings = {name: value for name, value in self.settings.items() if name not in ("judge", "metrics")}
        return {"answers": self.checkpoint, "benchmark": self.benchmark, "settings": settings}


Plan = EvaluationPlan | DivergencePlan
"""Something to be computed of one checkpoint."""


def evaluation_settings(
    benchmark: Benchmark,
    dataset_key: str,
    threads: int,
    chat_template: str,
    nuisance: Nuisance = USUAL,
    generation: Generation = TRANSFORMERS,
) -> dict[str, Any]:
    """Everything that can change a score of this benchmark without changing the model."""
    return {
        "harness": benchmark.harness_name, "metrics": list(benchmark.metrics), **_items_settings(benchmark, dataset_key),
        **nuisance.settings(generation), **generation.settings(),
        "threads": threads + nuisance.more_threads, "item_order": nuisance.item_order,
        "chat_template": chat_template, "decoding": decoding(benchmark),
        "evaluation_version": EVALUATION_VERSION, **templated(chat_template),
        **computed_by("torch", "transformers", "lm_eval"),
    }  # fmt: skip


def decoding(benchmark: Benchmark) -> str:
    """How answers are drawn, in words."""
    if isinstance(benchmark.own, JudgedBenchmark):
        return f"greedy, {benchmark.own.longest_answer} new tokens"
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
    if isinstance(benchmark.own, JudgedBenchmark):
        return items | {"judge": judge_identity(benchmark.own.judge)}
    return items | ({"scoring": benchmark.own.evaluation_identity()} if isinstance(benchmark.own, OwnTarget) else {})


def checkpoint_plans(spec: ArmSpec, checkpoint: Checkpoint) -> list[Plan]:
    """Everything that is computed of one checkpoint of an arm."""
    identity = spec.checkpoint_identity(*checkpoint)
    settings = DivergenceSettings(
        base=spec.base.fingerprint, dataset_key=spec.dataset_key, target=spec.target, retention=spec.retention,
        threads=spec.threads, chat_template=spec.base.chat_template, own=own_items(spec.benchmarks),
        longest=spec.benchmarks[0].longest, size=spec.evaluation, prompts=spec.divergence_prompts,
    )  # fmt: skip
    how = usual(spec.evaluation), spec.generation
    return [
        *plans_of(identity, spec.benchmarks, spec.dataset_key, spec.threads, spec.chat_template, *how),
        DivergencePlan(identity, settings),
    ]


def plans_of(
    checkpoint: dict[str, Any],
    benchmarks: Sequence[Benchmark],
    dataset_key: str,
    threads: int,
    chat_template: str = LAB_TEMPLATE,
    nuisance: Nuisance = USUAL,
    generation: Generation = TRANSFORMERS,
) -> list[EvaluationPlan]:
    """The evaluations of one checkpoint on several benchmarks."""
    return [
        EvaluationPlan(
            checkpoint, one, evaluation_settings(one, dataset_key, threads, chat_template, nuisance, generation)
        )
        for one in benchmarks
    ]  # fmt: skip


def own_items(benchmarks: Sequence[Benchmark]) -> tuple[tuple[str, str], ...]:
    """(benchmark, key of its items) of those that are the user's own."""
    return tuple((benchmark.name, items_key(benchmark)) for benchmark in benchmarks if benchmark.own)


class Evaluator:
    """Evaluates checkpoints one after another in this process; items and the base are read once."""

    def __init__(
        self,
        store: Store,
        dataset: Artifact,
        base_weights: Path,
        nuisance: Nuisance = USUAL,
        generation: Generation = TRANSFORMERS,
    ) -> None:
        self._store, self._items, self._base_weights = store, dataset.file("items"), base_weights
        self._nuisance, self._generation = nuisance, generation
        self._exact: dict[str, Any] = {}
        self._longest: dict[str, int] = {}
        self._divergences: Divergences | None = None

    def evaluate(self, weights: Path, plans: Sequence[Plan]) -> None:
        """Publish everything planned of the checkpoint whose weights lie at `weights`.

        Answers that a judge reads are published first; the judge is loaded when the checkpoint is not needed any more.
        """
        asked = [plan for plan in plans if isinstance(plan, EvaluationPlan) and not self._answered(plan)]
        measured = [plan for plan in plans if isinstance(plan, DivergencePlan)]
        later: list[tuple[EvaluationPlan, list[Answer]]] = []
        if asked and self._generation.backend == "http":
            later = self._ask_server(weights, asked)
            asked = []
        if asked or later or measured:
            self._ask_here(weights, asked, later, measured)
        self._judge([plan for plan in plans if isinstance(plan, EvaluationPlan) and _is_judged(plan)])

    def _ask_here(
        self,
        weights: Path,
        asked: Sequence[EvaluationPlan],
        later: Sequence[tuple[EvaluationPlan, list[Answer]]],
        measured: Sequence[DivergencePlan],
    ) -> None:
        """Everything that takes the model in this process; `later` are answers that lack their exact score."""
        from retain_core.evaluation.harness import RecordingLM

        how = self._nuisance
        model, tokenizer = load_model(weights, how.read_as)
        lm = RecordingLM(how.applied_to(model), tokenizer, how.batch_size, how.batch_tokens, how.softmax)
        for plan in asked:
            self._publish(plan, self.answers(lm, plan.of))
        for plan, answers in later:
            self._add_exact(model, tokenizer, plan.of, answers)
            self._publish(plan, answers)
        for each in measured:
            self._measure_divergence(each, model, tokenizer)

    def _ask_server(self, weights: Path, asked: Sequence[EvaluationPlan]) -> list[tuple[EvaluationPlan, list[Answer]]]:
        """Everything that a server can answer. Returns the answers that lack their exact score, which no server gives."""
        from retain_core.evaluation.http import served

        later = []
        with tempfile.TemporaryDirectory() as folder, served(self._generation, weights, Path(folder)) as lm:
            for plan in asked:
                answers = self.plain_answers(lm, plan.of)
                if plan.of.exact:
                    later.append((plan, answers))
                else:
                    self._publish(plan, answers)
        return later

    def _answered(self, plan: EvaluationPlan) -> bool:
        """Whether the checkpoint need not be asked: a judge can read what it said before."""
        return _is_judged(plan) and self._store.find("answers", key_of(plan.answers_inputs)) is not None

    def _publish(self, plan: EvaluationPlan, answers: list[Answer]) -> None:
        if _is_judged(plan):
            with self._store.create("answers", key_of(plan.answers_inputs), plan.answers_inputs) as draft:
                write_unjudged(draft.path, answers)
                draft.meta["n"] = len(answers)
            return
        with self._store.create("evaluation", plan.key, plan.inputs) as draft:
            write_answers(draft.path, plan.benchmark, answers)
            draft.meta.update(_evaluation_meta(plan, answers))

    def _judge(self, plans: Sequence[EvaluationPlan]) -> None:
        """Let the judge read the answers that were published."""
        if not plans:
            return
        gc.collect()
        with self._judging(plans[0].of) as lm:
            for plan in plans:
                own = plan.of.own
                assert isinstance(own, JudgedBenchmark)
                unjudged = read_unjudged(self._store.get("answers", key_of(plan.answers_inputs)))
                answers, verdicts = judged(lm, own, unjudged)
                with self._store.create("evaluation", plan.key, plan.inputs) as draft:
                    write_answers(draft.path, plan.benchmark, answers)
                    write_verdicts(draft.path, plan.benchmark, answers, verdicts)
                    unreadable = sum(not verdict.readable for verdict, _ in verdicts)
                    draft.meta.update(_evaluation_meta(plan, answers), unreadable_verdicts=unreadable)

    @contextmanager
    def _judging(self, benchmark: Benchmark) -> Iterator[Any]:
        """The judge, ready to be asked: here or behind a server of its own. A study has one."""
        from retain_core.evaluation.harness import RecordingLM
        from retain_core.judge.judging import BATCH

        own = benchmark.own
        assert isinstance(own, JudgedBenchmark)
        folder = judge_folder(own.judge)
        if own.judge.serve:
            from retain_core.evaluation.http import served

            generation = Generation(backend="http", serve=own.judge.serve)
            with tempfile.TemporaryDirectory() as work, served(generation, folder, Path(work)) as lm:
                yield lm
            return
        yield RecordingLM(*load_model(folder, judge_dtype()), BATCH)

    def answers(self, lm: Any, benchmark: Benchmark) -> list[Answer]:
        """A model's answers to one benchmark, with the exact score where the benchmark has one."""
        answers = self.plain_answers(lm, benchmark)
        if benchmark.exact:
            self._add_exact(lm.model, lm.tokenizer, benchmark, answers)
        return answers

    def plain_answers(self, lm: Any, benchmark: Benchmark) -> list[Answer]:
        """A model's answers to one benchmark as they are asked of any backend."""
        from retain_core.evaluation.harness import ask

        if benchmark.own:
            return self._own_answers(lm, benchmark)
        with self._nuisance.ordered(self._items, benchmark.name) as items:
            return ask(lm, benchmark, str(items))

    def _add_exact(self, model: Any, tokenizer: Any, benchmark: Benchmark, answers: list[Answer]) -> None:
        from retain_core.evaluation.exact import exact_items, exact_scores

        name = benchmark.name
        if name not in self._exact:
            own = self._store.get("items", items_key(benchmark)).file(FILE) if benchmark.own else None
            self._exact[name] = exact_items(tokenizer, own or self._items / f"{name}.jsonl")
        exact = exact_scores(model, self._exact[name], self._nuisance.batch_tokens)
        for answer in answers:
            answer.scores["exact"] = exact[answer.doc_id]

    def _own_answers(self, lm: Any, benchmark: Benchmark) -> list[Any]:
        """A model's answers to one of the user's own benchmarks."""
        from retain_core.own.asking import ask_benchmark, ask_requests, ask_target
        from retain_core.suite.asking import ask_suite
        from retain_core.training.encode import read_tokenizer

        items = read_items(self._store, benchmark)
        lm.item_order = self._nuisance.item_order
        try:
            if isinstance(benchmark.own, JudgedBenchmark):
                return ask_requests(lm, benchmark, items)
            if isinstance(benchmark.own, SuiteBenchmark):
                return ask_suite(lm, benchmark.own, items)
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
            self._divergences = Divergences(self._base_weights, samples, plan.settings.size)
        self._divergences.measure(self._store, plan, model, tokenizer)


def _is_judged(plan: EvaluationPlan) -> bool:
    return isinstance(plan.of.own, JudgedBenchmark)


def _evaluation_meta(plan: EvaluationPlan, answers: Sequence[Answer]) -> dict[str, Any]:
    return {
        "benchmark": plan.benchmark, "settings": plan.settings, "settings_hash": digest(plan.settings, 16),
        "n": len({answer.doc_id for answer in answers}),
    }  # fmt: skip
