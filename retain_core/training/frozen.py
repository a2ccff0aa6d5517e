"""The untouched base beside the model that is trained: what it samples and what it finds likely."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from retain_core.passes import groups, read, tokens_at_once
from retain_core.training.encode import IGNORED, encode_exchanges, padded
from retain_core.training.held import frozen_base, reading
from retain_core.training.notes import drawn_once
from retain_core.training.policy.build import base_answers
from retain_core.training.sampling import sample_answers
from retain_core.training.target import Exchange, Target

SCORING_BATCH = 512


class FrozenBase:
    """The base model of an arm, loaded when it is first needed; nothing here changes it."""

    def __init__(self, path: Path, tokenizer: Any, longest_answer: int, bf16: bool = False) -> None:
        """`bf16`: it is held in bf16 (`retain_core.training.held`)."""
        self.tokens = 0
        """How many tokens were sampled from it."""
        self._path, self._tokenizer, self._longest, self._bf16 = path, tokenizer, longest_answer, bf16

    @cached_property
    def model(self) -> Any:
        """The model, where the training runs; ask it in `reading`."""
        return frozen_base(self._path, self._bf16)

    @cached_property
    def _at_once(self) -> int | None:
        return tokens_at_once(self.model.config)

    def sample(self, prompts: Sequence[str], temperature: float) -> list[tuple[str, bool]]:
        """One sampled answer a prompt: (text, whether it ended by itself)."""
        answers = drawn_once(lambda: self._sampled(prompts, temperature))
        self.tokens += sum(tokens for _, _, tokens in answers)
        return [(text, finished) for text, finished, _ in answers]

    def _sampled(self, prompts: Sequence[str], temperature: float) -> list[tuple[str, bool, int]]:
        with reading(self.model):
            return sample_answers(
                self.model, self._tokenizer, prompts, temperature=temperature, max_new_tokens=self._longest,
                at_once=self._at_once,
            )  # fmt: skip

    def on_retention(self, target: Target, seed: int, count: int) -> list[dict[str, list[int]]]:
        """Training rows: its own answers to `count` training prompts of the retention skills."""
        rows = base_answers(lambda: self.model, self._tokenizer, target, seed, count)
        self.tokens += labelled(rows)
        return rows

    def log_likelihoods(self, exchanges: Sequence[Exchange]) -> list[float]:
        """The log of P(answer and stop token | prompt), in nats, of each exchange."""
        return drawn_once(lambda: self._log_likelihoods(exchanges))

    def _log_likelihoods(self, exchanges: Sequence[Exchange]) -> list[float]:
        found: list[float] = []
        rows, whole = encode_exchanges(self._tokenizer, exchanges), self._at_once is None
        with torch.no_grad(), reading(self.model):
            for some in groups([len(row["input_ids"]) for row in rows], SCORING_BATCH, self._at_once):
                ids, labels, mask = (p.to(self.model.device) for p in padded(rows[some], self._tokenizer.pad_token_id))
                text = read(self.model, ids, whole, attention_mask=mask)
                wanted = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
                taken = torch.cat([_taken(text.logits(part), wanted[:, part]) for part in text.stretches(whole)], dim=1)
                found += taken.masked_fill(wanted == IGNORED, 0)[:, :-1].double().sum(-1).tolist()
        return found


def _taken(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The log of the probability of each token that is wanted."""
    return logits.float().log_softmax(-1).gather(-1, wanted.clamp(min=0)[..., None])[..., 0]


def labelled(rows: Sequence[dict[str, list[int]]]) -> int:
    """How many tokens of these rows carry loss."""
    return sum(label != IGNORED for row in rows for label in row["labels"])
