"""The dials of the lab: everything that decides what the world and the base model are."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class LabSpec(BaseModel):
    """One lab base. Two equal specs give the same world and, on one platform, the same weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: str = "tiny"
    seed: int = Field(0, ge=0, description="draws the world (facts, splits) and the initial weights")
    habit: float = Field(
        0.6,
        ge=0,
        le=1,
        description="support dial: share of the base's countdown training answers that are a "
        "sloppy habit (the numbers as they stand, subtracted) instead of a random valid solution",
    )
    format_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="support dial of new_format: share of the base's sorting training that asks for the new format; "
        "`habit` of it is answered in the old one. At 0 the base never met the format",
    )
    private_symbols: bool = Field(
        False, description="overlap dial: the target writes digits and operators with tokens of its own"
    )
    operands: int = Field(2, ge=2, le=4, description="how many numbers a countdown problem has")
    steps: bool = Field(
        False, description="countdown is answered step by step: the base knows countdown_steps in place of countdown"
    )
    largest_number: int = Field(40, ge=10, le=99, description="countdown uses the numbers 1 to this")
    target_items: int = Field(
        520, ge=400, description="most held-out items of the target: where methods are matched, gain must be known to a point"
    )
    entities: PositiveInt = Field(450, description="named things that facts and places are about")
    hidden: PositiveInt = 96
    layers: PositiveInt = 3
    heads: PositiveInt = 4
    updates: PositiveInt = Field(1400, description="pre-training updates")
    batch: PositiveInt = Field(64, description="pre-training sequences per update")
    learning_rate: float = Field(3e-3, gt=0)

    def world_dials(self) -> dict[str, Any]:
        """The dials that decide the held-out items."""
        dials = self.model_dump(include={"seed", "private_symbols", "operands", "largest_number", "target_items", "entities"})
        return dials | ({"steps": True} if self.steps else {})

    def dials(self) -> dict[str, Any]:
        """All dials that decide the base's weights."""
        return self.model_dump(exclude={"preset", *(() if self.steps else ("steps",))})


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "mini": {"hidden": 64, "layers": 2, "updates": 1500},
    "smoke": {"updates": 150, "hidden": 48, "layers": 2},
    "small": {"hidden": 256, "layers": 6, "heads": 8, "updates": 6000, "batch": 256, "learning_rate": 2e-3},
    "large": {
        "hidden": 512, "layers": 8, "heads": 8, "updates": 2500, "batch": 512, "learning_rate": 1e-3,
        "operands": 4, "largest_number": 12, "steps": True, "entities": 18_000, "target_items": 1000,
    },
}  # fmt: skip
"""Sizes by name: `lab/tiny` is the default, `lab/mini` a size below, `lab/smoke` for tests; `lab/small` and `lab/large`
want an accelerator. `lab/large` has 43 million parameters, countdown with four numbers in visible steps, and forty times
as many entities, so that rare ones are still half known after so much more training."""


def lab_spec(preset: str, **dials: Any) -> LabSpec:
    """The spec of `lab/<preset>` with some dials turned. Raises KeyError for an unknown preset."""
    return LabSpec(preset=preset, **{**PRESETS[preset], **dials})
