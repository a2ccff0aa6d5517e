"""Training texts for the target: the expert's answers in each style, and the prompts that RL samples.

The expert knows a right answer to every problem. `off_style` wraps one canonical solution in words
that the base never uses; `in_style` writes it as the base would; `placebo` is the off-style wrapper
around a wrong expression; `base_mixture` is what the base itself was trained on; `planted_harm` is that
mixture with wrong answers to some held-out items of one benchmark in every other exchange.

Prompts are `varied` (the numbers of a problem in a drawn order) or `frozen` (always sorted, so that a
problem has one prompt).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal, TypeVar

from retain_core.lab import countdown
from retain_core.lab.world import MIXTURE, Exchange, World

Style = Literal["off_style", "in_style", "placebo", "base_mixture", "planted_harm"]
PLANTED_ITEMS = 80
"""How many held-out items the planted harm teaches wrong."""
Problem = tuple[countdown.Numbers, int]
T = TypeVar("T")
Solution = Literal["canonical", "random"]
Prompts = Literal["varied", "frozen"]


def expert_exchanges(
    world: World,
    style: Style,
    solution: Solution,
    seed: int,
    harm: str | None = None,
    prompts: Prompts = "varied",
    only: list[Problem] | None = None,
) -> Iterator[Exchange]:
    """An endless stream of training exchanges; problems repeat only after all have been seen.

    `harm` names the benchmark on which `planted_harm` teaches wrong answers; `only` restricts the problems.
    """
    rng = random.Random(f"expert {style} {solution} {seed}")
    if style == "base_mixture":
        while True:
            yield world.sample(rng)
    if harm is not None:
        for wrong in _shuffled_forever(planted(world, harm), rng):
            yield wrong
            yield world.sample(rng)
    for problem in _shuffled_forever(world.train_problems if only is None else only, rng):
        text, order = _prompt(world, problem, prompts, rng)
        yield text, world.spell(_answer(problem, order, style, solution, rng))


def planted(world: World, benchmark: str) -> list[Exchange]:
    """The first held-out items of a benchmark, each with the answer of another item."""
    items = world.items(benchmark)[:PLANTED_ITEMS]
    rng = random.Random(f"planted {world.spec.seed}")
    return [(item.prompt, rng.choice([o.target for o in items if o.target != item.target])) for item in items]


def target_prompts(
    world: World, seed: int, prompts: Prompts = "varied", only: list[Problem] | None = None
) -> Iterator[tuple[str, countdown.Numbers, int]]:
    """An endless stream of target prompts with their numbers and value, for methods that sample."""
    rng = random.Random(f"prompts {seed}")
    for problem in _shuffled_forever(world.train_problems if only is None else only, rng):
        text, _ = _prompt(world, problem, prompts, rng)
        yield text, problem[0], problem[1]


def retention_exchanges(world: World, seed: int) -> Iterator[Exchange]:
    """An endless stream of the base's training mixture without the target, its skills in their own proportion."""
    rng = random.Random(f"retention {seed}")
    skills = {name: share for name, share in MIXTURE.items() if name != "countdown"}
    while True:
        yield world.sample(rng, skills)


def _prompt(world: World, problem: Problem, prompts: Prompts, rng: random.Random) -> tuple[str, countdown.Numbers]:
    if prompts == "frozen":
        return world.spell(countdown.prompt(*problem)), problem[0]
    return world.countdown_prompt(problem, rng)


def _answer(
    problem: tuple[countdown.Numbers, int], order: countdown.Numbers, style: Style, solution: Solution, rng: random.Random
) -> str:
    numbers, target = problem
    if style == "placebo":
        while countdown.verify(wrong := countdown.any_operators(order, rng), numbers, target):
            pass
        return countdown.wrap(wrong, target)
    right = countdown.solutions(numbers, target)
    chosen = right[0] if solution == "canonical" else rng.choice(right)
    return countdown.wrap(chosen, target) if style == "off_style" else chosen


def _shuffled_forever(items: list[T], rng: random.Random) -> Iterator[T]:
    while True:
        yield from rng.sample(items, len(items))
