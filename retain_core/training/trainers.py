"""What TRL lacks, as small subclasses of its trainers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import torch
from transformers import TrainerCallback
from trl import GRPOTrainer, SFTTrainer

from retain_core.errors import RetainError
from retain_core.training.encode import IGNORED, encode_exchanges, loss_per_token
from retain_core.training.sampling import sample_answers
from retain_core.training.target import Problem


class ReinforceTrainer(GRPOTrainer):  # type: ignore[misc]
    """REINFORCE: the weight of a sample is its raw reward, with no baseline and no normalisation.

    For rewards of 0 and 1 this is on-policy rejection-sampling SFT (paper, section 2.1).
    """

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        rewards: torch.Tensor = super()._calculate_rewards(*args, **kwargs)
        self._raw_rewards = (rewards * self.reward_weights.to(rewards.device)).nansum(dim=1)
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        scored: dict[str, Any] = super()._generate_and_score_completions(inputs)
        count, process = len(scored["advantages"]), self.accelerator.process_index
        scored["advantages"] = self._raw_rewards[process * count : (process + 1) * count]
        return scored


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


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Keeps the training curve, saves weights at the given updates, and measures the way travelled."""

    MEASURABLE = 100_000_000
    """The path length is summed every update up to this many parameters; above it stays unknown."""

    def __init__(self, model: torch.nn.Module, steps: list[int], save: Any) -> None:
        self.steps, self._save = set(steps), save
        self.curve: list[dict[str, Any]] = []
        self.distances: dict[int, tuple[float, float | None]] = {}
        self._start = _flat(model)
        self._last = self._start.clone() if self._start.numel() <= self.MEASURABLE else None
        self._path = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, model: torch.nn.Module, **kwargs: Any) -> None:
        """After an update: extend the path, and save when this update is one of the checkpoints."""
        due = state.global_step in self.steps
        if self._last is None and not due:
            return
        now = _flat(model)
        if self._last is not None:
            self._path += float((now - self._last).norm())
            self._last = now
        if due:
            path = self._path if self._last is not None else None
            self.distances[state.global_step] = (float((now - self._start).norm()), path)
            self._save(model, state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
        """Every logged number becomes a point of the curve."""
        for name, value in logs.items():
            if isinstance(value, int | float):
                self.curve.append({"step": state.global_step, "name": name, "value": float(value)})


def _flat(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([p.detach().reshape(-1).float() for p in model.parameters()])
