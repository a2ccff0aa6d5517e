"""The untouched base beside the model that is trained: what it samples and what it finds likely."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from retain_core.training.encode import IGNORED, encode_exchanges, padded
from retain_core.training.notes import drawn_once
from retain_core.training.policy.build import base_answers, frozen_base
from retain_core.training.sampling import sample_answers
from retain_core.training.target import Exchange, Target

SCORING_BATCH = 512


class FrozenBase:
    """The base model of an arm, loaded when it is first needed; nothing here changes it."""

    def __init__(self, path: Path, tokenizer: Any, longest_answer: int) -> None:
        self.tokens = 0
        """How many tokens were sampled from it."""
        self._path, self._tokenizer, self._longest = path, tokenizer, longest_answer

    @cached_property
    def model(self) -> Any:
        """The model, in float32, where the training runs."""
        return frozen_base(self._path)

    def sample(self, prompts: Sequence[str], temperature: float) -> list[tuple[str, bool]]:
        """One sampled answer a prompt: (text, whether it ended by itself)."""
        answers = drawn_once(
            lambda: sample_answers(self.model, self._tokenizer, prompts, temperature=temperature, max_new_tokens=self._longest)
        )
        self.tokens += sum(tokens for _, _, tokens in answers)
        return [(text, finished) for text, finished, _ in answers]

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
        rows = encode_exchanges(self._tokenizer, exchanges)
        with torch.no_grad():
            for start in range(0, len(rows), SCORING_BATCH):
                batch = padded(rows[start : start + SCORING_BATCH], self._tokenizer.pad_token_id)
                ids, labels, mask = (part.to(self.model.device) for part in batch)
                logits = self.model(input_ids=ids, attention_mask=mask).logits[:, :-1].float().log_softmax(-1)
                wanted = labels[:, 1:]
                taken = logits.gather(-1, wanted.clamp(min=0)[..., None])[..., 0]
                found += taken.masked_fill(wanted == IGNORED, 0).double().sum(-1).tolist()
        return found


def labelled(rows: Sequence[dict[str, list[int]]]) -> int:
    """How many tokens of these rows carry loss."""
    return sum(label != IGNORED for row in rows for label in row["labels"])
