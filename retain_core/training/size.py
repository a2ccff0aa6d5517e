"""How a training is fitted to a machine: precision, micro-batches, what is recomputed or compiled, where samples are made.

Nothing here is a property of a method. In exact arithmetic the weights are those of the plain training; in floating point
they differ in the last bits, so whatever differs from the default is part of an arm's key.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from retain_core.errors import InputError
from retain_core.training.rollouts.setting import RolloutServer


class TrainingSize(BaseModel):
    """The dials; the default is what the lab trains with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="precision of the matrix products; auto: bf16 on a GPU, fp32 on the CPU. Weights are fp32 always"
    )
    micro_batch: int | None = Field(
        None, ge=1, description="sequences that are held in memory at once; null: the whole batch of an update"
    )
    card: int | None = Field(
        None,
        ge=1,
        description="memory of the accelerator in GB, such as 80: micro_batch and activation_checkpointing are chosen to fit",
    )
    activation_checkpointing: bool = Field(False, description="recompute each layer in the backward pass: memory for time")
    compile: bool = Field(False, description="compile each layer before training (minutes at the start, faster after)")
    rollouts: RolloutServer | None = Field(
        None, title="Rollouts", description="a server that samples from the policy; null: the trainer samples itself"
    )

    frozen: Literal["bf16", "fp32"] = Field(
        "fp32", description="how the untouched base beside the policy is held; bf16 acts where products are taken in bf16"
    )

    def bf16(self, precise: bool) -> bool:
        """Whether matrix products are taken in bf16; `precise` where there is no GPU."""
        return self.dtype == "bf16" or (self.dtype == "auto" and not precise)

    def base_in_bf16(self, precise: bool) -> bool:
        """Whether the untouched base is held in bf16."""
        return self.frozen == "bf16" and self.bf16(precise)

    def parts(self, batch: int) -> int:
        """Micro-batches of a batch whose parts must be of equal size. Raises InputError when they cannot be."""
        if self.micro_batch is None or self.micro_batch >= batch:
            return 1
        if batch % self.micro_batch:
            raise InputError(f"micro_batch {self.micro_batch} does not divide a batch of {batch}; choose one that does")
        return batch // self.micro_batch

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> TrainingSize:
        if self.card is not None and (self.micro_batch is not None or self.activation_checkpointing):
            raise ValueError("`card` chooses micro_batch and activation_checkpointing; leave it out to set them yourself")
        return self

    def unsaid(self) -> set[str]:
        """Settings that leave a study what it was before there were such settings."""
        return {"frozen"} if self.frozen == "fp32" else set()

    def inputs(self) -> dict[str, Any]:
        """What keys are made of: the dials that are not at their default, and whether a server samples, wherever it is."""
        server = {"rollouts": "server"} if self.rollouts else {}
        return self.model_dump(exclude_defaults=True, exclude={"rollouts"}) | server


WHOLE = TrainingSize()
"""The default."""


def compile_layers(model: Any) -> None:
    """Compile each decoder layer of a model where it stands: one compilation serves all, for they are alike.

    Names of the weights stay. Where activations are recomputed, a compiled layer is what is run again.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.compile()
