"""Post-training methods and controls: their names, their dials, and which dial belongs to which algorithm.

How each one is trained is in `retain_core.training`; docs/method.md has the exact trainer settings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Number = TypeVar("Number", int, float)
Algorithm = Literal[
    "sft", "self_sft", "iterative_sft", "dpo", "simpo", "reinforce", "rloo", "grpo", "dr_grpo", "ppo", "custom", "external"
]

TRAINED = frozenset({"lora_rank", "optimizer", "prompts"})
"""Dials of everything that is trained."""
IMITATION = frozenset({"loss", "kl", "kl_estimator", "kl_prompts", "replay", "replay_source", "useful_share"})
"""Dials of the SFT family: what is added to, or left out of, the likelihood of the text."""
ON_POLICY = frozenset({"kl", "kl_prompts", "clip", "normaliser", "group_size", "temperature", "mask_truncated", "reward"})
"""Dials of everything that learns from a reward on its own samples."""
GROUP = ON_POLICY | {"kl_estimator", "advantage", "staleness"} | TRAINED
PPO = ON_POLICY | {"epochs", "minibatches", "discount", "gae_lambda", "value_rate", "whiten"} | TRAINED

DIALS: dict[str, frozenset[str]] = {
    "sft": frozenset({"expert", "solution", "harm", "only_solvable", "traces_of", "traces_order"}) | IMITATION | TRAINED,
    "self_sft": frozenset({"oversample", "temperature", "pool"}) | IMITATION | TRAINED,
    "iterative_sft": frozenset({"oversample", "temperature", "staleness"}) | IMITATION | TRAINED,
    "dpo": frozenset({"beta", "temperature"}) | TRAINED,
    "simpo": frozenset({"beta", "gamma", "temperature"}) | TRAINED,
    "reinforce": GROUP,
    "rloo": GROUP,
    "grpo": GROUP,
    "dr_grpo": GROUP,
    "ppo": PPO,
    "custom": frozenset({"trainer", "options", "optimizer", "prompts"}),
    "external": frozenset({"model", "revision"}),
}
"""The dials that each algorithm listens to; any other is refused rather than ignored."""
SAMPLING = frozenset(name for name, dials in DIALS.items() if "temperature" in dials)
"""Algorithms that write answers of their own to learn from, which takes most of their time."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "sft": {"kl_estimator": "exact"},
    "self_sft": {"kl_estimator": "exact"},
    "iterative_sft": {"kl_estimator": "exact", "staleness": 20},
    "dpo": {"beta": 0.1},
    "simpo": {"beta": 2.0},
    "reinforce": {"kl_estimator": "k3", "staleness": 1, "advantage": "none", "normaliser": "sequence"},
    "rloo": {"kl_estimator": "k3", "staleness": 1, "advantage": "leave_one_out", "normaliser": "sequence"},
    "grpo": {"kl_estimator": "k3", "staleness": 1, "advantage": "mean_std", "normaliser": "sequence"},
    "dr_grpo": {"kl_estimator": "k3", "staleness": 1, "advantage": "mean", "normaliser": "constant"},
    "ppo": {"normaliser": "sequence"},
}
"""What a dial that was left at null means to an algorithm."""


SEEDS = 2**32
"""NumPy takes no larger seed."""


def interpolated(label: str) -> str:
    """The label of the curve from the base to a method's last checkpoints through their blends."""
    return f"{label}_interpolated"


def check_rates(value: tuple[float, ...]) -> tuple[float, ...]:
    """Learning rates as they may stand in a study. Raises ValueError."""
    if any(rate < 0 or not math.isfinite(rate) for rate in value):
        raise ValueError("a learning rate is a number that cannot be negative")
    return _check_distinct(value, "learning rate")


def check_seeds(value: tuple[int, ...]) -> tuple[int, ...]:
    """Seeds as they may stand in a study. Raises ValueError."""
    if any(seed < 0 for seed in value):
        raise ValueError("a seed cannot be negative")
    if any(seed >= SEEDS for seed in value):
        raise ValueError(f"a seed is below {SEEDS}")
    return _check_distinct(value, "seed")


def _check_distinct(value: tuple[Number, ...], what: str) -> tuple[Number, ...]:
    if len({f"{entry:.6e}" for entry in value}) < len(value):
        raise ValueError(f"the same {what} is listed twice")
    return value


