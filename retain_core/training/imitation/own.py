"""SFT on the model's own right answers, once or again and again."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from datasets import Dataset

from retain_core.arms import ArmSpec
from retain_core.errors import RetainError
from retain_core.passes import tokens_at_once
from retain_core.training import ranks
from retain_core.training.encode import encode_exchanges, encode_prompts, loss_per_token
from retain_core.training.frozen import FrozenBase
from retain_core.training.imitation.trainer import ImitationTrainer, Row, extras, settings
from retain_core.training.record import TrainingRecord
from retain_core.training.rewards import judged
from retain_core.training.rollouts.policy import Rollouts, rollouts_of
from retain_core.training.sampling import as_answers, sample_answers
from retain_core.training.stream import Stream
from retain_core.training.target import Problem, Target

SMALL_POOL = 8
"""How often a small pool is gone through."""
MOST_ROUNDS = 8
"""How often sampling is repeated before what was right has to do."""


class SelfSamplingTrainer(ImitationTrainer):
    """SFT on the model's own right answers, drawn anew every `staleness` updates.

    One refresh at the start is Self-SFT, several are Iterative-SFT: the loss is the same, only the age of the samples
    differs. A refresh samples fresh problems, `oversample` for each answer that it needs, until it has these or
    `MOST_ROUNDS` times as many samples; the right answers make the pool, and batches are drawn from it in random order,
    starting over only when it is used up. A small pool needs an eighth and keeps no more. The training data set only
    counts the updates.
    """

    def __init__(
        self, *args: Any, target: Target, dials: dict[str, Any], staleness: int, sampling_seed: int,
        rollouts: Rollouts | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(*args, **kwargs)
        self._rollouts = rollouts
        self._problems, self._longest = Stream(target.problems(sampling_seed)), target.longest_answer
        self._dials, self._staleness = dials, staleness
        self._order = random.Random(f"pool {sampling_seed}")
        self._pool: list[tuple[str, Row]] = []
        self._queue: list[int] = []
        """Positions in the pool, the next one last."""
        self.prompts_trained: set[str] = set()
        self.style_distance: float | None = None
        """The base's loss on the first pool, in nats per token."""
        self.tokens_generated = 0

    def resume_state(self) -> dict[str, Any]:
        """Beside that of the family: the pool, what is left of it, and where fresh problems go on."""
        return super().resume_state() | {
            "problems": self._problems.taken, "order": self._order.getstate(), "pool": self._pool, "queue": self._queue,
            "prompts_trained": sorted(self.prompts_trained), "style_distance": self.style_distance,
            "tokens_generated": self.tokens_generated,
        }  # fmt: skip

    def resume_from(self, state: dict[str, Any]) -> None:
        """Go on from what `resume_state` gave."""
        super().resume_from(state)
        self._problems.skip(state["problems"])
        self._order.setstate(state["order"])
        self._pool, self._queue = state["pool"], state["queue"]
        self.prompts_trained, self.style_distance = set(state["prompts_trained"]), state["style_distance"]
        self.tokens_generated = state["tokens_generated"]

    def target_rows(self, rows: list[Row]) -> list[Row]:
        """As many rows of the pool as the data loader counted."""
        if self.state.global_step % self._staleness == 0:
            self._refresh()
        return [self._draw() for _ in rows]

    def _refresh(self) -> None:
        updates = min(self._staleness, self.args.max_steps - self.state.global_step)
        wanted = updates * self.args.train_batch_size * ranks.count()
        small = self._dials.get("pool") == "small"
        if small:
            wanted = -(-wanted // SMALL_POOL)
        right: list[tuple[str, str]] = []
        sampled = 0
        for _ in range(MOST_ROUNDS):
            problems = [next(self._problems) for _ in range(wanted * self._dials["oversample"])]
            right += self._right(problems)
            sampled += len(problems)
            if not right:
                raise RetainError(
                    f"none of {sampled} sampled answers was right, so there is nothing to train on: "
                    "the base has too little support on the target"
                )
            if len(right) >= wanted:
                break
        rate = len(right) / sampled
        right = right[:wanted] if small else right
        rows = encode_exchanges(self.processing_class, right)
        if self.style_distance is None:
            self.style_distance = loss_per_token(self.model, rows, self.processing_class.pad_token_id)
        self._pool = [(prompt, row) for (prompt, _), row in zip(right, rows, strict=True)]
        self._queue = []
        gap = self._rollouts.gap if self._rollouts else {}
        self.log({"pool": float(len(right)), "reward": rate, **gap})

    def _right(self, problems: list[Problem]) -> list[tuple[str, str]]:
        answers = self._answers([p.prompt for p in problems])
        self.tokens_generated += sum(tokens for _, _, tokens in answers)
        right = judged(problems, [(text, finished) for text, finished, _ in answers])
        return [(problem.prompt, text) for problem, (text, *_), kept in zip(problems, answers, right, strict=True) if kept]

    def _answers(self, prompts: list[str]) -> list[tuple[str, bool, int]]:
        tokenizer, temperature = self.processing_class, self._dials["temperature"]
        if self._rollouts is None:
            return sample_answers(
                self.model, tokenizer, prompts,
                temperature=temperature, max_new_tokens=self._longest, at_once=tokens_at_once(self.model.config),
            )  # fmt: skip
        rows = self._rollouts.sample(
            self.model, encode_prompts(tokenizer, prompts), update=self.state.global_step, temperature=temperature,
            longest=self._longest, bf16=self.args.bf16,
        )  # fmt: skip
        return as_answers(tokenizer, rows)

    def _draw(self) -> Row:
        if not self._queue:
            self._queue = self._order.sample(range(len(self._pool)), len(self._pool))
        prompt, row = self._pool[self._queue.pop()]
        self.prompts_trained.add(prompt)
        return row


def own_answers_trainer(spec: ArmSpec, path: Path, tokenizer: Any, target: Target, common: dict[str, Any]) -> Any:
    """(trainer, what it counted when it is done) for SFT on the model's own right answers."""
    base = FrozenBase(path, tokenizer, target.longest_answer, spec.size.base_in_bf16(common["precise"]))
    added = extras(spec, base, tokenizer, target)
    seed, counted = spec.seed or 0, spec.updates * (spec.sequences_per_update - added.replayed)
    placeholder = {"input_ids": [tokenizer.eos_token_id], "labels": [tokenizer.eos_token_id]}
    trainer = SelfSamplingTrainer(
        **settings(spec, path, tokenizer, added, common, "random"),
        train_dataset=Dataset.from_list([placeholder] * counted), target=target, dials=spec.config,
        staleness=spec.config.get("staleness", spec.updates), sampling_seed=seed,
        rollouts=rollouts_of(spec, tokenizer, common["out"], next(target.problems(seed)).prompt),
    )  # fmt: skip

    def count(done: SelfSamplingTrainer) -> TrainingRecord:
        sequences, unique = spec.updates * spec.sequences_per_update, len(done.prompts_trained)
        generated = done.tokens_generated + base.tokens
        return TrainingRecord(spec.updates, sequences, unique, done.tokens_trained, generated, done.style_distance)

    return trainer, count
