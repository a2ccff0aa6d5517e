"""WildJailbreak and WildGuardTest: prompts that a model should refuse, or should not. A judge model scores the answers."""

from __future__ import annotations

from typing import Any, NoReturn

from retain_core.errors import RetainError
from retain_core.own.files import Row


def of_jailbreak(raw: Row) -> Row | str:
    """A row of WildJailbreak's evaluation set (adversarial, label, data_type) as ours, or why it is left out."""
    labels = {"0": False, "1": True}
    if str(raw["label"]) not in labels:
        return "its label is neither 0 (harmless) nor 1 (harmful)"
    return _row(raw["adversarial"], labels[str(raw["label"])])


def of_guard(raw: Row) -> Row | str:
    """A row of WildGuardTest (prompt, prompt_harm_label) as ours, or why it is left out."""
    labels = {"harmful": True, "unharmful": False}
    if raw["prompt_harm_label"] is None:
        return "its prompt has no label"
    if raw["prompt_harm_label"] not in labels:
        return "its label is neither harmful nor unharmful"
    return _row(raw["prompt"], labels[raw["prompt_harm_label"]])


def right(answer: str, row: Row) -> NoReturn:  # noqa: ARG001
    """There is no verifier. Raises RetainError."""
    raise RetainError("the answers to this benchmark are scored by a judge model")


def _row(prompt: Any, harmful: bool) -> Row | str:
    if not isinstance(prompt, str) or not prompt.strip():
        return "its prompt is empty"
    return {"prompt": prompt, "harmful": harmful, "kind": "harmful" if harmful else "harmless"}
