"""Post-training methods and controls: their names, their dials, and which dial belongs to which algorithm.

How each one is trained is in `retain_core.training`; docs/method.md has the exact trainer settings.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Algorithm = Literal["sft", "self_sft", "iterative_sft", "reinforce", "grpo", "external"]

DIALS: dict[str, frozenset[str]] = {
    "sft": frozenset({"expert", "solution"}),
    "self_sft": frozenset({"oversample", "temperature"}),
    "iterative_sft": frozenset({"oversample", "temperature", "rounds"}),
    "reinforce": frozenset({"kl", "group_size", "temperature", "reward"}),
    "grpo": frozenset({"kl", "group_size", "temperature", "reward"}),
    "external": frozenset({"model", "revision"}),
}
"""The dials that each algorithm listens to; any other is refused rather than ignored."""


class Method(BaseModel):
    """One method of a study: a label, an algorithm, and its dials."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+]*$", description="value of the column `method`; unique")
    algorithm: Algorithm
    learning_rates: tuple[float, ...] | None = Field(None, description="overrides the study's grid (stated in the report)")
    seeds: tuple[int, ...] | None = Field(None, description="overrides the study's seeds")
    expert: Literal["off_style", "in_style", "placebo", "base_mixture"] = Field(
        "off_style", description="sft: whose answers are imitated, and in which style"
    )
    solution: Literal["canonical", "random"] = Field(
        "random", description="sft: the expert always gives one canonical solution, or a random valid one"
    )
    oversample: int = Field(4, ge=1, description="self_sft, iterative_sft: samples drawn per sequence trained on")
    rounds: int = Field(4, ge=1, description="iterative_sft: how often an arm re-samples from the current policy")
    temperature: float = Field(1.0, gt=0, description="sampling temperature of methods that sample")
    kl: float = Field(0.0, ge=0, description="reinforce, grpo: coefficient of the KL penalty to the base (k3, in the loss)")
    group_size: int = Field(8, ge=2, description="reinforce, grpo: completions per prompt")
    reward: Literal["true", "constant", "random"] = Field(
        "true", description="reinforce, grpo: the verifier, 1 always, or a coin"
    )
    model: str | None = Field(None, description="external: path or hub id of the tuned model")
    revision: str | None = Field(None, description="external: hub revision")

    @model_validator(mode="after")
    def _only_its_own_dials(self) -> Method:
        common = {"label", "algorithm", "learning_rates", "seeds"}
        foreign = set(type(self).model_fields) - common - DIALS[self.algorithm]
        stray = sorted(name for name in foreign if getattr(self, name) != type(self).model_fields[name].default)
        if stray:
            known = ", ".join(sorted(DIALS[self.algorithm]))
            raise ValueError(f"{self.algorithm} has no dial {stray[0]!r}; its dials are {known}")
        if self.algorithm == "external" and not self.model:
            raise ValueError("external needs `model:` (a path or a hub id of the tuned model)")
        return self

    def config(self) -> dict[str, Any]:
        """All dials that this algorithm listens to, defaults included: what an arm is made of."""
        dials = {name: getattr(self, name) for name in sorted(DIALS[self.algorithm])}
        return {"algorithm": self.algorithm, **dials}


NAMED: dict[str, dict[str, Any]] = {
    "sft": {"algorithm": "sft", "expert": "off_style", "solution": "canonical"},
    "sft_in_style": {"algorithm": "sft", "expert": "in_style"},
    "self_sft": {"algorithm": "self_sft"},
    "iterative_sft": {"algorithm": "iterative_sft"},
    "reinforce": {"algorithm": "reinforce"},
    "grpo": {"algorithm": "grpo"},
}
"""Methods that a study may name without spelling out their dials."""

CONTROLS: dict[str, dict[str, Any]] = {
    "learning_rate_0": {"algorithm": "sft", "expert": "off_style", "solution": "canonical", "learning_rates": (0.0,)},
    "base_mixture": {"algorithm": "sft", "expert": "base_mixture"},
    "constant_reward": {"algorithm": "grpo", "reward": "constant"},
    "style_placebo": {"algorithm": "sft", "expert": "placebo"},
}
"""Arms whose outcome is known beforehand; they run like any other arm (measurement: section 6)."""


def control(name: str, learning_rates: tuple[float, ...], seeds: tuple[int, ...]) -> Method:
    """A control as a method: at the highest learning rate of the grid, with the first seed."""
    dials = {"learning_rates": (max(learning_rates),), "seeds": seeds[:1], **CONTROLS[name]}
    return Method(label=name, **dials)
