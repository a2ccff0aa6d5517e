"""The reward of a sampled answer: the verifier's word, 1 always, or a coin; and what is done with a verifier that fails."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import Any

from retain_core.errors import RetainError
from retain_core.training import ranks
from retain_core.training.target import Problem

SECONDS_PER_ANSWER = 5.0
"""Longest time that a verifier may take for one answer."""
MOST_FAILURES = 0.25
"""Share of a batch of samples, or of the held-out items, on which a verifier may fail before the arm does."""


class Judge:
    """Asks a verifier and forgives it some failures.

    A verifier that raises, returns None or anything that is no finite number, or takes longer than
    `SECONDS_PER_ANSWER` has failed: the answer earns nothing, and it is counted in `failures`. Ask within `alarm()`.
    """

    def __init__(self) -> None:
        self.failures = 0
        self._reason = ""

    def earned(self, verdict: Callable[[], Any]) -> float:
        """What an answer earns by the verifier's word."""
        try:
            reward = _in_time(verdict)
            if reward is not None and math.isfinite(reward):
                return float(reward)
            self._reason = f"returned {reward}"
        except _TimeUpError:
            self._reason = f"took longer than {SECONDS_PER_ANSWER:g} s"
        except Exception as error:
            self._reason = f"raised {type(error).__name__}: {error}"
        self.failures += 1
        return 0.0

    def refuse(self, what: str, failures: int, asked: int) -> None:
        """Raise RetainError when it failed on more than `MOST_FAILURES` of what it was asked."""
        if failures > MOST_FAILURES * asked:
            raise RetainError(
                f"{what} failed on more than {MOST_FAILURES:.0%} of {asked} samples; the last time it {self._reason}"
            )


def judged(problems: Sequence[Problem], answers: Sequence[tuple[str, bool]]) -> list[bool]:
    """Whether each answer (text, whether it ended by itself) to its problem is right: it ended, and earns more than 0.

    An answer on which the verifier fails (see `Judge`) is not right. Raises RetainError when it fails on more than
    `MOST_FAILURES` of them.
    """
    judge, right = Judge(), []
    with alarm():
        for problem, (text, finished) in zip(problems, answers, strict=True):
            right.append(finished and judge.earned(partial(problem.right, text)) > 0)
            judge.refuse("the verifier", judge.failures, len(problems))
    return right


class Reward:
    """A TRL reward function. A cut answer (no stop token) earns nothing under the true reward.

    What its verifier fails on (see `Judge`) is counted in `failures`. Above `MOST_FAILURES` of one batch of samples the arm
    fails with RetainError.
    """

    def __init__(self, kind: str, seed: int, stop_token: int, problems: dict[str, Problem]) -> None:
        self.__name__ = kind
        self.tokens = 0
        self._judge = Judge()
        self._kind, self._stop, self._problems = kind, stop_token, problems
        self._coin = Random(f"reward {seed}")

    @property
    def failures(self) -> int:
        """On how many answers the verifier failed so far."""
        return self._judge.failures

    def resume_state(self) -> dict[str, Any]:
        """What it counted, and where its coin stands."""
        return {"tokens": self.tokens, "failures": self.failures, "coin": self._coin.getstate()}

    def resume_from(self, state: dict[str, Any]) -> None:
        """Go on from what `resume_state` gave."""
        self.tokens, self._judge.failures = state["tokens"], state["failures"]
        self._coin.setstate(state["coin"])

    def __call__(self, prompts: list[Any], completions: list[Any], completion_ids: list[list[int]], **_: Any) -> list[float]:
        """One reward a completion, in order."""
        self.tokens += int(ranks.total(sum(len(ids) for ids in completion_ids)))
        if self._kind == "constant":
            return [1.0] * len(prompts)
        if self._kind == "random":
            coins = [float(self._coin.random() < 0.5) for _ in range(len(prompts) * ranks.count())]
            return list(ranks.share(coins))
        before, earned = self.failures, []
        with alarm():
            for prompt, completion, ids in zip(prompts, completions, completion_ids, strict=True):
                problem, text = self._problems[prompt[-1]["content"]], completion[0]["content"]
                cut = ids[-1:] != [self._stop]
                earned.append(0.0 if cut else self._judge.earned(partial(problem.right, text)))
                self._judge.refuse("the reward function", self.failures - before, len(prompts))
        return earned


class _TimeUpError(BaseException):
    """Not an Exception, so that a verifier that catches those cannot swallow it."""


def _in_time(call: Callable[[], Any]) -> Any:
    signal.setitimer(signal.ITIMER_REAL, SECONDS_PER_ANSWER)
    try:
        return call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def alarm() -> Iterator[None]:
    """Within it a verifier that takes too long is stopped.

    A job works in the main thread of its process, where an alarm interrupts Python code; others' are put back.
    """

    def ring(*_: Any) -> None:
        raise _TimeUpError

    handler, timer = signal.signal(signal.SIGALRM, ring), signal.getitimer(signal.ITIMER_REAL)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)
