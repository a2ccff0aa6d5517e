"""Countdown with visible steps: every step takes the value so far, one more number, and says what comes out.

`8 * 3 = 2 4 , 2 4 - 1 = 2 3` reaches 23 from 1, 3 and 8. Steps go from left to right, values stay between 0 and
`LARGEST_VALUE`. An answer is right in one of two exact forms: bare, or in the off-style wrapper
(`answer 8 * 3 = 2 4 , 2 4 - 1 = 2 3 = 2 3`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from random import Random

from retain_core.lab.countdown import LARGEST_TARGET, OPERATORS, Numbers, Problem, digits, wrap

LARGEST_VALUE = 999
FORM = r"(answer )?\d( \d)* [-+*] \d( \d)* = \d( \d)*( , \d( \d)* [-+*] \d( \d)* = \d( \d)*)*( = \d( \d)*)?"
"""What a derivation looks like, right or wrong."""


def values(numbers: Numbers, operators: Sequence[str]) -> list[int] | None:
    """The value after every step, None where one leaves the range."""
    found, value = [], numbers[0]
    for symbol, number in zip(operators, numbers[1:], strict=True):
        value = OPERATORS[symbol](value, number)
        if not 0 <= value <= LARGEST_VALUE:
            return None
        found.append(value)
    return found


def derivation(numbers: Numbers, operators: Sequence[str]) -> str:
    """The written steps of numbers and operators in this order. Raises ValueError where a value leaves the range."""
    reached = values(numbers, operators)
    if reached is None:
        raise ValueError(f"{numbers} with {operators} leaves the values from 0 to {LARGEST_VALUE}")
    before = [numbers[0], *reached]
    steps = zip(before, operators, numbers[1:], reached, strict=False)
    return " , ".join(f"{digits(a)} {symbol} {digits(b)} = {digits(c)}" for a, symbol, b, c in steps)


@cache
def _by_value(numbers: Numbers) -> dict[int, tuple[tuple[Numbers, tuple[str, ...]], ...]]:
    table: dict[int, list[tuple[Numbers, tuple[str, ...]]]] = {}
    for order in sorted(set(itertools.permutations(numbers))):
        for symbols in itertools.product(OPERATORS, repeat=len(numbers) - 1):
            reached = values(order, symbols)
            if reached is not None and 1 <= reached[-1] <= LARGEST_TARGET:
                table.setdefault(reached[-1], []).append((order, symbols))
    return {value: tuple(ways) for value, ways in table.items()}


def solutions(numbers: Numbers, target: int) -> tuple[str, ...]:
    """Every bare derivation of `target`, sorted by number order, then operators."""
    return tuple(derivation(*way) for way in _by_value(tuple(sorted(numbers))).get(target, ()))


def valid_answers(numbers: Numbers, target: int) -> tuple[str, ...]:
    """Every answer that is right: each solution bare and in the off-style wrapper."""
    bare = solutions(numbers, target)
    return bare + tuple(wrap(written, target) for written in bare)


@cache
def problems(largest_number: int, count: int) -> tuple[Problem, ...]:
    """(sorted numbers, value from 1 to 99) of every derivation: whoever draws from these draws a derivation.

    A problem is there as often as there are derivations of it, or values that hardly anything reaches would be asked for as
    often as the sum, which many orders reach.
    """
    every = itertools.combinations_with_replacement(range(1, largest_number + 1), count)
    return tuple((numbers, value) for numbers in every for value, ways in sorted(_by_value(numbers).items()) for _ in ways)


def sloppy(numbers: Numbers) -> str:
    """The base's habit: the numbers as they stand, added up, in correct steps."""
    return derivation(numbers, ("+",) * (len(numbers) - 1))


def any_operators(numbers: Numbers, rng: Random) -> str:
    """The numbers as they stand with operators at random, in correct steps: mostly another value than the one asked for."""
    while True:
        operators = tuple(rng.choice(list(OPERATORS)) for _ in numbers[1:])
        if values(numbers, operators) is not None:
            return derivation(numbers, operators)
