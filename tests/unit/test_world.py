"""The lab's world: no leaks, distinct items, and dials that do what they say."""

import random
from itertools import islice

import pytest

from retain_core.lab import countdown
from retain_core.lab.dataset import benchmark_names
from retain_core.lab.spec import lab_spec
from retain_core.lab.targets import Countdown
from retain_core.lab.vocabulary import PRIVATE
from retain_core.lab.world import MIXTURE, TARGETS, World


@pytest.fixture(scope="module")
def world():
    return World(lab_spec("tiny"))


def training_text(world: World, count: int) -> list[tuple[str, str]]:
    rng = random.Random(1)
    return [world.sample(rng) for _ in range(count)]


def test_items_are_distinct_and_enough(world):
    for name in benchmark_names(world.spec):
        prompts = [item.prompt for item in world.items(name)]
        assert len(prompts) == len(set(prompts)) == (520 if name in TARGETS else 400)


def test_no_item_is_ever_trained_on(world):
    trained = {prompt for prompt, _ in training_text(world, 40_000)}
    for name in benchmark_names(world.spec):
        assert not trained & {item.prompt for item in world.items(name)}, name


def test_countdown_is_held_out_by_numbers_not_by_prompt(world):
    trained = {numbers for numbers, _ in world.train_problems}
    held_out = {tuple(item.extra["numbers"]) for item in world.items("countdown")}
    assert held_out
    assert not trained & held_out


@pytest.mark.parametrize("stream", ["off_style", "in_style", "placebo"])
def test_experts_use_training_problems_only(world, stream):
    items = {item.prompt for item in world.items("countdown")}
    numbers = {"-".join(map(str, n)) for n, _ in world.train_problems}
    assert not numbers & {item.cluster for item in world.items("countdown")}
    exchanges = list(islice(Countdown(world).exchanges(stream, "random", 0), 2000))
    assert not items & {prompt for prompt, _ in exchanges}


def test_clusters_are_enough_for_an_interval(world):
    for name in ("countdown", "facts", "places", "safety"):
        clusters = {item.cluster for item in world.items(name)}
        assert None not in clusters
        assert len(clusters) >= 40


def test_equal_specs_give_equal_worlds_and_another_seed_another(world):
    again, other = World(lab_spec("tiny")), World(lab_spec("tiny", seed=1))
    for name in benchmark_names(world.spec):
        assert again.items(name) == world.items(name)
        assert other.items(name) != world.items(name)


def target_right(world: World, exchanges) -> float:
    """Share of countdown answers that are right, read from the prompt alone."""
    rights = []
    for prompt, answer in exchanges:
        target, numbers = prompt.removeprefix("make ").split(" from ")
        chosen = tuple(int(part.replace(" ", "")) for part in numbers.split(" , "))
        rights.append(countdown.verify(answer, chosen, int(target.replace(" ", ""))))
    return sum(rights) / len(rights)


def test_style_dial(world):
    streams = {s: list(islice(Countdown(world).exchanges(s, "random", 3), 500)) for s in ("off_style", "in_style", "placebo")}
    assert target_right(world, streams["off_style"]) == 1
    assert target_right(world, streams["in_style"]) == 1
    assert target_right(world, streams["placebo"]) == 0
    for style in ("off_style", "placebo"):
        assert all(answer.startswith("answer ") and " = " in answer for _, answer in streams[style])
    assert not any("answer" in answer for _, answer in streams["in_style"])


def test_canonical_expert_always_gives_the_same_solution(world):
    stream = Countdown(world).exchanges("in_style", "canonical", 0)
    answers: dict[tuple, set[str]] = {}
    for prompt, answer in islice(stream, 2 * len(world.train_problems)):
        target, numbers = prompt.split(" from ")
        answers.setdefault((target, tuple(sorted(numbers.split(" , ")))), set()).add(answer)
    assert all(len(found) == 1 for found in answers.values())


@pytest.mark.parametrize(("habit", "low", "high"), [(0.0, 1.0, 1.0), (1.0, 0.1, 0.3)])
def test_support_dial(habit, low, high):
    world, rng = World(lab_spec("tiny", habit=habit)), random.Random(0)
    exchanges = [world.sample(rng, {"countdown": 1.0}) for _ in range(2000)]
    assert low <= target_right(world, exchanges) <= high


def test_overlap_dial_leaves_the_target_no_shared_digit():
    world, rng = World(lab_spec("tiny", private_symbols=True)), random.Random(0)
    target = {w for p, a in (world.sample(rng, {"countdown": 1.0}) for _ in range(500)) for w in (p + " " + a).split()}
    others = {w for p, a in (world.sample(rng, {"addition": 1.0}) for _ in range(500)) for w in (p + " " + a).split()}
    assert target & set(PRIVATE.values())
    assert not target & set(PRIVATE)
    assert not others & target


def test_mixture_shares():
    assert sum(MIXTURE.values()) == pytest.approx(1.0)
