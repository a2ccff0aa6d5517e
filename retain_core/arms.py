"""An arm as data: everything one process needs to train and evaluate it, and the keys made of that."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from retain_core.canonical import digest
from retain_core.evaluation.benchmarks import Benchmark
from retain_core.evaluation.generation import TRANSFORMERS, Generation
from retain_core.evaluation.size import AS_THE_LAB, DIVERGENCE_PROMPTS, EvaluationSize
from retain_core.lab.dataset import LAB_VERSION
from retain_core.lab.spec import LabSpec
from retain_core.lab.vocabulary import CHAT_TEMPLATE
from retain_core.machine import platform_class
from retain_core.own.files import Code
from retain_core.own.target import OwnTarget
from retain_core.store import key_of
from retain_core.training.size import TrainingSize

LAB_TEMPLATE = digest(CHAT_TEMPLATE, 16)
TRAINING_VERSION = 1
"""Raised when equal settings would train to other weights."""

TEMPLATE_VERSION = 1
"""Raised when equal settings give something else under chat templates other than the lab's only."""


class BaseRef(BaseModel):
    """Which base model, by content: a lab base's artifact key, or a path or hub id with its fingerprint."""

    model_config = ConfigDict(frozen=True)

    model: str
    fingerprint: str
    lab: LabSpec | None = None
    chat_template: str = LAB_TEMPLATE
    """Hash of the chat template that prompts are rendered with."""


class Checkpoint(NamedTuple):
    """Weights of an arm that are evaluated: those after `step` updates, or a blend of them with the base's."""

    step: int
    alpha: float | None = None
    """Of a blend, (1 - alpha) x base + alpha x weights after `step`; None for weights as they were trained."""

    def __str__(self) -> str:
        """What stands behind the @ of its address."""
        return f"{self.step}" if self.alpha is None else f"{self.step}~{self.alpha}"