class Method(BaseModel):
    """One method of a study: a label, an algorithm, and its dials."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+]*$", description="value of the column `method`; unique")
    algorithm: Algorithm
    learning_rates: tuple[float, ...] | None = Field(None, description="overrides the study's grid (stated in the report)")
    seeds: tuple[int, ...] | None = Field(None, description="overrides the study's seeds")
    expert: Literal["off_style", "in_style", "placebo", "base_mixture", "planted_harm", "lowest_kl", "traces"] = Field(
        "off_style", description="sft: whose answers are imitated, and in which style"
    )
    solution: Literal["canonical", "random"] = Field(
        "random", description="sft: the expert always gives one canonical solution, or a random valid one"
    )
    harm: str | None = Field(None, description="sft with expert planted_harm: the benchmark that is taught wrong answers")
    only_solvable: bool = Field(False, description="sft: only problems that the base itself solves in some of 8 samples")
    traces_of: str | None = Field(None, description="sft with expert traces: the algorithm whose rewarded samples are imitated")
    traces_order: Literal["produced", "shuffled"] = Field(
        "produced", description="sft with expert traces: in the order in which the algorithm produced them, or not"
    )
    loss: Literal["nll", "dft"] = Field("nll", description="SFT family: -log p, or -sg[p] log p (DFT)")
    kl_estimator: Literal["k2", "k3", "exact"] | None = Field(None, description="estimate of the KL penalty")
    kl_prompts: Literal["target", "retention"] = Field("target", description="where the KL penalty is taken")
    replay: float = Field(0.0, ge=0, lt=1, description="SFT family: share of each batch that is text of the retention skills")
    replay_source: Literal["mixture", "own"] = Field(
        "mixture",
        description="SFT family: replayed answers are those of the base's training mixture, or the base's own samples",
    )
    useful_share: float = Field(1.0, gt=0, le=1, description="SFT family: share of each batch's sequences that carry gradient")
    pool: Literal["fresh", "small"] = Field(
        "fresh", description="self_sft: as many answers as are trained on, or an eighth of it, each repeated"
    )
    staleness: int | None = Field(
        None, ge=1, description="updates per batch of samples; 1 is strictly on-policy; iterative_sft: 20 unless set"
    )
    beta: float | None = Field(None, gt=0, description="dpo (0.1 unless set), simpo (2 unless set): slope of the preference")
    gamma: float = Field(1.0, ge=0, description="simpo: margin by which the right answer must be likelier")
    lora_rank: int | None = Field(
        None, ge=1, description="rank of LoRA adapters on every linear layer; null trains all weights"
    )
    optimizer: Literal["adam", "sgd"] = Field("adam", description="AdamW, or plain SGD without momentum")
    prompts: Literal["varied", "frozen"] = Field(
        "varied", description="target prompts: the numbers of a problem in a drawn order, or always sorted"
    )
    oversample: int = Field(4, ge=1, description="self_sft, iterative_sft: samples drawn per sequence trained on")
    temperature: float = Field(1.0, gt=0, description="sampling temperature of methods that sample")
    kl: float = Field(0.0, ge=0, description="coefficient of the KL penalty to the base")
    clip: float | None = Field(
        0.2, gt=0, lt=1, description="on-policy: the ratio counts between 1 - clip and 1 + clip; null is no clipping"
    )
    advantage: Literal["none", "mean", "mean_std", "leave_one_out"] | None = Field(
        None, description="on-policy but ppo: what a reward is compared with in its group"
    )
    normaliser: Literal["sequence", "constant"] | None = Field(
        None, description="on-policy: a sample's loss is divided by its own tokens, or by the longest possible answer"
    )
    group_size: int = Field(8, ge=2, description="on-policy: samples per prompt")
    mask_truncated: bool = Field(False, description="on-policy: a cut answer carries no loss")
    reward: Literal["true", "constant", "random"] = Field("true", description="on-policy: the verifier, 1 always, or a coin")
    epochs: int = Field(4, ge=1, description="ppo: how often a batch of samples is gone through")
    minibatches: int = Field(1, ge=1, description="ppo: updates in one pass through a batch of samples")
    discount: float = Field(1.0, ge=0, le=1, description="ppo: gamma of the advantage estimate")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="ppo: lambda of the advantage estimate")
    value_rate: float = Field(1e-3, ge=0, description="ppo: learning rate of the value model")
    whiten: bool = Field(True, description="ppo: advantages to mean 0 and variance 1 within a batch of samples")
    trainer: str | None = Field(
        None, description="custom: module:function that builds the trainer, or an entry point in the group retain.methods"
    )
    options: dict[str, Any] = Field({}, description="custom: anything, for the function that builds the trainer")
    model: str | None = Field(None, description="external: folder of the tuned model")
    revision: str | None = Field(None, description="external: hub revision")

    @field_validator("label")
    @classmethod
    def _not_the_base(cls, value: str) -> str:
        if value == "base":
            raise ValueError("the label 'base' is the base model's own; choose another")
        return value

    @field_validator("learning_rates")
    @classmethod
    def _rates(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        return value and check_rates(value)

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return value and check_seeds(value)

    @model_validator(mode="after")
    def _only_its_own_dials(self) -> Method:
        common = {"label", "algorithm", "learning_rates", "seeds"}
        foreign = set(type(self).model_fields) - common - DIALS[self.algorithm]
        stray = sorted(name for name in foreign if getattr(self, name) != type(self).model_fields[name].default)
        if stray:
            known = ", ".join(sorted(DIALS[self.algorithm]))
            raise ValueError(f"{self.algorithm} has no dial {stray[0]!r}; its dials are {known}")
        if (self.expert == "planted_harm") != (self.harm is not None):
            raise ValueError("`harm: <benchmark>` and `expert: planted_harm` belong together")
        if (self.expert == "traces") != (self.traces_of is not None):
            raise ValueError("`traces_of: <algorithm>` and `expert: traces` belong together")
        rewarded = [name for name, dials in NAMED.items() if "reward" in DIALS[dials["algorithm"]]]
        if self.traces_of is not None and self.traces_of not in rewarded:
            raise ValueError(f"traces_of: {self.traces_of!r} learns from no reward; those that do are {', '.join(rewarded)}")
        if self.only_solvable and self.expert in ("base_mixture", "planted_harm", "traces"):
            raise ValueError(f"only_solvable restricts the expert's problems, and {self.expert} has none of its own")
        if self.kl_prompts == "retention" and self.kl_estimator in ("k2", "k3"):
            raise ValueError("kl_prompts: retention is text of the base, where only kl_estimator: exact is the KL")
        if self.algorithm == "custom" and not self.trainer:
            raise ValueError("custom needs `trainer:` (module:function that builds the trainer)")
        if self.algorithm == "external" and not self.model:
            raise ValueError("external needs `model:` (the folder of the tuned model)")
        return self

    def config(self) -> dict[str, Any]:
        """All dials that this algorithm listens to, defaults included: what an arm is made of."""
        given = {name: getattr(self, name) for name in sorted(DIALS[self.algorithm])}
        own = DEFAULTS.get(self.algorithm, {}) | ({"kl_estimator": "exact"} if self.kl_prompts == "retention" else {})
        dials = {name: own.get(name) if value is None else value for name, value in given.items()}
        return {"algorithm": self.algorithm, **dials}

    def samples_policy(self) -> bool:
        """Whether training samples from the policy as it is then; what a method of one's own does is not known, so yes."""
        dials = DIALS[self.algorithm]
        return self.algorithm == "custom" or self.traces_of is not None or bool({"reward", "oversample"} & dials)

    def unit(self) -> tuple[int, str]:
        """How many sequences of a batch belong together, and what they are called."""
        if self.traces_of is not None:
            return Method(label=self.traces_of, **NAMED[self.traces_of]).unit()
        if "group_size" in DIALS[self.algorithm]:
            return self.group_size, "group_size"
        return (2, "a pair") if "beta" in DIALS[self.algorithm] else (1, "a sequence")


