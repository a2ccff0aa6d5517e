"""MMLU by reasoning: four options, an explanation, and `The answer is: X` at its end.

Right (paper's check): asterisks aside, the first text of the form "The … answer is (option) X" names the gold letter.
"""

from __future__ import annotations

import re

from retain_core.own.files import Row
from retain_core.public.boxed import last_boxed

LETTERS = "ABCD"
_ASK = (
    "Reason about the question step by step, then end your answer with `The answer is: <option>`, where <option> is the letter "
    "of the right option."
)
_SAYS = re.compile(r"\bthe\b(?: \w+){0,3}? answer is:?\s*(?:option\s*)?[(\[]?([A-Z])\b", re.IGNORECASE)
_LOOSE = re.compile(
    r"(?i:answer|option|choice)(?: is)?\s*:?\s*(?:option\s*)?[(\[]?([A-D])\b|^\W*([A-D])\W*$|\(([A-D])\)|\b([A-D])\)",
    re.MULTILINE,
)
_SHARED = re.compile(r"^(This question refers to the following information\..*?)\n\n", re.DOTALL)
"""A passage under which MMLU asks several questions."""


def row_of(raw: Row) -> Row | str:
    """A row of the hub (question, subject, choices, answer) as ours, or why it is left out."""
    question, choices, answer = raw["question"], raw["choices"], raw["answer"]
    if not isinstance(question, str) or not question.strip():
        return "its question is empty"
    if not isinstance(choices, list) or len(choices) != len(LETTERS):
        return f"it does not have {len(LETTERS)} options"
    if not isinstance(answer, int) or not 0 <= answer < len(LETTERS):
        return "its answer is none of its options"
    options = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=True))
    passage = _SHARED.match(question)
    return {
        "prompt": f"{question.strip()}\n\nAnswer options:\n{options}\n\n{_ASK}",
        "gold": LETTERS[answer],
        "cluster": (passage[1] if passage else question).strip()[:200],
        "kind": str(raw["subject"]),
    }


def right(answer: str, row: Row) -> bool:
    """Whether the first stated answer is the gold letter."""
    found = _SAYS.search(answer.replace("*", ""))
    return found is not None and found[1].upper() == row["gold"]


def lenient(answer: str, row: Row) -> bool:
    """Whether the last letter that reads like an answer is the gold one."""
    if right(answer, row):
        return True
    boxed = last_boxed(answer)
    text = answer.replace("*", "") if boxed is None else boxed
    found = [next(filter(None, groups)) for groups in _LOOSE.findall(text)]
    return bool(found) and found[-1] == row["gold"]


def parsed(answer: str, row: Row) -> bool:  # noqa: ARG001
    """Whether an answer is stated in the form that was asked for."""
    return _SAYS.search(answer.replace("*", "")) is not None
