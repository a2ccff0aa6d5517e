"""Asking a model a benchmark of the general suite, and reading its items once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from retain_core.errors import RetainError
from retain_core.evaluation.answers import Answer
from retain_core.evaluation.harness import LM
from retain_core.own.asking import TOLERANCE, answer_to, evaluated
from retain_core.own.benchmark import rows_of_task, score_name
from retain_core.suite.benchmark import PLACE_HOLDER, SuiteBenchmark, tasks_of
from retain_core.suite.programs import pass_programs

Items = Sequence[dict[str, Any]]


def items_of(own: SuiteBenchmark) -> list[dict[str, Any]]:
    """Every item as lm-eval asks it, numbered over all parts; of a group the part is the cluster. Raises RetainError."""
    rows: list[dict[str, Any]] = []
    for name, task in tasks_of(own).items():
        for row in rows_of_task(task, own.parts[name].yaml.path, own.entry.cluster):
            part = {"cluster": name} if own.entry.group else {}
            rows.append({**row, **part, "doc_id": len(rows), "part": name, "place": row["doc_id"]})
    return rows


def ask_suite(lm: LM, own: SuiteBenchmark, items: Items) -> list[Answer]:
    """Every item put to the model, in lm-eval's words and then in those of each template.

    What is said in another template's words is a further repeat of the item. Raises RetainError where lm-eval's figure is
    no mean over the items, or a score is not from 0 to 1.
    """
    found: list[Answer] = []
    for repeat, template in enumerate((None, *own.templates)):
        for name, task in tasks_of(own, template).items():
            part = [item for item in items if item["part"] == name]
            found += _asked(lm, own, task, part, template, repeat)
    return found


def _asked(lm: LM, own: SuiteBenchmark, task: Any, items: Items, template: str | None, repeat: int) -> list[Answer]:
    """The answers to one part."""
    if own.entry.programs:
        task.config.process_results = lambda *_: {PLACE_HOLDER: 0.0}
    samples, results = evaluated(lm, task, unsafe_code=own.entry.programs)
    wanted = {own.entry.metric: f"{own.entry.metric},{template}"} if template else {m: m for m in own.metrics if _plain(own, m)}
    stops = bool((task.config.generation_kwargs or {}).get("until"))
    answers: dict[int, Answer] = {}
    for sample in samples:
        place = sample["doc_id"]
        if place not in answers:
            answers[place] = answer_to(lm, sample, items[place])
            answers[place].repeat = repeat
            if task.OUTPUT_TYPE == "generate_until":
                answers[place].response = str(sample["resps"][0][0])  # whatever a filter makes of it
            if task.multiple_input:
                answers[place].response = _chosen_context(task, sample)
            if stops and answers[place].finish_reason == "length":
                # A stop sequence may have ended it, which lm-eval does not tell from a cut.
                answers[place].finish_reason = answers[place].n_tokens = None
        for metric in sample["metrics"]:
            if (name := score_name(metric, sample["filter"])) in wanted:
                answers[place].scores[wanted[name]] = _fraction(own, name, sample[metric])
    found = [answers[place] for place in sorted(answers)]
    if own.entry.programs:
        passed = pass_programs([_program(task.eval_docs[place], answers[place].response) for place in sorted(answers)])
        for answer, one in zip(found, passed, strict=True):
            answer.scores[own.entry.metric] = float(one)
        return found
    for name, filed in wanted.items():
        _refuse_other_figure(own, name, results, [answer.scores[filed] for answer in found])
    return found


def _plain(own: SuiteBenchmark, metric: str) -> bool:
    """Whether a metric is one of lm-eval's words, not of a template's."""
    return metric.rpartition(",")[2] not in own.templates


def _chosen_context(task: Any, sample: dict[str, Any]) -> str:
    """Where the choice is one of contexts: the one that makes what follows it most likely."""
    likelihoods = [response[0] for response in sample["filtered_resps"]]
    return str(task.doc_to_choice(sample["doc"])[max(range(len(likelihoods)), key=likelihoods.__getitem__)])


def _program(doc: dict[str, Any], response: str) -> str:
    """The program of a benchmark of programs: what was asked, what the model wrote, and the tests of the item."""
    return f"{doc['prompt']}{response}\n{doc['test']}\ncheck({doc['entry_point']})"


def _refuse_other_figure(own: SuiteBenchmark, metric: str, results: dict[str, Any], scores: Sequence[float]) -> None:
    figure, mean = results.get(metric if "," in metric else f"{metric},none"), sum(scores) / len(scores)
    if figure is not None and abs(mean - figure) > TOLERANCE:
        raise RetainError(
            f"{own.name}: lm-eval's {metric} ({figure:g}) is not the mean over its items ({mean:g}), which is what retain "
            "pairs with the base"
        )


def _fraction(own: SuiteBenchmark, metric: str, score: Any) -> float:
    if not 0 <= float(score) <= 1 + TOLERANCE:
        raise RetainError(f"{own.name}: {metric} is {score:g} for an item; a score lies between 0 and 1")
    return min(float(score), 1.0)
