"""Methods that imitate text: an expert's, or the model's own right answers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import SFTTrainer

from retain_core.arms import ArmSpec
from retain_core.errors import RetainError
from retain_core.evaluation.benchmarks import MAX_LENGTH
from retain_core.training import configs
from retain_core.training.encode import IGNORED, encode_exchanges, loss_per_token
from retain_core.training.record import TrainingRecord
from retain_core.training.sampling import sample_answers
from retain_core.training.target import MAX_NEW_TOKENS, CountdownTarget, Problem


class SelfSamplingSFTTrainer(SFTTrainer):  # type: ignore[misc]
    """SFT on the model's own right answers, drawn anew at the updates in `refreshes`.

    One refresh at the start is Self-SFT, several are Iterative-SFT: the loss is the same, only the
    age of the samples differs. Each refresh samples `samples_per_refresh` fresh prompts once; the
    right answers make the pool, and batches are drawn from it in random order, starting over when
    it is used up. The training data set only counts the updates.
    """

    def __init__(
        self,
        *args: Any,
        problems: Iterator[Problem],
        refreshes: set[int],
        samples_per_refresh: int,
        temperature: float,
        max_new_tokens: int,
        sampling_seed: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._problems = problems
        self._refreshes = refreshes
        self._samples_per_refresh = samples_per_refresh
        self._temperature, self._max_new_tokens = temperature, max_new_tokens
        self._order = random.Random(f"pool {sampling_seed}")
        self._pool: list[tuple[str, dict[str, list[int]]]] = []
        self._queue: list[tuple[str, dict[str, list[int]]]] = []
        self.prompts_trained: set[str] = set()
        self.style_distance: float | None = None
        """The base's loss on the first pool, in nats per token."""
        self.tokens_generated = 0
        self.tokens_trained = 0

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """Batches from the pool in place of the data loader's, and how many tokens carry loss in them."""
        placeholders, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.state.global_step in self._refreshes:
            self._refresh()
        batches = [self.data_collator([self._draw() for _ in range(self.args.train_batch_size)]) for _ in placeholders]
        trained = sum(int((batch["labels"] != IGNORED).sum()) for batch in batches)
        self.tokens_trained += trained
        return batches, torch.tensor(trained, device=device)

    def _refresh(self) -> None:
        problems = [next(self._problems) for _ in range(self._samples_per_refresh)]
        answers = sample_answers(
            self.model,
            self.processing_class,
            [p.prompt for p in problems],
            temperature=self._temperature,
            max_new_tokens=self._max_new_tokens,
        )
        right = [
            (problem.prompt, text)
            for problem, (text, finished, _) in zip(problems, answers, strict=True)
            if finished and problem.right(text)
        ]
        if not right:
            raise RetainError(
                f"none of {len(problems)} sampled answers was right, so there is nothing to train on: "
                "the base has too little support on the target"
            )
        self.tokens_generated += sum(tokens for _, _, tokens in answers)
        rows = encode_exchanges(self.processing_class, right)
        if self.style_distance is None:
            self.style_distance = loss_per_token(self.model, rows, self.processing_class.pad_token_id)
        self._pool = [(prompt, row) for (prompt, _), row in zip(right, rows, strict=True)]
        self._queue = []
        self.log({"pool": float(len(right)), "reward": len(right) / len(problems)})

    def _draw(self) -> dict[str, list[int]]:
        if not self._queue:
            self._queue = self._order.sample(self._pool, len(self._pool))
        prompt, row = self._queue.pop()
        self.prompts_trained.add(prompt)
        return row


def expert_trainer(spec: ArmSpec, base: Path, tokenizer: Any, target: CountdownTarget, common: dict[str, Any]) -> Any:
    """(trainer, what it counted) for SFT on an expert's text."""
    sequences = spec.updates * spec.sequences_per_update
    exchanges = target.expert(spec.config, seed=spec.seed or 0, count=sequences)
    rows = encode_exchanges(tokenizer, exchanges)
    trainer = SFTTrainer(
        model=str(base), args=configs.sft_config(max_length=MAX_LENGTH, **common), processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
    )  # fmt: skip
    trained = sum(label != IGNORED for row in rows for label in row["labels"])
    unique = len({prompt for prompt, _ in exchanges})
    style = loss_per_token(trainer.model, rows, tokenizer.pad_token_id)
    return trainer, lambda _: TrainingRecord(spec.updates, sequences, unique, trained, 0, style)


def own_answers_trainer(spec: ArmSpec, base: Path, tokenizer: Any, target: CountdownTarget, common: dict[str, Any]) -> Any:
    """(trainer, what it counted) for SFT on the model's own right answers."""
    rounds = spec.config.get("rounds", 1)
    refreshes = {round(i * spec.updates / rounds) for i in range(rounds)}
    longest_round = -(-spec.updates // rounds)
    sequences = spec.updates * spec.sequences_per_update
    placeholder = {"input_ids": [tokenizer.eos_token_id], "labels": [tokenizer.eos_token_id]}
    trainer = SelfSamplingSFTTrainer(
        model=str(base), args=configs.sft_config(max_length=MAX_LENGTH, **common), processing_class=tokenizer,
        train_dataset=Dataset.from_list([placeholder] * sequences), problems=target.problems(spec.seed or 0),
        refreshes=refreshes,
        samples_per_refresh=longest_round * spec.sequences_per_update * spec.config["oversample"],
        temperature=spec.config["temperature"], max_new_tokens=MAX_NEW_TOKENS, sampling_seed=spec.seed or 0,
    )  # fmt: skip

    def count(done: SelfSamplingSFTTrainer) -> TrainingRecord:
        unique = len(done.prompts_trained)
        return TrainingRecord(spec.updates, sequences, unique, done.tokens_trained, done.tokens_generated, done.style_distance)

    return trainer, count