class ArmSpec(BaseModel):
    """One arm: a method at one learning rate and one seed, with the checkpoints to evaluate.

    In a sequence of targets it learns one after the other, each in a stage of `updates` updates; `steps` count on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    arm: str
    study: str
    method: str
    role: str
    config: dict[str, Any]
    base: BaseRef
    world: LabSpec
    dataset_key: str
    target: str
    learning_rate: float | None
    seed: int | None
    updates: int
    sequences_per_update: int
    steps: tuple[int, ...]
    retention: tuple[str, ...]
    benchmarks: tuple[Benchmark, ...]
    """Everything that its checkpoints are evaluated on."""
    keep: str
    threads: int
    then: tuple[str, ...] = ()
    """Targets that are learned after `target`."""
    interpolate: tuple[float, ...] = ()
    """The last checkpoint is blended with the base at these alphas, ascending, each strictly between 0 and 1."""
    own_target: OwnTarget | None = None
    """The target where it is the user's own, None for one of the lab."""
    trainer: Code | None = None
    """What builds the trainer of algorithm `custom`."""
    generation: Generation = TRANSFORMERS
    """The backend that its checkpoints are asked through."""
    evaluation: EvaluationSize = AS_THE_LAB
    """Precision and batches of the evaluation of its checkpoints."""
    divergence_prompts: int = DIVERGENCE_PROMPTS
    """Prompts of the target, and of retention, along which the KL of its checkpoints to the base is measured."""
    sampled_at_once: int | None = None
    """Tokens of a pass in which its training samples from the base or from itself, by the base's shape; None: any number."""
    size: TrainingSize = TrainingSize()
    """How its training is fitted to the machine."""
    processes: int = 1
    """How many processes of one machine train it together."""
    parallel: str = "ddp"
    """How they share it: a file of `retain_core/accelerate`."""

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """Everything of this arm that is evaluated: trained checkpoints, then blends."""
        return [*map(Checkpoint, self.steps), *(Checkpoint(self.steps[-1], alpha) for alpha in self.interpolate)]

    @property
    def chat_template(self) -> str:
        """Hash of the chat template of this arm's checkpoints."""
        return str(self.config.get("chat_template", self.base.chat_template))

    @property
    def trained(self) -> bool:
        """False for an external model, which is only evaluated."""
        return bool(self.config["algorithm"] != "external")

    def stages(self) -> list[ArmSpec]:
        """What is trained, target by target: each stage as an arm of that target alone, its steps counted from its start."""
        return [
            self.model_copy(
                update={
                    "target": target,
                    "then": (),
                    "steps": tuple(s - first for s in self.steps if 0 < s - first <= self.updates),
                }
            )
            for target, first in zip((self.target, *self.then), range(0, self.all_updates, self.updates), strict=True)
        ]

    @property
    def all_updates(self) -> int:
        """Updates of all stages together."""
        return self.updates * (1 + len(self.then))

    def stage(self, step: int) -> int | None:
        """The stage that a step belongs to, counted from 1; None for an external model."""
        return (step - 1) // self.updates + 1 if self.trained else None

    def inputs(self) -> dict[str, Any]:
        """What the trained weights depend on; names, labels and where things lie are left out."""
        world = {**self.world.world_dials(), "habit": self.world.habit, "format_share": self.world.format_share}
        trained_for: dict[str, Any] = {"world": world, "target": self.target}
        if self.own_target is not None:
            trained_for = {"target": self.own_target.training_identity(self.config.get("expert"))}
        elif self.base.lab is None:
            trained_for["lab_version"] = LAB_VERSION  # which a base of the lab has in its fingerprint
        packages = ("torch", "transformers", "trl", *(["peft"] if self.config.get("lora_rank") else []))
        return {
            "arm": self.config, "base": self.base.fingerprint, **trained_for,
            "learning_rate": self.learning_rate, "seed": self.seed, "updates": self.updates,
            "sequences_per_update": self.sequences_per_update, "steps": list(self.steps),
            "threads": self.threads, "training_version": TRAINING_VERSION, **computed_by(*packages),
            **({"then": list(self.then)} if self.then else {}),
            **({"size": self.size.inputs()} if self.size.inputs() else {}),
            **({"sampled_at_once": self.sampled_at_once} if self.sampled_at_once and self._samples else {}),
            **({"processes": self.processes, "parallel": self.parallel} if self.processes > 1 else {}),
            **templated(self.base.chat_template),
        }  # fmt: skip

    @property
    def _samples(self) -> bool:
        """Whether its training draws or scores answers in batches of its own, and not in those of TRL."""
        dials = self.config
        drawn = dials["algorithm"] in ("self_sft", "iterative_sft", "dpo", "simpo", "custom") or dials.get("only_solvable")
        scored = dials.get("expert") == "lowest_kl"
        own = (dials.get("replay") and dials.get("replay_source") == "own") or dials.get("kl_prompts") == "retention"
        return bool(drawn or scored or own)

    @property
    def key(self) -> str:
        """The key of the arm's artifact."""
        return key_of(self.inputs())

    def checkpoint(self, step: int, alpha: float | None = None) -> str:
        """The address of a checkpoint: `lab/grpo-lr3e-4-s1@160`, of a blend `lab/grpo-lr3e-4-s1@160~0.5`."""
        return f"{self.arm}@{Checkpoint(step, alpha)}"

    def checkpoint_identity(self, step: int, alpha: float | None = None) -> dict[str, Any]:
        """What identifies the weights of a checkpoint, for the keys of what is computed from them."""
        if not self.trained:
            return {"model": self.config["fingerprint"]}
        return {"arm": self.key, "step": step} | ({} if alpha is None else {"alpha": alpha})

    def kept_steps(self) -> list[int]:
        """The checkpoints whose weights stay on disk after evaluation."""
        return {"all": list(self.steps), "last": [self.steps[-1]], "none": []}[self.keep]

    def steps_needed(self, missing: Iterable[Checkpoint]) -> set[int]:
        """The steps whose weights must be at hand, or trained again, to evaluate these and to keep what is kept."""
        return {*self.kept_steps(), *(checkpoint.step for checkpoint in missing)}


def weights_key(spec: ArmSpec, step: int) -> str:
    """The key of the weights of one checkpoint."""
    return key_of(spec.checkpoint_identity(step))


def templated(chat_template: str) -> dict[str, Any]:
    """What a result depends on beside the hash of the chat template, for the keys."""
    return {} if chat_template == LAB_TEMPLATE else {"template_version": TEMPLATE_VERSION}


@lru_cache(maxsize=8)
def computed_by(*packages: str) -> dict[str, Any]:
    """The platform class and the versions of the packages that a result depends on."""
    return {
        "platform": platform_class(),
        "versions": {name: version(name) for name in packages},
    }


def rate_text(rate: float) -> str:
    """A learning rate as it stands in names: 0.0003 -> 3e-4, 0 -> 0."""
    if rate == 0:
        return "0"
    mantissa, exponent = f"{rate:.6e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def arm_name(study: str, method: str, learning_rate: float | None, seed: int | None) -> str:
    """The address of an arm: `lab/grpo-lr3e-4-s1`, without rate and seed for an external model."""
    rate = "" if learning_rate is None else f"-lr{rate_text(learning_rate)}"
    return f"{study}/{method}{rate}" + ("" if seed is None else f"-s{seed}")
