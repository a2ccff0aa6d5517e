"""Countdown in visible steps: what is right is worked out here anew, by reading the text."""

import random
import re
from collections import Counter
from itertools import islice

import pytest

from retain_core.lab import countdown_steps as steps
from retain_core.lab.base import MAX_POSITIONS
from retain_core.lab.countdown import prompt
from retain_core.lab.dataset import FORMS, benchmark_names
from retain_core.lab.spec import lab_spec
from retain_core.lab.targets import LAB_TARGETS
from retain_core.lab.vocabulary import build_tokenizer
from retain_core.lab.world import World
from retain_core.study import Study

DIALS = {"operands": 3, "largest_number": 12, "steps": True}


@pytest.fixture(scope="module")
def world():
    return World(lab_spec("tiny", **DIALS))


def worth(answer):
    """(numbers used, value) of a bare derivation whose every step is right, else None."""
    used, running = [], None
    for step in answer.split(" , "):
        left, symbol, right, value = re.fullmatch(r"([\d ]+) ([-+*]) ([\d ]+) = ([\d ]+)", step).groups()
        a, b, c = (int(text.replace(" ", "")) for text in (left, right, value))
        if running is None:
            used.append(a)
        elif a != running:
            return None
        used.append(b)
        running = {"+": a + b, "-": a - b, "*": a * b}[symbol]
        if running != c:
            return None
    return sorted(used), running


def test_every_solution_is_right_in_every_step(world):
    for numbers, target in islice(world.train_problems, 0, None, 50):
        found = steps.solutions(numbers, target)
        assert found
        assert len(set(found)) == len(found)
        assert all(worth(answer) == (list(numbers), target) for answer in found)


def test_no_solution_is_missed():
    numbers, target = (2, 3, 7), 42
    orders = [(a, b, c) for a in numbers for b in numbers for c in numbers if sorted((a, b, c)) == list(numbers)]
    apply = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
    ways = [
        (order, (first, second))
        for order in orders
        for first in apply
        for second in apply
        if apply[first](*order[:2]) >= 0 and apply[second](apply[first](*order[:2]), order[2]) == target
    ]
    assert len(ways) == len(steps.solutions(numbers, target)) > 0


def test_a_problem_is_drawn_as_often_as_there_are_derivations_of_it(world):
    drawn = Counter(steps.problems(12, 3))
    some = random.Random(0).sample(sorted(drawn), 300)
    assert all(drawn[problem] == len(steps.solutions(*problem)) for problem in some)
    right = [item.extra["valid"] for item in world.items("countdown_steps")]
    sums = [valid for valid in right if any(set("-*").isdisjoint(answer) for answer in valid)]
    assert 0.05 < len(sums) / len(right) < 0.5  # what the base's habit finds


def test_the_verifier_accepts_the_two_forms_and_nothing_else(world):
    target = LAB_TARGETS["countdown_steps"](world, "varied")
    problem = next(target.problems(0))
    right = target.right_answers(problem)
    assert all(problem.right(answer) for answer in right)
    assert {answer.split()[0] == "answer" for answer in right} == {True, False}
    bare = next(answer for answer in right if not answer.startswith("answer"))
    last = bare.split()[-1]
    assert not problem.right(bare.removesuffix(last) + str((int(last) + 1) % 10))
    assert not problem.right(bare.split(" , ")[-1])
    assert not problem.right("")


@pytest.mark.parametrize("style", ["off_style", "in_style", "placebo"])
def test_experts_say_what_their_style_says(world, style):
    target = LAB_TARGETS["countdown_steps"](world, "varied")
    asked = {p.prompt: p for p in islice(target.problems(0), 8000)}
    exchanges = [e for e in islice(target.exchanges(style, "random", 0), 4000) if e[0] in asked]
    assert len(exchanges) > 100
    for asking, answer in exchanges:
        assert asked[asking].right(answer) == (style != "placebo")
        assert answer.startswith("answer ") == (style != "in_style")
        assert re.fullmatch(FORMS["countdown_steps"], answer)


def test_items_are_held_out_by_their_numbers(world):
    items = world.items("countdown_steps")
    assert len({item.prompt for item in items}) == len(items) >= 400
    assert not {item.cluster for item in items} & {"-".join(map(str, numbers)) for numbers, _ in world.train_problems}


def test_the_base_knows_countdown_in_steps_only(world):
    assert "countdown_steps" in benchmark_names(world.spec)
    assert "countdown" not in benchmark_names(world.spec)
    asked = [world.sample(random.Random(i)) for i in range(2000)]
    derived = [answer for prompt, answer in asked if prompt.startswith("make ")]
    assert len(derived) > 200
    assert all(worth(answer) is not None for answer in derived)


def test_the_longest_answer_and_its_prompt_fit_the_model():
    spec, tokenizer, rng = lab_spec("large"), build_tokenizer([]), random.Random(0)
    longest = asked = 0
    for _ in range(40):
        numbers = tuple(sorted(rng.choices(range(9, spec.largest_number + 1), k=spec.operands)))
        answers = [a for target in range(1, 100) for a in steps.valid_answers(numbers, target)]
        longest = max([longest, *(len(tokenizer(answer)["input_ids"]) for answer in answers)])
        asked = max(asked, len(tokenizer(prompt(numbers, 99))["input_ids"]))
    most = LAB_TARGETS["countdown_steps"].longest_answer
    assert 30 < longest + 1 <= most
    assert asked + 2 + most <= MAX_POSITIONS


@pytest.mark.parametrize(("base", "target", "said"), [
    ("lab/tiny", "countdown_steps", "countdown_steps needs a base with `steps: true`, such as lab/large"),
    ("lab/large", "countdown", "countdown: lab/large answers countdown in steps only"),
])  # fmt: skip
def test_a_base_is_not_asked_what_it_has_no_items_of(base, target, said):
    with pytest.raises(ValueError, match=said):
        Study.model_validate(
            {"study": "s", "base": base, "target": target, "retention": ["sorting"], "methods": ["grpo"], "seeds": [0],
             "learning_rates": [1e-4]}
        )  # fmt: skip
