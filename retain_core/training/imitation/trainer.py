"""TRL's SFT trainer with what may stand beside the text's likelihood: replay, masked sequences, a KL penalty to the base."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import torch
from trl import SFTTrainer

from retain_core.arms import ArmSpec
from retain_core.errors import RetainError
from retain_core.training import configs
from retain_core.training.adapters import adapters
from retain_core.training.encode import IGNORED, encode_exchanges
from retain_core.training.frozen import FrozenBase, labelled
from retain_core.training.kl import Estimator, kl_on_text
from retain_core.training.size import TrainingSize, compile_layers
from retain_core.training.stream import Stream
from retain_core.training.target import Exchange, Target

Row = dict[str, list[int]]
ENCODED_AT_ONCE = 256
OWN_ANSWERS = 4096
"""Most answers that are sampled from the base for replay; they start over when used up."""


@dataclass
class Extras:
    """What is done to every batch of text."""

    replayed: int
    """Sequences of each batch that are replay."""
    replay: Stream[Row]
    useful_share: float
    kl: float
    estimator: Estimator
    base: Any
    """The frozen base of the KL penalty; None where `kl` is 0."""
    retention: Stream[Row] | None
    """Where the penalty is taken; None: on the target's text of the batch."""
    seed: int
    size: TrainingSize


class ImitationTrainer(SFTTrainer):  # type: ignore[misc]
    """SFT whose batches are target text, then replay.

    The loss is summed over the answer tokens of the sequences that carry gradient, a random `useful_share` of each
    batch, and divided by those of all: leaving some out makes the update smaller, as samples without advantage do in
    RL. `kl` times `kl_penalty` against the base is added; it sees every sequence.

    Where the size says so, the rows of a batch go through the model in micro-batches, those of like length together. Each
    part is divided by what the whole batch is divided by, so the update is the same but for rounding.
    """

    def __init__(self, *args: Any, extras: Extras, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.extras = extras
        self.tokens_trained = 0
        """Tokens that carried gradient."""
        self._collate: Any = self.data_collator
        self.data_collator: Any = list
        self._masked = random.Random(f"useful {extras.seed}")
        if extras.size.compile:
            compile_layers(self.model)

    def resume_state(self) -> dict[str, Any]:
        """What the method knows beside what every trainer does."""
        retention = self.extras.retention
        return {
            "tokens_trained": self.tokens_trained, "masked": self._masked.getstate(), "replay": self.extras.replay.taken,
            "retention": retention.taken if retention else 0,
        }  # fmt: skip

    def resume_from(self, state: dict[str, Any]) -> None:
        """Go on from what `resume_state` gave, on streams of which nothing was taken yet."""
        self.tokens_trained = state["tokens_trained"]
        self._masked.setstate(state["masked"])
        self.extras.replay.skip(state["replay"])
        if self.extras.retention:
            self.extras.retention.skip(state["retention"])

    def target_rows(self, rows: list[Row]) -> list[Row]:
        """The target text of a batch, given what the data loader holds for it."""
        return rows

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """Batches of rows, and how many answer tokens the loss is divided by."""
        loaded, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        batches, tokens = [], 0
        for rows in loaded:
            batch, counted = self._batch(self.target_rows(rows))
            batches.append(batch)
            tokens += counted
        return batches, torch.tensor(tokens, device=device)

    def _batch(self, target: list[Row]) -> tuple[dict[str, Any], int]:
        extras = self.extras
        rows = target + list(islice(extras.replay, extras.replayed))
        counted = labelled(rows)
        along: list[Row] = []
        if extras.base is not None:
            along = target if extras.retention is None else list(islice(extras.retention, len(rows)))
        useful = max(1, round(extras.useful_share * len(rows)))
        if useful < len(rows):
            for place in self._masked.sample(range(len(rows)), len(rows) - useful):
                rows[place] = {**rows[place], "labels": [IGNORED] * len(rows[place]["labels"])}
        self.tokens_trained += labelled(rows)
        micro = extras.size.micro_batch or len(rows)
        if micro >= len(rows):
            return self._part(rows, along, 1.0), counted
        rows, along = _by_length(rows), _by_length(along)
        starts = range(0, len(rows), micro)
        parts = [(rows[start : start + micro], along[start : start + micro]) for start in starts]
        return {"parts": [self._part(some, text, len(text) / len(along) if text else 0.0) for some, text in parts]}, counted

    def _part(self, rows: list[Row], along: list[Row], share: float) -> dict[str, Any]:
        """Rows that go through the model together, and the text of their penalty with its share of the batch's."""
        part: dict[str, Any] = self._collate(rows)
        return part | ({"penalised": {**self._collate(along), "share": share}} if along else {})

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """The gradient of a batch, part by part where it has parts; returns its loss."""
        parts = inputs.get("parts", [inputs])
        losses = [super(ImitationTrainer, self).training_step(model, part, num_items_in_batch) for part in parts]
        return torch.stack(losses).sum() if len(losses) > 1 else losses[0]

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """What transformers counts for its own record, over all parts."""
        return sum(int(super(ImitationTrainer, self).floating_point_ops(part)) for part in inputs.get("parts", [inputs]))

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """TRL's loss of the text, plus the penalty where there is one (logged as `kl`)."""
        text = inputs.pop("penalised", None)
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if text is None:
            return loss
        penalty = kl_on_text(
            model, self.extras.base, text["input_ids"], text["attention_mask"], text["labels"], self.extras.estimator
        )
        self._metrics["train"]["kl"].append(penalty.item())
        return loss + self.extras.kl * text["share"] * penalty


def extras(spec: ArmSpec, base: FrozenBase, tokenizer: Any, target: Target) -> Extras:
    """What an arm's dials ask for beside the text. Raises RetainError when replay leaves no room for the target."""
    dials, seed, size = spec.config, spec.seed or 0, spec.sequences_per_update
    replayed = round(dials["replay"] * size)
    if replayed == size:
        raise RetainError(f"replay {dials['replay']:g} of {size} sequences leaves none for the target")
    replay: Iterator[Row] = iter(())
    if replayed and dials["replay_source"] == "own":
        replay = cycle(base.on_retention(target, seed, min(OWN_ANSWERS, replayed * spec.updates)))
    elif replayed:
        replay = _encoded(tokenizer, target.retention(seed))
    retention = None
    if dials["kl"] and dials["kl_prompts"] == "retention":
        retention = Stream(base.on_retention(target, seed, spec.updates * size))
    return Extras(
        replayed, Stream(replay), dials["useful_share"], dials["kl"], dials["kl_estimator"],
        base.model if dials["kl"] else None, retention, seed, spec.size,
    )  # fmt: skip


def settings(spec: ArmSpec, base: Any, tokenizer: Any, added: Extras, common: dict[str, Any], order: str) -> dict[str, Any]:
    """What every trainer of the family is built from, but its data set of `updates` batches without the replay."""
    sized = {**common, "batch": common["batch"] - added.replayed}
    return {
        "model": str(base), "args": configs.sft_config(spec.config["loss"], order, **sized),
        "processing_class": tokenizer, "peft_config": adapters(spec.config), "extras": added,
    }  # fmt: skip


def _by_length(rows: list[Row]) -> list[Row]:
    """The longest first: what does not fit fails at the first update, and a part has little padding."""
    return sorted(rows, key=lambda row: -len(row["input_ids"]))


def _encoded(tokenizer: Any, exchanges: Iterator[Exchange]) -> Iterator[Row]:
    while True:
        yield from encode_exchanges(tokenizer, list(islice(exchanges, ENCODED_AT_ONCE)))
