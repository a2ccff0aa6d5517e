"""What the lab's lm-eval YAML files call: loading the items and scoring one answer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from retain_core.lab import countdown
from retain_core.lab.vocabulary import publicly


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


def countdown_answer(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """acc: the verifier accepts the answer. parsed: it is an expression at all."""
    answer = publicly(results[0]) if doc["private"] else results[0]
    correct = countdown.verify(answer, tuple(doc["numbers"]), doc["value"])
    return {"acc": float(correct), "parsed": float(countdown.parse(answer) is not None)}


def loss_per_token(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """Held-out negative log-likelihood of the answer in nats per token; results[0] is (sum, is_greedy)."""
    return {"nats_per_token": -results[0][0] / len(doc["target"].split())}
