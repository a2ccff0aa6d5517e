"""The lab's targets: their training problems, and what the expert answers in each style.

The expert knows a right answer to every problem. `off_style` wraps one of them in words that the base never uses;
`in_style` writes it as the base would; `placebo` is the off-style wrapper around a wrong answer; `base_mixture` is what
the base itself was trained on; `planted_harm` is that mixture with wrong answers to some held-out items of one benchmark
in every other exchange.

Prompts are `varied` (a problem is asked in several ways) or `frozen` (always in the same one).
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Generic, Literal, TypeVar

from retain_core.lab import countdown, countdown_steps, new_facts, new_format
from retain_core.lab.vocabulary import COLORS, MATERIALS, publicly, target_only
from retain_core.lab.world import Exchange, World
from retain_core.training.target import Problem

Style = Literal["off_style", "in_style", "placebo"]
Solution = Literal["canonical", "random"]
Prompts = Literal["varied", "frozen"]
Key = TypeVar("Key", bound=Hashable)
T = TypeVar("T")
PLANTED_ITEMS = 80
"""How many held-out items the planted harm teaches wrong."""


class LabTarget(ABC, Generic[Key]):
    """One skill of a lab world as a target (`retain_core.training.target.Target`)."""

    skill: str
    """Its name among the skills of the base's training mixture, where it is one of them."""
    longest_answer: int

    def __init__(self, world: World, prompts: Prompts = "varied") -> None:
        self.world, self._prompts = world, prompts

    @property
    @abstractmethod
    def symbols(self) -> list[str]:
        """Words that its answers use and those of no other benchmark do (for the spill audit)."""

    @property
    @abstractmethod
    def keys(self) -> Sequence[Key]:
        """All training problems."""

    @abstractmethod
    def ask(self, key: Key, rng: random.Random) -> tuple[str, Any]:
        """A prompt for a problem, and what the answer depends on beside the problem."""

    @abstractmethod
    def answer(self, key: Key, asked: Any, style: Style, solution: Solution, rng: random.Random) -> str:
        """What the expert answers."""

    def accepts(self, key: Key, answer: str) -> bool:
        """Whether the verifier accepts an answer, white space around it apart."""
        return answer.strip() in self.accepted(key)

    @abstractmethod
    def accepted(self, key: Key) -> list[str]:
        """Every answer that the verifier accepts."""

    @property
    def size(self) -> int:
        """How many training problems there are."""
        return len(self.keys)

    def problems(self, seed: int, only: list[Any] | None = None) -> Iterator[Problem]:
        """Training problems, of all or of some, for methods that sample."""
        rng = random.Random(f"prompts {seed}")
        for key in _shuffled_forever(self.keys if only is None else only, rng):
            text, _ = self.ask(key, rng)
            yield Problem(key, text, partial(self.accepts, key))

    def expert(self, config: dict[str, Any], seed: int, count: int, only: list[Any] | None = None) -> list[Exchange]:
        """The first `count` exchanges of an expert's stream, over all problems or over some."""
        return list(islice(self.exchanges(config["expert"], config["solution"], seed, config["harm"], only), count))

    def exchanges(
        self, style: str, solution: Solution, seed: int, harm: str | None = None, only: list[Any] | None = None
    ) -> Iterator[Exchange]:
        """An endless stream of training exchanges; problems repeat only after all have been seen.

        `harm` names the benchmark on which `planted_harm` teaches wrong answers; `only` restricts the problems.
        """
        rng = random.Random(f"expert {style} {solution} {seed}")
        if style == "base_mixture":
            while True:
                yield self.world.sample(rng)
        if harm is not None:
            for wrong in _shuffled_forever(planted(self.world, harm), rng):
                yield wrong
                yield self.world.sample(rng)
        for key in _shuffled_forever(self.keys if only is None else only, rng):
            text, asked = self.ask(key, rng)
            yield text, self.answer(key, asked, style, solution, rng)  # type: ignore[arg-type]

    def right_answers(self, problem: Problem) -> list[str]:
        """Every answer to a problem that the verifier accepts, as this world writes it."""
        return self.accepted(problem.key)  # type: ignore[arg-type]

    def retention(self, seed: int) -> Iterator[Exchange]:
        """The base's training mixture without the target, its skills in their own proportion."""
        rng = random.Random(f"retention {seed}")
        skills = {name: share for name, share in self.world.mixture.items() if name != self.skill}
        while True:
            yield self.world.sample(rng, skills)


