"""Which accelerators a study's trainings fit on, with which micro-batch, and about how long they take there.

From the shape of the base and the longest sequence alone, before anything runs. SFT is measured against it by
`benchmarks/accelerator.py`; what other methods keep beside is added up from their parts.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retain_core.devices import visible
from retain_core.errors import InputError
from retain_core.training.memory import TRAINED, Shape, evaluation_peak, penalty_bytes, training_flops, training_peak
from retain_core.training.size import TrainingSize

if TYPE_CHECKING:
    from retain_core.arms import ArmSpec
    from retain_core.evaluation.size import EvaluationSize

GB = 10**9
USABLE = 0.92
"""Share of a card that a training may take: the driver, the context and what is lost between blocks want the rest."""
REACHED = 0.4
"""Share of a card's rate that training reaches at least (docs/results.md has what was measured)."""


class Card(NamedTuple):
    """An accelerator as its maker describes it."""

    name: str
    memory: int
    """Bytes."""
    rate: float
    """Products of bf16 matrices, dense, in operations a second."""


CARDS = (
    Card("24 GB (L4, A10, RTX 4090)", 24 * GB, 1.2e14), Card("48 GB (L40S, RTX 6000)", 48 * GB, 3.6e14),
    Card("80 GB (A100)", 80 * GB, 3.1e14), Card("80 GB (H100)", 80 * GB, 9.9e14), Card("141 GB (H200)", 141 * GB, 9.9e14),
)  # fmt: skip


class Demand(NamedTuple):
    """What the trainings of a study ask of a card."""

    shape: Shape
    longest: int
    """Tokens of the longest sequence, prompt and answer together."""
    arms: tuple[ArmSpec, ...]
    """One per method that is trained."""

    def peak(self, size: TrainingSize) -> tuple[int, str]:
        """Bytes that the largest training takes at its peak, and which method that is."""
        return max((peak(self.shape, size, self.longest, arm), arm.method) for arm in self.arms)

    @property
    def evaluation(self) -> int:
        """Bytes that an evaluation takes at its peak, no sequence being longer than those that are trained on."""
        return evaluation_peak(self.shape, self.arms[0].evaluation, self.longest)


def demand_of(specs: Iterable[ArmSpec]) -> Demand | None:
    """What arms of one base ask of a card; None for the lab's bases, which fit on any. Reads the base's tokenizer."""
    arms = {spec.method: spec for spec in specs if spec.trained}
    spec = next(iter(arms.values()), None)
    if spec is None or spec.base.lab is not None:
        return None
    return Demand(shape_of(Path(spec.base.model)), longest_sequence(spec, Path(spec.base.model)), tuple(arms.values()))


def shape_of(folder: Path) -> Shape:
    """The shape of the model in a folder."""
    from transformers import AutoConfig

    return Shape.of(AutoConfig.from_pretrained(folder))


def longest_sequence(spec: ArmSpec, base: Path) -> int:
    """Tokens of the longest training prompt with the longest answer to it that is sampled or imitated."""
    from retain_core.own.target import longest_answer
    from retain_core.training.encode import encode_prompts, read_tokenizer
    from retain_core.training.target import target_of

    tokenizer = read_tokenizer(base)
    if spec.own_target is None:
        return 2 * target_of(spec, tokenizer).longest_answer  # the lab's problems are shorter than their answers
    prompts = [str(row["prompt"]) for _, row in spec.own_target.rows("train")]
    return max(map(len, encode_prompts(tokenizer, prompts))) + longest_answer(spec.own_target, tokenizer)


def peak(shape: Shape, size: TrainingSize, longest: int, arm: ArmSpec) -> int:
    """Bytes that the training of an arm takes at its peak."""
    dials = arm.config
    batch = arm.sequences_per_update // arm.processes
    rows = min(size.micro_batch or batch, batch)
    pairs = dials["algorithm"] in ("dpo", "simpo")
    compared = bool(dials.get("kl")) or dials["algorithm"] == "dpo"
    own = "reward" in dials and arm.size.rollouts is None  # else a server's card holds what samples
    # FSDP and ZeRO 3 divide all of it among the processes, ZeRO 2 all but the weights.
    kept = {"ddp": TRAINED, "zero2": 4}.get(arm.parallel, 0)
    held = int(shape.parameters * (kept + (TRAINED - kept) / arm.processes))
    halved = size.base_in_bf16(precise=False) and dials["algorithm"] != "dpo"  # whose reference is TRL's, in fp32
    extra = (2 if halved else 4) * shape.parameters if compared else 0
    if dials.get("kl"):
        extra += penalty_bytes(shape.vocabulary, rows * longest)
    if own and arm.processes == 1:
        extra += 2 * shape.parameters  # the copy in bf16 that samples
    if dials["algorithm"] == "ppo":
        extra += held + rows * longest * 4 * shape.hidden * shape.layers  # a critic of the base's size
    trained = training_peak(shape, size, rows * (2 if pairs else 1), longest)
    trained += held - TRAINED * shape.parameters
    if dials.get("lora_rank"):
        trained -= (TRAINED - 4) * shape.parameters // arm.processes  # no gradients or moments of the base's own weights
    if not own:
        return trained + extra
    cache = 4 * shape.keys * shape.layers * longest * batch  # keys and values of all samples at once, in bf16
    return max(trained + extra, held + extra + cache)


