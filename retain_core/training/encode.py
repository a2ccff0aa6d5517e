"""Turning exchanges into token ids through the model's own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token that carries no loss."""


def user_turn(prompt: str) -> list[dict[str, str]]:
    """A prompt as a conversation of one message."""
    return [{"role": "user", "content": prompt}]


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of each prompt, ending where the assistant's answer begins."""
    return _ids(tokenizer, [user_turn(p) for p in prompts], add_generation_prompt=True)


def encode_exchanges(tokenizer: PreTrainedTokenizerBase, exchanges: Sequence[tuple[str, str]]) -> list[dict[str, list[int]]]:
    """`input_ids` and `labels` of each (prompt, answer); only the answer and its stop token carry loss.

    Raises ValueError when the template does not render the prompt as a prefix, or when the stop
    token is missing at the end (the model would never learn to stop).
    """
    prompts = encode_prompts(tokenizer, [p for p, _ in exchanges])
    conversations = [[*user_turn(p), {"role": "assistant", "content": a}] for p, a in exchanges]
    rows = []
    for prompt, full in zip(prompts, _ids(tokenizer, conversations, add_generation_prompt=False), strict=True):
        if full[: len(prompt)] != prompt:
            raise ValueError("the chat template renders a prompt differently when an answer follows it")
        if tokenizer.eos_token_id not in full[len(prompt) :]:
            raise ValueError("the chat template does not end an answer with the stop token")
        rows.append({"input_ids": full, "labels": [IGNORED] * len(prompt) + full[len(prompt) :]})
    return rows


def _ids(tokenizer: PreTrainedTokenizerBase, conversations: list[list[dict[str, str]]], **options: Any) -> list[list[int]]:
    rendered = tokenizer.apply_chat_template(conversations, tokenize=False, **options)
    encoded = tokenizer(rendered, add_special_tokens=False)
    return [list(ids) for ids in encoded["input_ids"]]
