"""Asking a model the user's own benchmarks, through lm-eval like those of the lab."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate

from retain_core.errors import RetainError
from retain_core.evaluation.answers import Answer
from retain_core.evaluation.benchmarks import Benchmark
from retain_core.evaluation.harness import LM, response_of
from retain_core.judge.benchmark import JudgedBenchmark
from retain_core.own.benchmark import OwnBenchmark, score_name, task_of
from retain_core.own.target import OwnTarget, says
from retain_core.training.rewards import Judge, alarm

Items = Sequence[dict[str, Any]]
UNJUDGED = "unjudged"
"""lm-eval wants a figure."""
TOLERANCE = 1e-6
"""By how much lm-eval's own figure may differ from the mean over items: it sums in another order."""


def ask_benchmark(lm: LM, benchmark: Benchmark, items: Items) -> list[Answer]:
    """Every item of the user's YAML file put to the model, with lm-eval's own scores.

    Raises RetainError where lm-eval's figure is no mean over the items, or a score is not from 0 to 1.
    """
    own = benchmark.own
    assert isinstance(own, OwnBenchmark)
    task = task_of(own)
    samples, results = evaluated(lm, task)
    if unknown := set(own.metrics) - {score_name(m, s["filter"]) for s in samples for m in s["metrics"]}:
        raise RetainError(f"{own.yaml.path}: lm-eval gave no score {sorted(unknown)[0]!r}")
    stops = bool((task.config.generation_kwargs or {}).get("until"))
    answers: dict[int, Answer] = {}
    for sample in samples:
        item = items[sample["doc_id"]]
        answer = answers.get(item["doc_id"])
        if answer is None:
            answer = answers[item["doc_id"]] = answer_to(lm, sample, item)
            if stops and answer.finish_reason == "length":
                # A stop sequence may have ended it, which lm-eval does not tell from a cut.
                answer.finish_reason = answer.n_tokens = None
        for metric in sample["metrics"]:
            if metric == "parsed":
                answer.parsed = bool(sample[metric])
            elif (name := score_name(metric, sample["filter"])) in own.metrics:
                answer.scores[name] = _fraction(own, name, sample[metric])
    found = list(answers.values())
    for metric in own.metrics:
        mean = sum(answer.scores[metric] for answer in found) / len(found)
        figure = results.get(metric if "," in metric else f"{metric},none")
        if figure is not None and abs(mean - figure) > TOLERANCE:
            raise RetainError(
                f"{own.yaml.path}: lm-eval's {metric} ({figure:g}) is not the mean over its items ({mean:g}), which is what "
                "retain pairs with the base"
            )
    return found


def ask_target(lm: LM, benchmark: Benchmark, items: Items, longest: int) -> list[Answer]:
    """Every held-out item of the user's target put to the model greedily, scored by the verifier.

    Raises RetainError when the verifier fails on too many of them, or gives what its metric does not allow.
    """
    own = benchmark.own
    assert isinstance(own, OwnTarget)
    right, judge = own.verifier.load(), Judge()

    def judged(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
        return {own.metric: judge.earned(partial(says, right, items[doc["doc_id"]]["row"], results[0]))}

    with alarm():
        samples, _ = evaluated(lm, _target_task(benchmark.name, own.metric, items, longest, judged))
    judge.refuse(f"the verifier of {benchmark.name}", judge.failures, len(items))
    answers = []
    for sample in samples:
        answer = answer_to(lm, sample, items[sample["doc_id"]])
        score = float(sample[own.metric])
        if own.metric == "acc" and score not in (0.0, 1.0):
            raise RetainError(f"the verifier of {benchmark.name} returned {score:g}; graded answers need `metric: score`")
        if not 0 <= score <= 1:
            raise RetainError(f"the verifier of {benchmark.name} returned {score:g}; a score lies between 0 and 1")
        answer.scores[own.metric] = score
        answers.append(answer)
    with alarm():
        _audit(own, answers, items)
    return answers


def ask_requests(lm: LM, benchmark: Benchmark, items: Items) -> list[Answer]:
    """Every request of a judged benchmark put to the model greedily; nobody has judged the answers yet."""
    own = benchmark.own
    assert isinstance(own, JudgedBenchmark)
    samples, _ = evaluated(lm, _target_task(benchmark.name, UNJUDGED, items, own.longest_answer, lambda *_: {UNJUDGED: 0.0}))
    return [answer_to(lm, sample, items[sample["doc_id"]]) for sample in samples]


def _audit(own: OwnTarget, answers: Sequence[Answer], items: Items) -> None:
    """Look at the answers a second time, where the target says how: leniently, and for their form."""
    lenient, parsed = (code and code.load() for code in (own.lenient, own.parsed))
    judge = Judge()
    for answer in answers:
        row = items[answer.doc_id]["row"]
        if lenient:
            answer.scores["lenient"] = float(judge.earned(partial(says, lenient, row, answer.response)) > 0)
        if parsed:
            answer.parsed = judge.earned(partial(says, parsed, row, answer.response)) > 0


def _target_task(name: str, metric: str, items: Items, longest: int, judged: Any) -> Any:
    import datasets

    asked = [{key: item[key] for key in ("doc_id", "prompt", "target")} for item in items]
    return ConfigurableTask(
        config={
            "task": name, "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(asked)}, "test_split": "test",
            "output_type": "generate_until", "doc_to_text": "prompt", "doc_to_target": "target", "process_results": judged,
            "generation_kwargs": {"until": [], "max_gen_toks": longest, "do_sample": False},
            "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True}], "metadata": {"version": 1},
        }
    )  # fmt: skip


def evaluated(lm: LM, task: Any, unsafe_code: bool = False) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """lm-eval's samples and figures of one task. Raises RetainError where a prompt would be cut."""
    lm.generated.clear()
    name = task.config.task
    found: Any = evaluate(
        lm=lm, task_dict={"tasks": {name: task}}, bootstrap_iters=0, apply_chat_template=True, log_samples=True,
        confirm_run_unsafe_code=unsafe_code,
    )  # fmt: skip
    return found["samples"][name], found["results"][name]


def answer_to(lm: LM, sample: dict[str, Any], item: dict[str, Any]) -> Answer:
    """What a model said to an item, its scores apart."""
    tokens, finish = lm.generated.get(sample["arguments"][0][0], (None, None))
    return Answer(
        doc_id=item["doc_id"], prompt=item["prompt"], target=item["target"], cluster=item["cluster"],
        response=response_of(sample), scores={}, finish_reason=finish, n_tokens=tokens, kind=item["kind"], item=item["item"],
    )  # fmt: skip


def _fraction(own: OwnBenchmark, metric: str, score: Any) -> float:
    if not isinstance(score, int | float):
        raise RetainError(f"{own.yaml.path}: {metric} is no number for a single item, and retain pairs items with the base")
    if not 0 <= score <= 1:
        raise RetainError(f"{own.yaml.path}: {metric} is {score:g} for an item; a score lies between 0 and 1")
    return float(score)
