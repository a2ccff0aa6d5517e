"""What training needs of a target: problems with a check each, the expert's answers, and text of the other skills."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from retain_core.arms import ArmSpec

Exchange = tuple[str, str]
"""A prompt and the answer to it."""


@dataclass(frozen=True)
class Problem:
    """A training problem of a target as it is asked once."""

    key: Hashable
    """Which problem it is, however it is asked."""
    prompt: str
    right: Callable[[str], Any]
    """The verifier's word on an answer: truth, or a reward."""


class Target(Protocol):
    """A target as training sees it. Streams are endless and depend on their seed alone."""

    @property
    def longest_answer(self) -> int:
        """Tokens of the longest answer that is worth sampling, the stop token included."""

    @property
    def size(self) -> int:
        """How many different training problems there are."""

    def problems(self, seed: int, only: list[Hashable] | None = None) -> Iterator[Problem]:
        """Training problems, of all or of some; none comes twice before all have come."""

    def expert(self, config: dict[str, Any], seed: int, count: int, only: list[Hashable] | None = None) -> list[Exchange]:
        """The first `count` exchanges of the expert that an arm's dials name."""

    def right_answers(self, problem: Problem) -> list[str]:
        """Every answer that the verifier accepts. Raises InputError where they cannot be listed."""

    def retention(self, seed: int) -> Iterator[Exchange]:
        """Training text of the skills that must not be lost."""


def target_of(spec: ArmSpec, tokenizer: Any) -> Target:
    """The target of an arm; a target of the user's own counts its answers in tokens."""
    from retain_core.lab.targets import LAB_TARGETS
    from retain_core.lab.world import World

    if spec.own_target is not None:
        from retain_core.own.target import FileTarget

        return FileTarget(spec.own_target, tokenizer)
    return LAB_TARGETS[spec.target](World(spec.world), spec.config["prompts"])
