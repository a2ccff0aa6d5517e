"""What every arm records while it trains, whatever its trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainerCallback

from retain_core.training.adapters import plain_weights


@dataclass
class TrainingRecord:
    """What an arm did: counts, seconds, the curve, and the distance travelled at each checkpoint."""

    updates: int
    sequences: int
    unique_prompts: int
    tokens_trained: int
    tokens_generated: int
    style_distance: float | None = None
    """The base's loss on the first training text, in nats per token; None where the policy writes the text."""
    seconds: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)
    distances: dict[int, tuple[float, float | None]] = field(default_factory=dict)


def together(stages: Sequence[TrainingRecord]) -> TrainingRecord:
    """The record of a sequence of targets: counts and seconds add up; the style distance is that of the first text."""
    return TrainingRecord(
        updates=sum(s.updates for s in stages),
        sequences=sum(s.sequences for s in stages),
        unique_prompts=sum(s.unique_prompts for s in stages),
        tokens_trained=sum(s.tokens_trained for s in stages),
        tokens_generated=sum(s.tokens_generated for s in stages),
        style_distance=stages[0].style_distance,
        seconds=sum(s.seconds for s in stages),
    )


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Keeps the training curve, saves weights at the given updates, and measures the way travelled.

    One recorder follows an arm through all its stages: steps count on, and distances are from where the first began.
    """

    MEASURABLE = 100_000_000
    """The path length is summed every update up to this many parameters; above it stays unknown."""

    def __init__(self, model: torch.nn.Module, steps: Iterable[int], save: Callable[[Any, Any, int], None]) -> None:
        """`save` gets the model, its tokenizer and the step."""
        self.steps, self._save = set(steps), save
        self.before = 0
        """Updates of the stages before this one."""
        self.curve: list[dict[str, Any]] = []
        self.distances: dict[int, tuple[float, float | None]] = {}
        weights = plain_weights(model)
        small = sum(weight.numel() for weight in weights.values()) <= self.MEASURABLE
        self._start = _flat(model) if small else None
        self._aside = {} if small else {name: weight.detach().to("cpu", copy=True) for name, weight in weights.items()}
        """Where a large model began, in the machine's own memory: the accelerator's is for the training."""
        self._last = None if self._start is None else self._start.clone()
        self._path = 0.0

    def resume_state(self) -> dict[str, Any]:
        """The curve and the way so far."""
        return {"curve": self.curve, "distances": self.distances, "path": self._path}

    def resume_from(self, state: dict[str, Any], model: torch.nn.Module) -> None:
        """Go on from what `resume_state` gave, with the model as it was then."""
        self.curve, self.distances, self._path = state["curve"], state["distances"], state["path"]
        self._last = _flat(model) if self._last is not None else None

    def on_step_end(self, args: Any, state: Any, control: Any, model: torch.nn.Module, **kwargs: Any) -> None:
        """After an update: extend the path, and save when this update is one of the checkpoints."""
        step = self.before + state.global_step
        due = step in self.steps
        if self._last is None and not due:
            return
        if self._last is not None:
            now = _flat(model)
            self._path += float((now - self._last).norm())
            self._last = now
        if due:
            self.distances[step] = self._distance(model), None if self._last is None else self._path
            self._save(model, kwargs["processing_class"], step)

    def _distance(self, model: torch.nn.Module) -> float:
        if self._start is not None:
            return float((_flat(model) - self._start).norm())
        with torch.no_grad():
            gaps = (
                (weight.float() - self._aside[name].to(weight.device).float()).norm()
                for name, weight in plain_weights(model).items()
            )
            return math.sqrt(sum(float(gap) ** 2 for gap in gaps))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
        """Every logged number becomes a point of the curve."""
        for name, value in logs.items():
            if isinstance(value, int | float):
                self.curve.append({"step": self.before + state.global_step, "name": name, "value": float(value)})


def _flat(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([weight.detach().reshape(-1).float() for weight in plain_weights(model).values()])