def fitted(demand: Demand, memory: int, size: TrainingSize) -> TrainingSize | None:
    """The largest micro-batch, a power of two, with which every training fits, recomputing only where it must; None: none."""
    batch = min(arm.sequences_per_update // arm.processes for arm in demand.arms)
    for recompute in [True] if size.activation_checkpointing else [False, True]:
        for micro in (2**k for k in range(batch.bit_length() - 1, -1, -1)):
            if any(arm.sequences_per_update // arm.processes % micro for arm in demand.arms):
                continue
            tried = size.model_copy(update={"card": None, "micro_batch": micro, "activation_checkpointing": recompute})
            if demand.peak(tried)[0] <= USABLE * memory:
                return tried
    return None


def card_lines(demand: Demand) -> list[str]:
    """For every kind of card whether the study's trainings fit, how, and about how long an arm computes there."""
    lines = [
        f"cards, for {demand.shape.parameters:,} parameters and sequences of up to {demand.longest:,} tokens "
        "(weights in float32, products in bf16):"
    ]
    for card in CARDS:
        size = fitted(demand, card.memory, TrainingSize())
        if size is None:
            needed, method = demand.peak(TrainingSize(micro_batch=1, activation_checkpointing=True))
            lines.append(
                f"  {card.name}: too small, {method} takes {needed / GB:.0f} GB at least; `lora_rank`, or several cards "
                "(`execution: {processes_per_arm: 4, parallel: fsdp}`)"
            )
            continue
        taken, method = demand.peak(size)
        again = ", activation_checkpointing: true" if size.activation_checkpointing else ""
        lines.append(
            f"  {card.name}: `training: {{micro_batch: {size.micro_batch}{again}}}`, {method} takes {taken / GB:.0f} GB; "
            f"about {hours(demand, card):.1f} h of training for an arm, sampling and evaluation apart"
        )
    return [*lines, evaluation_line(demand)]


def evaluation_line(demand: Demand) -> str:
    """What evaluation takes on any card, and on which it is too much."""
    size, taken = demand.arms[0].evaluation, demand.evaluation
    passes = f"passes of up to {size.batch_tokens:,} tokens" if size.batch_tokens else "whole batches"
    small = [card.name for card in CARDS if taken > USABLE * card.memory]
    line = f"  evaluation in {size.dtype}, {passes}: {taken / GB:.0f} GB, checkpoint and base side by side for the KL"
    return line + (f"; too much for {', '.join(small)} ({_smaller_evaluation(size)})" if small else "")


def _smaller_evaluation(size: EvaluationSize) -> str:
    half = "`evaluation: {dtype: bfloat16}`" if size.dtype == "float32" else ""
    fewer = f"`evaluation: {{batch_tokens: {max(1, size.batch_tokens // 4)}}}`" if size.batch_tokens else ""
    return " or ".join(part for part in (half, fewer) if part) or "a smaller model"


def hours(demand: Demand, card: Card) -> float:
    """Hours that the longest training computes for, at `REACHED` of the card's rate."""
    arm = max(demand.arms, key=lambda one: one.all_updates * one.sequences_per_update)
    tokens = arm.all_updates * arm.sequences_per_update * demand.longest
    return training_flops(demand.shape, tokens, tokens, demand.longest) / (REACHED * card.rate) / 3600


def refuse_too_small(demand: Demand, sizes: Iterable[TrainingSize], whole: int, places: int = 1) -> None:
    """Raise InputError where a training or an evaluation takes more than a card has, before any time of it is spent.

    `whole` is the card's memory in bytes, `places` how many arms share it.
    """
    memory = whole // places
    has = f"the accelerator here has {whole / GB:.0f}"
    if places > 1:
        has += f", {memory / GB:.0f} for each of {places} arms (`RETAIN_ARMS_PER_DEVICE`)"
    for size in sizes:
        needed, method = demand.peak(size)
        if needed > memory:
            fits = fitted(demand, memory, size)
            mend = (
                f"set `training: {{micro_batch: {fits.micro_batch}, activation_checkpointing: "
                f"{str(fits.activation_checkpointing).lower()}}}`"
                if fits
                else "train adapters (`lora_rank`) or use several cards (`execution: {processes_per_arm: 4, parallel: fsdp}`)"
            )
            raise InputError(f"{method} takes about {needed / GB:.0f} GB and {has}: {mend}")
    if demand.evaluation > memory:
        raise InputError(
            f"evaluation takes about {demand.evaluation / GB:.0f} GB and {has}: set "
            f"{_smaller_evaluation(demand.arms[0].evaluation)}"
        )


def memory_here() -> int | None:
    """Bytes of the smallest accelerator that this process may use; None without one, or where the driver does not say."""
    if not visible():
        return None
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.split()
        return min(int(mebibytes) for mebibytes in said) * 2**20
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
