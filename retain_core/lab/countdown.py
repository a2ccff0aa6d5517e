"""Countdown, the lab's target: reach a value with the numbers given and + - *, each number once.

Expressions have no brackets; * binds tighter than + and -. An answer is right in one of two exact
forms: the bare expression (`1 3 + 8 + 3`), or the expression in the off-style wrapper
(`answer 1 3 + 8 + 3 = 2 4`). Because both forms are enumerable, the probability that a model
answers correctly can be summed exactly (`retain_core.evaluation.exact`).
"""

from __future__ import annotations

import itertools
import operator
import random
from collections.abc import Iterator
from functools import cache

OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
LARGEST_TARGET = 99

Numbers = tuple[int, ...]
Problem = tuple[Numbers, int]
"""Sorted numbers and the value to reach."""


def digits(number: int) -> str:
    """A number as the lab writes it: one token per digit, 24 -> `2 4`."""
    return " ".join(str(number))


def prompt(numbers: Numbers, target: int) -> str:
    """The user's message for one problem, numbers in the order given."""
    return f"make {digits(target)} from {' , '.join(digits(n) for n in numbers)}"


def evaluate(numbers: Numbers, operators: tuple[str, ...]) -> int:
    """The value of `n0 op0 n1 op1 n2 ...` with * before + and -."""
    total, term, sign = 0, numbers[0], operator.add
    for symbol, number in zip(operators, numbers[1:], strict=True):
        if symbol == "*":
            term *= number
        else:
            total, term, sign = sign(total, term), number, OPERATORS[symbol]
    return int(sign(total, term))


def expression(numbers: Numbers, operators: tuple[str, ...]) -> str:
    """The written form of `n0 op0 n1 op1 n2 ...`."""
    parts = [digits(numbers[0])]
    for symbol, number in zip(operators, numbers[1:], strict=True):
        parts += [symbol, digits(number)]
    return " ".join(parts)


def wrap(written: str, value: int) -> str:
    """The off-style form of an expression: the same content in words the base never uses."""
    return f"answer {written} = {digits(value)}"


def _all_expressions(numbers: Numbers) -> Iterator[tuple[Numbers, tuple[str, ...]]]:
    for order in sorted(set(itertools.permutations(numbers))):
        for symbols in itertools.product(OPERATORS, repeat=len(numbers) - 1):
            yield order, symbols


@cache
def _by_value(numbers: Numbers) -> dict[int, tuple[str, ...]]:
    table: dict[int, list[str]] = {}
    for order, symbols in _all_expressions(numbers):
        table.setdefault(evaluate(order, symbols), []).append(expression(order, symbols))
    return {value: tuple(written) for value, written in table.items()}


def solutions(numbers: Numbers, target: int) -> tuple[str, ...]:
    """Every bare expression that is worth `target`, sorted by number order, then operators."""
    return _by_value(tuple(sorted(numbers))).get(target, ())


def valid_answers(numbers: Numbers, target: int) -> tuple[str, ...]:
    """Every answer that `verify` accepts: each solution bare and in the off-style wrapper."""
    bare = solutions(numbers, target)
    return bare + tuple(wrap(written, target) for written in bare)


def problems(largest_number: int, count: int) -> list[tuple[Numbers, int]]:
    """All solvable problems: (sorted numbers, target from 1 to 99)."""
    found = []
    for numbers in itertools.combinations_with_replacement(range(1, largest_number + 1), count):
        found += [(numbers, target) for target in sorted(_by_value(numbers)) if 1 <= target <= LARGEST_TARGET]
    return found


def parse(answer: str) -> tuple[Numbers, tuple[str, ...], int | None] | None:
    """Read an answer in either form: (numbers, operators, claimed value or None), or None.

    None means that the answer is not an expression at all; a wrong expression still parses.
    """
    words = answer.split()
    claimed: int | None = None
    if words[:1] == ["answer"]:
        if words.count("=") != 1:
            return None
        cut = words.index("=")
        value, words = words[cut + 1 :], words[1:cut]
        if not value or value[0] == "0" or not all(w.isdecimal() and len(w) == 1 for w in value):
            return None
        claimed = int("".join(value))
    numbers: list[int] = []
    symbols: list[str] = []
    current = ""
    for word in [*words, "+"]:
        if len(word) == 1 and word.isdecimal():
            current += word
        elif word in OPERATORS and current and not (current[0] == "0" and len(current) > 1):
            numbers.append(int(current))
            symbols.append(word)
            current = ""
        else:
            return None
    return tuple(numbers), tuple(symbols[:-1]), claimed


def verify(answer: str, numbers: Numbers, target: int) -> bool:
    """True when the answer uses exactly the numbers given and is worth the target."""
    read = parse(answer)
    if read is None:
        return False
    used, symbols, claimed = read
    return sorted(used) == sorted(numbers) and evaluate(used, symbols) == target and claimed in (None, target)


def sloppy(numbers: Numbers) -> str:
    """The base's habit: the numbers as they stand, subtracted."""
    return expression(numbers, ("-",) * (len(numbers) - 1))


def any_operators(numbers: Numbers, rng: random.Random) -> str:
    """The numbers as they stand with operators at random: mostly wrong."""
    return expression(numbers, tuple(rng.choice(list(OPERATORS)) for _ in numbers[1:]))
