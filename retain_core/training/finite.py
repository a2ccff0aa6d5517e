"""Stopping a training whose numbers went wrong before the optimizer takes them into the weights."""

from __future__ import annotations

import math
from typing import Any

from retain_core.errors import RetainError


def refuse_what_is_not_finite(trainer: Any, before: int = 0) -> None:
    """From now on a loss or a gradient norm that is NaN or infinite ends the training with RetainError.

    It names the update, counted from 1 over all stages; `before` is how many of them the stages before this one made.
    transformers looks at neither: it leaves such a loss out of its log and steps on.
    """
    step, norm = trainer.training_step, trainer._get_grad_norm

    def checked_step(*args: Any, **kwargs: Any) -> Any:
        loss = step(*args, **kwargs)
        refuse("loss", float(loss), before + trainer.state.global_step + 1)
        return loss

    def checked_norm(*args: Any, **kwargs: Any) -> Any:
        found = norm(*args, **kwargs)
        refuse("gradient", float(found), before + trainer.state.global_step + 1)
        return found

    trainer.training_step, trainer._get_grad_norm = checked_step, checked_norm


def refuse(what: str, value: float, update: int) -> None:
    """Raise RetainError unless a number is finite."""
    if not math.isfinite(value):
        raise RetainError(f"{what} became {'NaN' if math.isnan(value) else 'infinite'} at update {update}")