NAMED: dict[str, dict[str, Any]] = {
    "sft": {"algorithm": "sft", "expert": "off_style", "solution": "canonical"},
    "sft_in_style": {"algorithm": "sft", "expert": "in_style"},
    "self_sft": {"algorithm": "self_sft"},
    "iterative_sft": {"algorithm": "iterative_sft"},
    "dft": {"algorithm": "sft", "expert": "off_style", "solution": "canonical", "loss": "dft"},
    "lowest_kl": {"algorithm": "sft", "expert": "lowest_kl"},
    "dpo": {"algorithm": "dpo"},
    "simpo": {"algorithm": "simpo"},
    "reinforce": {"algorithm": "reinforce"},
    "rloo": {"algorithm": "rloo"},
    "grpo": {"algorithm": "grpo"},
    "dr_grpo": {"algorithm": "dr_grpo"},
    "ppo": {"algorithm": "ppo"},
}
"""Methods that a study may name without spelling out their dials."""

CONTROLS: dict[str, dict[str, Any]] = {
    "learning_rate_0": {"algorithm": "sft", "expert": "off_style", "solution": "canonical", "learning_rates": (0.0,)},
    "base_mixture": {"algorithm": "sft", "expert": "base_mixture"},
    "constant_reward": {"algorithm": "grpo", "reward": "constant"},
    "random_reward": {"algorithm": "grpo", "reward": "random"},
    "style_placebo": {"algorithm": "sft", "expert": "placebo"},
    "planted_harm": {"algorithm": "sft", "expert": "planted_harm"},
}
"""Arms whose outcome is known beforehand; they run like any other arm (measurement: section 6)."""

WITHOUT_LAB = ("learning_rate_0", "constant_reward", "random_reward")
"""The controls that need no lab target: the outcome of the others is known of the lab's worlds only."""


def needed_controls(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """The controls without which a study, given by its written spec, gets no verdict: those that a base of the lab can have."""
    if not str((spec.get("base") or {}).get("model", "")).startswith("lab/"):
        return ()
    return WITHOUT_LAB if spec.get("target_files") else tuple(CONTROLS)


def control(name: str, learning_rates: tuple[float, ...], seeds: tuple[int, ...], harm: str, answers: bool = True) -> Method:
    """A control as a method: at the highest learning rate of the grid, with the first seed.

    `harm` is the benchmark on which the planted harm is planted; without `answers` to imitate nothing is imitated.
    """
    dials = {"learning_rates": (max(learning_rates),), "seeds": seeds[:1], **CONTROLS[name]}
    if name == "planted_harm":
        dials["harm"] = harm
    if name == "learning_rate_0" and not answers:
        dials = {"algorithm": "grpo", "learning_rates": (0.0,), "seeds": seeds[:1]}
    return Method(label=name, **dials)