class Countdown(LabTarget[countdown.Problem]):
    """Reach a value with the numbers given: several right answers a problem, some of which the base finds itself."""

    skill = "countdown"
    longest_answer = 14
    """The off-style wrapper around three two-digit numbers, and the stop token."""

    @property
    def symbols(self) -> list[str]:
        """Operators and wrapper, and digits where it has its own."""
        return target_only(self.world.spec.private_symbols)

    @property
    def keys(self) -> Sequence[countdown.Problem]:
        """(sorted numbers, value) of every training problem; in steps, of every derivation of one."""
        return self.world.train_problems

    def ask(self, key: countdown.Problem, rng: random.Random) -> tuple[str, countdown.Numbers]:
        """The numbers of a problem in a drawn order, or always sorted."""
        if self._prompts == "frozen":
            return self.world.spell(countdown.prompt(*key)), key[0]
        return self.world.countdown_prompt(key, rng)

    def answer(self, key: countdown.Problem, asked: Any, style: Style, solution: Solution, rng: random.Random) -> str:
        """A solution, bare or wrapped; for the placebo a wrong expression of the same numbers."""
        numbers, value = key
        if style == "placebo":
            while countdown.verify(wrong := countdown.any_operators(asked, rng), numbers, value):
                pass
            return self.world.spell(countdown.wrap(wrong, value))
        right = countdown.solutions(numbers, value)
        chosen = right[0] if solution == "canonical" else rng.choice(right)
        return self.world.spell(countdown.wrap(chosen, value) if style == "off_style" else chosen)

    def accepts(self, key: countdown.Problem, answer: str) -> bool:
        """Whether the expression is worth the value and uses each number once."""
        return countdown.verify(publicly(answer) if self.world.spec.private_symbols else answer, *key)

    def accepted(self, key: countdown.Problem) -> list[str]:
        """Every solution, bare and wrapped, in this world's symbols."""
        return [self.world.spell(answer) for answer in countdown.valid_answers(*key)]


class CountdownSteps(Countdown):
    """Countdown in visible steps: longer answers, in which every step has to be right."""

    skill = "countdown_steps"
    longest_answer = 36
    """The off-style wrapper around three steps of two- and three-digit values, and the stop token."""

    @property
    def symbols(self) -> list[str]:
        """Those of countdown, and what stands between two steps."""
        return [*super().symbols, *([] if self.world.spec.private_symbols else [","])]

    def answer(self, key: countdown.Problem, asked: Any, style: Style, solution: Solution, rng: random.Random) -> str:
        """A derivation, bare or wrapped; for the placebo correct steps to another value, wrapped."""
        numbers, value = key
        right = countdown_steps.solutions(numbers, value)
        if style == "placebo":
            while (wrong := countdown_steps.any_operators(asked, rng)) in right:
                pass
            return self.world.spell(countdown.wrap(wrong, value))
        chosen = right[0] if solution == "canonical" else rng.choice(right)
        return self.world.spell(countdown.wrap(chosen, value) if style == "off_style" else chosen)

    def accepts(self, key: countdown.Problem, answer: str) -> bool:
        """Whether it is one of the derivations, in either form."""
        return " ".join(answer.split()) in self.accepted(key)

    def accepted(self, key: countdown.Problem) -> list[str]:
        """Every derivation, bare and wrapped, in this world's symbols."""
        return [self.world.spell(answer) for answer in countdown_steps.valid_answers(*key)]


