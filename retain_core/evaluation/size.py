"""How evaluations are fitted to a machine: the precision of the model that is asked, and how much of it goes at once.

Both can change a score in the last bits, and other batches draw other samples. So both are part of the settings of an
evaluation where they differ from what the lab does, and base and arms always have the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class EvaluationSize(BaseModel):
    """The dials; the default is how the lab evaluates."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="precision of base and checkpoints while they are asked"
    )
    batch_tokens: PositiveInt | None = Field(
        None, description="tokens (rows x the longest, answer included) of a pass; null: what fits 8 GiB, from the base's shape"
    )

    @property
    def bytes(self) -> int:
        """Bytes of a number."""
        return {"float32": 4, "bfloat16": 2}[self.dtype]

    def fitted_to(self, base: Path) -> EvaluationSize:
        """With the tokens of a pass that the shape of the base in a folder allows, where that is few enough to matter."""
        if self.batch_tokens is not None:
            return self
        from transformers import AutoConfig

        from retain_core.passes import tokens_at_once

        tokens = tokens_at_once(AutoConfig.from_pretrained(base), self.bytes)
        return self.model_copy(update={"batch_tokens": tokens})

    def inputs(self) -> dict[str, Any]:
        """What keys are made of: the dials that are not at their default."""
        return self.model_dump(exclude_defaults=True)


DIVERGENCE_PROMPTS = 100
"""Prompts of the target, and of all retention benchmarks together, along which the KL to the base is measured."""
AS_THE_LAB = EvaluationSize()
"""float32, and batches of a fixed number of rows."""
