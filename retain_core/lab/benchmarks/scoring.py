"""What the lab's lm-eval YAML files call: loading the items and scoring one answer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from retain_core.lab import countdown
from retain_core.lab.vocabulary import publicly
from retain_core.support import pass_at_k


def load(items: str, benchmark: str, **_: Any) -> dict[str, Any]:
    """The items of one benchmark from `<items>/<benchmark>.jsonl`, as lm-eval's test split."""
    import datasets

    lines = (Path(items) / f"{benchmark}.jsonl").read_text(encoding="utf-8").splitlines()
    return {"test": datasets.Dataset.from_list([json.loads(line) for line in lines])}


def exact(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """acc: the answer is the target, word for word. lenient: the target stands somewhere in the answer.

    parsed: the answer has the form that was asked for.
    """
    answer = results[0].strip()
    return {
        "acc": float(answer == doc["target"]),
        "lenient": float(f" {doc['target']} " in f" {answer} "),
        "parsed": float(bool(re.fullmatch(doc["form"], answer))),
    }


def any_valid(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """acc: the answer is one of those that the verifier accepts. parsed: it has the form that was asked for."""
    answer = results[0].strip()
    return {"acc": float(answer in doc["valid"]), "parsed": float(bool(re.fullmatch(doc["form"], answer)))}


def countdown_answer(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """acc: the verifier accepts the answer. parsed: it is an expression at all."""
    answer = publicly(results[0]) if doc["private"] else results[0]
    correct = countdown.verify(answer, tuple(doc["numbers"]), doc["value"])
    return {"acc": float(correct), "parsed": float(countdown.parse(answer) is not None)}


def sampled(doc: dict[str, Any], results: list[list[str]]) -> dict[str, Any]:
    """pass_at_4: an unbiased estimate of P(one of four answers is the target). acc: of each answer in turn.

    distinct: different answers among those that were drawn, as a share.
    """
    answers = [answer.strip() for answer in results[0]]
    right = [float(answer == doc["target"]) for answer in answers]
    return {
        "pass_at_4": pass_at_k(len(right), int(sum(right)), 4),
        "acc": right,
        "distinct": len(set(answers)) / len(answers),
    }


def mean_of_all(items: list[list[float]]) -> float:
    """The mean over items and repeats, as every item has as many."""
    return sum(map(sum, items)) / sum(map(len, items))


def loss_per_token(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """Held-out negative log-likelihood of the answer in nats per token; results[0] is (sum, is_greedy)."""
    return {"nats_per_token": -results[0][0] / len(doc["target"].split())}
