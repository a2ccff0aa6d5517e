"""One look of the watch: what is there, what was decided before, and what all of it comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from retain_core.errors import RetainError
from retain_core.gate.decide import EXIT_CODES
from retain_core.gate.find import Found, find
from retain_core.gate.study import decided, gate_model
from retain_core.gate.watch_file import Watch
from retain_core.settings import Settings
from retain_core.study import Study


@dataclass(frozen=True)
class Seen:
    """A checkpoint and what is known of it."""

    found: Found
    told: dict[str, Any] | None = None
    """The document of its decision; None where there is none yet."""
    new: bool = False
    """Whether it was decided in this look."""
    problem: str = ""
    """Why it could not be judged."""

    @property
    def line(self) -> str:
        """What is said of it."""
        if self.told is None:
            return f"{self.found.name}: {self.problem or 'not judged yet'}"
        return f"{self.found.name}: {self.told['sentence']}" + ("" if self.new else " (seen before)")


def look(watch: Watch, study: Study, config: Settings) -> list[Seen]:
    """Every checkpoint that is there, with its decision where its content was seen before. Nothing is evaluated."""
    seen = []
    for found in find(watch, config):
        try:
            seen.append(Seen(found, decided(study, str(found.folder), config, watch.fraction)))
        except RetainError as error:
            seen.append(Seen(found, problem=str(error)))
    return seen


def judge(found: Found, watch: Watch, study: Study, config: Settings) -> Seen:
    """Evaluate one checkpoint and decide; one that cannot be judged does not stop the others."""
    try:
        # Two checkpoints can have equal content, and the first of them was just judged.
        if known := decided(study, str(found.folder), config, watch.fraction):
            return Seen(found, known)
        gate_model(study, str(found.folder), config, watch.fraction, found.name)
        return Seen(found, decided(study, str(found.folder), config, watch.fraction), new=True)
    except RetainError as error:
        return Seen(found, problem=str(error))


def unjudged(seen: list[Seen]) -> bool:
    """Whether anything is left to evaluate."""
    return any(one.told is None and not one.problem for one in seen)


def exit_code(seen: list[Seen]) -> int:
    """1 where one could not be judged, else that of the worst decision over all that is there; 0 without any."""
    if any(one.told is None for one in seen):
        return 1
    words = {one.told["decision"] for one in seen if one.told}
    return next((EXIT_CODES[word] for word in ("REJECT", "INCONCLUSIVE") if word in words), 0)
