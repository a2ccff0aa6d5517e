"""The user's own training method: a function that builds a trainer.

    def build(spec, base, tokenizer, target, common) -> (trainer, count)

It is called in the arm's own process, after `transformers.set_seed(spec.seed)`. See docs/extend.md for one in forty lines.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from retain_core.errors import RetainError
from retain_core.own.files import Code
from retain_core.training.size import TrainingSize

if TYPE_CHECKING:
    from retain_core.arms import ArmSpec
    from retain_core.training.record import TrainingRecord
    from retain_core.training.target import Target

METHODS = "retain.methods"
"""The group of entry points in which installed packages offer methods."""


class Common(TypedDict):
    """What every method shares; `retain_core.training.configs.sft_config(**common)` and its siblings take it as it is."""

    out: Path
    """A folder for the trainer's own files; it is deleted afterwards."""
    learning_rate: float
    seed: int
    updates: int
    """Optimizer steps, neither more nor fewer: checkpoints are taken after some of them."""
    batch: int
    """Sequences of an update, over all devices."""
    precise: bool
    """Float32 on the CPU; False: a GPU is at hand, train in bfloat16."""
    optimizer: str
    """`adam` or `sgd`."""
    size: TrainingSize
    """Precision, micro-batches and what else the study says of the machine (`training:`)."""


class Builder(Protocol):
    """What `trainer: module:function` names."""

    def __call__(self, spec: ArmSpec, base: Path, tokenizer: Any, target: Target, common: Common) -> tuple[Any, Counter]:
        """A trainer that is ready to train, and what counts its work when it has.

        Args:
            spec: The arm. `spec.config["options"]` is what the study says under `options`, `spec.seed` its seed.
            base: Folder of the base model; training starts from its weights.
            tokenizer: The base's tokenizer, with its chat template.
            target: Problems with their verifier, the expert's answers, and text of the other skills.
            common: What all methods of the study share.

        Returns:
            (trainer, count): a `transformers.Trainer`, or one of TRL's, and a function of the trained trainer that says what
            was spent. Randomness must come from `spec.seed` alone, or running again gives other weights. A trainer that keeps
            more from one update to the next than those of transformers and TRL has `resume_state()`, which returns it as
            plain values and tensors, and `resume_from(state)`.

        Raises:
            RetainError: There is nothing to train on; the arm fails with this sentence, the others go on.
        """


Counter = Callable[[Any], "TrainingRecord"]
"""From the trainer after training to updates, sequences, prompts and tokens (`retain_core.training.record`)."""


def build_trainer(code: Code, spec: ArmSpec, base: Path, tokenizer: Any, target: Target, common: Common) -> tuple[Any, Counter]:
    """Call the user's function. Raises RetainError when it gives something else than a trainer and a counter."""
    built = code.load()(spec, base, tokenizer, target, common)
    if not (isinstance(built, tuple) and len(built) == 2 and hasattr(built[0], "train") and callable(built[1])):
        raise RetainError(f"{code.module}:{code.function} returned no pair of a trainer and a function that counts")
    return built
