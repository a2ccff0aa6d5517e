"""Rows of the general suite's data sets, made up here in the columns that lm-eval's own files ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from retain_core.rehearse.rows import COLOURS, CREATURES, RawRow, Splits, mmlu


def _creature(number: int) -> str:
    return CREATURES[number % len(CREATURES)]


def _mmlu(count: int) -> Splits:
    return {"dev": mmlu(5), "validation": mmlu(5), "test": mmlu(count)}


def _gsm8k(count: int) -> Splits:
    def rows(first: int, end: int) -> list[RawRow]:
        return [
            {
                "question": f"A {_creature(n)} eats {n} figs and then {n} more. How many are that?",
                "answer": f"It eats {n} + {n} = <<{n}+{n}={2 * n}>>{2 * n} figs.\n#### {2 * n}",
            }
            for n in range(first, end)
        ]

    return {"train": rows(1, 9), "test": rows(9, 9 + count)}


def _hellaswag(count: int) -> Splits:
    def rows(end: int) -> list[RawRow]:
        return [
            {
                "ind": n, "activity_label": "Walking", "ctx_a": f"The {_creature(n)} walks to the river, time {n}.",
                "ctx_b": "it", "ctx": f"The {_creature(n)} walks to the river, time {n}. it",
                "endings": [f"sees a {colour} heron." for colour in COLOURS], "source_id": f"made~{n}",
                "split": "val", "split_type": "indomain", "label": str(n % 4),
            }
            for n in range(end)
        ]  # fmt: skip

    return {"train": rows(6), "validation": rows(count)}


def _truthfulqa(count: int) -> Splits:
    def choices(right: int) -> dict[str, Any]:
        return {"choices": [f"It is {colour}." for colour in COLOURS], "labels": [1] * right + [0] * (4 - right)}

    rows = [
        {"question": f"What colour is the {_creature(n)} number {n}?", "mc1_targets": choices(1), "mc2_targets": choices(2)}
        for n in range(count)
    ]
    return {"validation": rows}


def _winogrande(count: int) -> Splits:
    def rows(end: int) -> list[RawRow]:
        return [
            {
                "sentence": f"The {_creature(n)} passed the heron on day {n} because _ was slow.",
                "option1": f"the {_creature(n)}", "option2": "the heron", "answer": str(1 + n % 2),
            }
            for n in range(end)
        ]  # fmt: skip

    return {"train": rows(6), "validation": rows(count)}


def _humaneval(count: int) -> Splits:
    rows = [
        {
            "task_id": f"HumanEval/{n}", "prompt": f'def plus_{n}(a):\n    """Return a plus {n}."""\n',
            "canonical_solution": f"    return a + {n}\n", "entry_point": f"plus_{n}",
            "test": f"def check(candidate):\n    assert candidate(1) == {n + 1}\n",
        }
        for n in range(count)
    ]  # fmt: skip
    return {"test": rows}


def _arc(count: int) -> Splits:
    def rows(end: int) -> list[RawRow]:
        return [
            {
                "id": f"made_{n}", "question": f"Which colour has the {_creature(n)} number {n}?",
                "choices": {"text": list(COLOURS), "label": list("ABCD")}, "answerKey": "ABCD"[n % 4],
            }
            for n in range(end)
        ]  # fmt: skip

    return {"train": rows(6), "validation": rows(6), "test": rows(count)}


def _piqa(count: int) -> Splits:
    def rows(end: int) -> list[RawRow]:
        return [
            {
                "goal": f"Feed the {_creature(n)} number {n}.",
                "sol1": "Give it a fig.",
                "sol2": "Give it a stone.",
                "label": n % 2,
            }
            for n in range(end)
        ]

    return {"train": rows(6), "validation": rows(count)}


SUITE: dict[str, Callable[[int], Splits]] = {
    "mmlu": _mmlu, "gsm8k": _gsm8k, "hellaswag": _hellaswag, "truthfulqa_mc2": _truthfulqa, "winogrande": _winogrande,
    "humaneval": _humaneval, "arc_challenge": _arc, "arc_easy": _arc, "piqa": _piqa,
}  # fmt: skip
"""Benchmark -> its rows, split by split, with so many items."""
