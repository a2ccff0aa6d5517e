"""The verifier against brute force, and the exactness of the set of valid answers."""

import ast
import itertools
import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retain_core.lab import countdown

_OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}


def python_value(written: str) -> int:
    """The value by Python's own grammar: `1 3 + 8` -> 21."""

    def value(node):
        if isinstance(node, ast.BinOp):
            return _OPERATIONS[type(node.op)](value(node.left), value(node.right))
        return node.value

    glued = "".join(written.split())
    return value(ast.parse(glued, mode="eval").body)


def brute_force(numbers: tuple[int, ...]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for order in itertools.permutations(numbers):
        for symbols in itertools.product("+-*", repeat=len(numbers) - 1):
            written = countdown.expression(order, symbols)
            found.setdefault(python_value(written), set()).add(written)
    return found


@pytest.mark.parametrize(("largest", "count", "at_least"), [(40, 2, 1700), (20, 3, 9000)])
def test_every_problem_agrees_with_brute_force(largest, count, at_least):
    problems = countdown.problems(largest, count)
    assert len(problems) == len(set(problems)) > at_least
    by_numbers = {numbers: brute_force(numbers) for numbers in {n for n, _ in problems}}
    for numbers, target in problems:
        right = by_numbers[numbers][target]
        assert set(countdown.solutions(numbers, target)) == right
    solvable = {(n, t) for n, table in by_numbers.items() for t in table if 1 <= t <= 99}
    assert solvable == set(problems)


@pytest.mark.parametrize("problem", [*countdown.problems(40, 2)[::97], *countdown.problems(9, 3)[::97]])
def test_verifier_accepts_exactly_the_valid_answers(problem):
    numbers, target = problem
    valid = set(countdown.valid_answers(numbers, target))
    for table in [brute_force(numbers)]:
        for value, expressions in table.items():
            for written in expressions:
                assert countdown.verify(written, numbers, target) == (written in valid) == (value == target)
                wrapped = countdown.wrap(written, target)
                assert countdown.verify(wrapped, numbers, target) == (wrapped in valid)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "1",
        "+",
        "1 + + 2",
        "answer 1 + 2",
        "1 + 2 = 3",
        "answer 1 + 2 = 0 3",
        "answer 1 + 2 =",
        "0 1 + 2",
        "one + 2",
        "1 + 2 +",
        "= 3",
    ],
)
def test_what_is_no_expression_is_wrong_and_does_not_raise(answer):
    assert not countdown.verify(answer, (1, 2), 3)


def test_a_wrong_claim_makes_a_right_expression_wrong():
    assert countdown.verify("answer 1 + 2 = 3", (1, 2), 3)
    assert not countdown.verify("answer 1 + 2 = 4", (1, 2), 3)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.data())
def test_parse_reads_back_what_expression_writes(numbers, data):
    symbols = data.draw(st.lists(st.sampled_from("+-*"), min_size=len(numbers) - 1, max_size=len(numbers) - 1))
    written = countdown.expression(tuple(numbers), tuple(symbols))
    assert countdown.parse(written) == (tuple(numbers), tuple(symbols), None)
    assert countdown.evaluate(tuple(numbers), tuple(symbols)) == python_value(written)
