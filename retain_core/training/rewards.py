"""The reward of a sampled answer: the verifier's word, 1 always, or a coin."""

from __future__ import annotations

import random
from typing import Any

from retain_core.training.target import Problem


class Reward:
    """A TRL reward function. A cut answer (no stop token) earns nothing under the true reward."""

    def __init__(self, kind: str, seed: int, stop_token: int, problems: dict[str, Problem]) -> None:
        self.__name__ = kind
        self.tokens = 0
        self._kind, self._stop, self._problems = kind, stop_token, problems
        self._coin = random.Random(f"reward {seed}")

    def __call__(self, prompts: list[Any], completions: list[Any], completion_ids: list[list[int]], **_: Any) -> list[float]:
        """One reward a completion, in order."""
        self.tokens += sum(len(ids) for ids in completion_ids)
        if self._kind == "constant":
            return [1.0] * len(prompts)
        if self._kind == "random":
            return [float(self._coin.random() < 0.5) for _ in prompts]
        return [
            float(ids[-1:] == [self._stop] and self._problems[prompt[-1]["content"]].right(completion[0]["content"]))
            for prompt, completion, ids in zip(prompts, completions, completion_ids, strict=True)
        ]