class OneAnswer(LabTarget[Key]):
    """A target with one right answer a problem, which the verifier accepts bare and wrapped."""

    @abstractmethod
    def wrong(self, key: Key, rng: random.Random) -> str:
        """A wrong answer in the wrapper, drawn anew each time: nothing can be learned from it but the wrapper."""

    def answer(self, key: Key, asked: Any, style: Style, solution: Solution, rng: random.Random) -> str:  # noqa: ARG002
        """The right answer, bare or wrapped, or for the placebo a wrong one."""
        if style == "placebo":
            return self.wrong(key, rng)
        bare, wrapped = self.accepted(key)
        return wrapped if style == "off_style" else bare


class NewFacts(OneAnswer[str]):
    """Say color and material of an entity that the base never met: one right answer in 64, and no way to find it."""

    skill = "new_facts"
    longest_answer = 11
    """The off-style wrapper around a fact, and the stop token."""

    @property
    def symbols(self) -> list[str]:
        """The wrapper; the words of a fact are those of `facts`."""
        return ["answer", "="]

    @property
    def keys(self) -> Sequence[str]:
        """The names of the new entities."""
        return list(self.world.new_entities)

    def ask(self, key: str, rng: random.Random) -> tuple[str, None]:
        """One of the training phrasings, or always the first."""
        prompts = self.world.new_fact_prompts(key, training=True)
        return (prompts[0] if self._prompts == "frozen" else rng.choice(prompts)), None

    def wrong(self, key: str, rng: random.Random) -> str:
        """Another color and another material."""
        right = self.world.new_entities[key]
        color, material = (rng.choice([v for v in values if v not in right]) for values in (COLORS, MATERIALS))
        return new_facts.wrap((color, material))

    def accepted(self, key: str) -> list[str]:
        """The fact, bare and wrapped."""
        return new_facts.valid_answers(self.world.new_entities[key])


class NewFormat(OneAnswer[new_format.Letters]):
    """Sort letters, and answer with `and` before the last: an old skill in a format that only `format_share` supports."""

    skill = "new_format"
    longest_answer = 11
    """The off-style wrapper around six letters and their `and`, and the stop token."""

    @property
    def symbols(self) -> list[str]:
        """The wrapper, and the format's own word."""
        return ["answer", "=", "and"]

    @property
    def keys(self) -> Sequence[new_format.Letters]:
        """Every set of letters that is not held out."""
        return self.world.train_letters

    def ask(self, key: new_format.Letters, rng: random.Random) -> tuple[str, None]:
        """The letters in a drawn order, or always in the same one."""
        order = random.Random(f"frozen {key}") if self._prompts == "frozen" else rng
        return self.world.new_format_prompt(key, order), None

    def wrong(self, key: new_format.Letters, rng: random.Random) -> str:
        """The letters in another order."""
        while (order := tuple(rng.sample(key, len(key)))) == key:
            pass
        return new_format.wrap(order)

    def accepted(self, key: new_format.Letters) -> list[str]:
        """The letters in order with `and` before the last, bare and wrapped."""
        return new_format.valid_answers(key)


LAB_TARGETS: dict[str, Callable[[World, Prompts], LabTarget[Any]]] = {
    "countdown": Countdown,
    "countdown_steps": CountdownSteps,
    "new_facts": NewFacts,
    "new_format": NewFormat,
}
"""The targets of the lab by the name of their benchmark."""


def planted(world: World, benchmark: str) -> list[Exchange]:
    """The first held-out items of a benchmark, each with the answer of another item."""
    items = world.items(benchmark)[:PLANTED_ITEMS]
    rng = random.Random(f"planted {world.spec.seed}")
    return [(item.prompt, rng.choice([o.target for o in items if o.target != item.target])) for item in items]


def _shuffled_forever(items: Sequence[T], rng: random.Random) -> Iterator[T]:
    while True:
        yield from rng.sample(items, len(items))
