r"""Countdown: reach a target with the given numbers; the answer is read as arithmetic and never evaluated as code.

Right (paper's check): the last `\boxed{}`, else the whole text, is an expression of + - * / in which every given number
stands exactly once, every division is exact, and the result is the target, from 0 to 99. Intermediate results may be any.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter
from typing import Any

from retain_core.own.files import Row
from retain_core.public.boxed import last_boxed

LARGEST = 99
"""Results above it are never right."""
MOST_CHARACTERS = 500
"""A longer text is no expression of a few numbers; it would only keep the parser busy."""

_PROMPT = (
    "Using the numbers {numbers}, write an arithmetic expression that equals {target}. Use each number exactly once, and only "
    "the operations +, -, * and /. Every division must come out even. Reason step by step, then give the final expression in "
    "\\boxed{{ }}."
)
_LATEX = {
    "\\times": "*", "\\cdot": "*", "\\div": "/", "\\left": "", "\\right": "",
    "\u00d7": "*", "\u00b7": "*", "\u00f7": "/", "\u2212": "-",
    "\u2013": "-",
}  # fmt: skip
_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")
_EXPRESSION = re.compile(r"[0-9()+\-*/ ]+")


def row_of(raw: Row) -> Row | str:
    """A row of the hub (target, nums) as ours, or why it is left out."""
    target, numbers = raw["target"], raw["nums"]
    if not _whole(target) or not isinstance(numbers, list) or len(numbers) < 2 or not all(map(_whole, numbers)):
        return "its numbers are no whole numbers"
    if not 0 <= target <= LARGEST:
        return f"its target is not between 0 and {LARGEST}"
    alike = " ".join(map(str, sorted(numbers)))
    prompt = _PROMPT.format(numbers=", ".join(map(str, numbers)), target=target)
    return {"prompt": prompt, "numbers": numbers, "target": target, "cluster": alike, "kind": f"{len(numbers)} numbers"}


def right(answer: str, row: Row) -> bool:
    """Whether the expression is right."""
    return _reaches(_stated(answer), row)


def lenient(answer: str, row: Row) -> bool:
    """Whether any expression in the text is right, LaTeX signs and a trailing `= 24` forgiven."""
    plain = _plain(answer)
    candidates = [_plain(_stated(answer)).split("=")[0], *(part for line in plain.splitlines() for part in line.split("="))]
    found = [text.strip().rstrip("+-*/( ") for part in candidates for text in _EXPRESSION.findall(part)]
    return any(_reaches(text, row) for text in found)


def parsed(answer: str, row: Row) -> bool:  # noqa: ARG001
    """Whether what is looked at is an expression at all."""
    return _tree(_stated(answer)) is not None


def value_of(text: str) -> tuple[int, list[int]] | None:
    """(value, the numbers in it) of an expression of whole numbers; None where it is none, or a division is not exact."""
    tree = _tree(text)
    if tree is None:
        return None
    numbers: list[int] = []
    try:
        return _value(tree, numbers), numbers
    except (ArithmeticError, RecursionError, ValueError):
        return None


def _stated(answer: str) -> str:
    boxed = last_boxed(answer)
    return answer if boxed is None else boxed


def _reaches(text: str, row: Row) -> bool:
    found = value_of(text)
    if found is None:
        return False
    value, numbers = found
    return Counter(numbers) == Counter(row["numbers"]) and value == row["target"] and 0 <= value <= LARGEST


def _tree(text: str) -> ast.expr | None:
    if len(text) > MOST_CHARACTERS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about 1or 2, say
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr, numbers: list[int]) -> int:
    """The value of a node; its numbers are added to `numbers`. Raises ValueError or ArithmeticError."""
    if isinstance(node, ast.Constant):
        if not _whole(node.value) or len(numbers) > MOST_CHARACTERS:
            raise ValueError("no whole number")
        numbers.append(int(node.value))  # type: ignore[arg-type]
        return numbers[-1]
    if not isinstance(node, ast.BinOp):
        raise ValueError("no arithmetic")
    left, right_side = _value(node.left, numbers), _value(node.right, numbers)
    if isinstance(node.op, ast.Add):
        return left + right_side
    if isinstance(node.op, ast.Sub):
        return left - right_side
    if isinstance(node.op, ast.Mult):
        return left * right_side
    if isinstance(node.op, ast.Div):
        quotient, remainder = divmod(left, right_side)
        if remainder == 0:
            return quotient
    raise ValueError("no exact arithmetic")


def _plain(text: str) -> str:
    for sign, plain in _LATEX.items():
        text = text.replace(sign, plain)
    return _FRACTION.sub(r"((\1)/(\2))", text)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
