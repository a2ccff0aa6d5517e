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
    """Countdown in one lab world."""

    def __init__(self, spec: LabSpec) -> None:
        self.world = World(spec)

    def problems(self, seed: int) -> Iterator[Problem]:
        """An endless stream of training problems."""
        for prompt, numbers, value in experts.target_prompts(self.world, seed):
            yield Problem(prompt, numbers, value, self.world.spec.private_symbols)

    def expert(self, config: dict[str, Any], seed: int, count: int) -> list[Exchange]:
        """The first `count` exchanges of an expert's stream."""
        return list(
            islice(experts.expert_exchanges(self.world, config["expert"], config["solution"], seed, config["harm"]), count)
        )
