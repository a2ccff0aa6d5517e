"""Sampling answers from a model, and keeping the right ones."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from retain_core.passes import groups
from retain_core.training import ranks
from retain_core.training.encode import encode_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SAMPLING_BATCH = 512


def sample_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    temperature: float,
    max_new_tokens: int,
    at_once: int | None = None,
) -> list[tuple[str, bool, int]]:
    """One sampled answer a prompt: (text, finished by itself, tokens with the stop token)."""
    rows = sample_ids(model, tokenizer, prompts, temperature=temperature, max_new_tokens=max_new_tokens, at_once=at_once)
    return as_answers(tokenizer, rows)


def as_answers(tokenizer: PreTrainedTokenizerBase, rows: Sequence[list[int]]) -> list[tuple[str, bool, int]]:
    """Answers in token ids as (text, finished by itself, tokens with the stop token)."""
    texts = tokenizer.batch_decode(rows, skip_special_tokens=True)
    return [(text, row[-1] == tokenizer.eos_token_id, len(row)) for text, row in zip(texts, rows, strict=True)]


def sample_ids(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    temperature: float,
    max_new_tokens: int,
    at_once: int | None = None,
) -> list[list[int]]:
    """One sampled answer a prompt as token ids, the stop token last unless the answer was cut.

    No truncation of the distribution, and none of what a model's own generation_config.json asks for (Qwen2.5 ships with a
    repetition penalty). Draws from torch's global random stream; the model's training mode is left as it was found.
    Processes that train together each sample their share, and all get every answer. `at_once` is how many tokens, prompts
    and answers together, a pass holds at most (`retain_core.passes`): other batches draw other answers.
    """
    import torch

    was_training, stop = model.training, tokenizer.eos_token_id
    model.eval()
    answers: list[list[int]] = []
    encoded = encode_prompts(tokenizer, prompts)
    with torch.no_grad():
        for part in groups([len(ids) + max_new_tokens for ids in encoded], SAMPLING_BATCH, at_once):
            asked = encoded[part]
            own = ranks.share(asked) if len(asked) >= ranks.count() else asked
            batch = tokenizer.pad({"input_ids": own}, padding_side="left", return_tensors="pt").to(model.device)
            with ranks.drawing_for_all(len(asked)) if own is not asked else contextlib.nullcontext():
                generated: Any = model.generate(
                    **batch, do_sample=True, temperature=temperature, top_k=0, top_p=1.0, repetition_penalty=1.0,
                    max_new_tokens=max_new_tokens, pad_token_id=tokenizer.pad_token_id, eos_token_id=stop,
                )  # fmt: skip
            rows = [
                row[: row.index(stop) + 1] if stop in row else row
                for row in generated[:, batch["input_ids"].shape[1] :].tolist()
            ]
            answers += ranks.whole(rows) if own is not asked else rows
    model.train(was_training)
    return answers
