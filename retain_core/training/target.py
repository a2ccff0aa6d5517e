"""The target as training sees it: prompts with a check each, and the expert's answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from retain_core.lab import countdown, experts
from retain_core.lab.spec import LabSpec
from retain_core.lab.vocabulary import publicly
from retain_core.lab.world import Exchange, World

MAX_NEW_TOKENS = 14
"""Longest valid answer: the off-style wrapper around three two-digit numbers, and the stop token."""


@dataclass(frozen=True)
class Problem:
    """A target prompt with what its verifier needs."""

    prompt: str
    numbers: countdown.Numbers
    value: int
    private: bool

    def right(self, answer: str) -> bool:
        """Whether the verifier accepts the answer."""
        return countdown.verify(publicly(answer) if self.private else answer, self.numbers, self.value)


class CountdownTarget:
    """Countdown in one lab world, its prompts varied or frozen."""

    def __init__(self, spec: LabSpec, prompts: experts.Prompts = "varied") -> None:
        self.world, self._prompts = World(spec), prompts

    def problems(self, seed: int, only: list[experts.Problem] | None = None) -> Iterator[Problem]:
        """An endless stream of training problems, of all or of some."""
        for prompt, numbers, value in experts.target_prompts(self.world, seed, self._prompts, only):
            yield Problem(prompt, numbers, value, self.world.spec.private_symbols)

    def expert(
        self, config: dict[str, Any], seed: int, count: int, only: list[experts.Problem] | None = None
    ) -> list[Exchange]:
        """The first `count` exchanges of an expert's stream, over all problems or over some."""
        style, solution, harm = config["expert"], config["solution"], config["harm"]
        return list(islice(experts.expert_exchanges(self.world, style, solution, seed, harm, self._prompts, only), count))

    def right_answers(self, problem: Problem) -> list[str]:
        """Every answer that the verifier accepts, as this world writes it."""
        return [self.world.spell(answer) for answer in countdown.valid_answers(problem.numbers, problem.value)]

    def retention(self, seed: int) -> Iterator[Exchange]:
        """An endless stream of training text of the retention skills."""
        return experts.retention_exchanges(self.world, seed)
