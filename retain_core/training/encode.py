"""Turning exchanges into token ids through the model's own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token that carries no loss."""
STYLE_ROWS, STYLE_BATCH = 512, 128
LOGITS_AT_ONCE = 2**29
"""Most logits (rows x tokens x vocabulary) that are held at once: 2 GiB in fp32."""


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder; the stop token also pads where it brings no padding token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def user_turn(prompt: str) -> list[dict[str, str]]:
    """A prompt as a conversation of one message."""
    return [{"role": "user", "content": prompt}]


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of each prompt, ending where the assistant's answer begins."""
    return _ids(tokenizer, [user_turn(p) for p in prompts], add_generation_prompt=True)


def encode_exchanges(tokenizer: PreTrainedTokenizerBase, exchanges: Sequence[tuple[str, str]]) -> list[dict[str, list[int]]]:
    """`input_ids` and `labels` of each (prompt, answer); only the answer and its stop token carry loss.

    A row ends with the first stop token of its answer: what a template writes behind it (ChatML's line break) is never
    sampled, so it is no part of the answer.

    Raises ValueError when the template does not render the prompt as a prefix, or when the stop
    token is missing at the end (the model would never learn to stop).
    """
    prompts = encode_prompts(tokenizer, [p for p, _ in exchanges])
    conversations = [[*user_turn(p), {"role": "assistant", "content": a}] for p, a in exchanges]
    rows = []
    for prompt, full in zip(prompts, _ids(tokenizer, conversations, add_generation_prompt=False), strict=True):
        if full[: len(prompt)] != prompt:
            raise ValueError("the chat template renders a prompt differently when an answer follows it")
        answer = full[len(prompt) :]
        if tokenizer.eos_token_id not in answer:
            raise ValueError("the chat template does not end an answer with the stop token")
        answer = answer[: answer.index(tokenizer.eos_token_id) + 1]
        rows.append({"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer})
    return rows


def loss_per_token(model: PreTrainedModel, rows: list[dict[str, list[int]]], pad: int) -> float:
    """A model's mean loss on the labelled tokens of the first rows, in nats per token.

    The base's loss on the training text is the style distance: how foreign the text is to it. No
    random stream is touched, and the model's training mode is left as it was found.
    """
    import torch

    was_training, total, count = model.training, 0.0, 0
    chosen = rows[:STYLE_ROWS]
    longest = max(len(row["input_ids"]) for row in chosen)
    batch = max(1, min(STYLE_BATCH, LOGITS_AT_ONCE // (longest * model.config.get_text_config().vocab_size)))
    model.eval()
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=model.device.type == "cuda"):
        for start in range(0, len(chosen), batch):
            ids, labels, mask = padded(chosen[start : start + batch], pad)
            logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits[:, :-1].float()
            wanted = labels[:, 1:].to(logits.device)
            losses = torch.nn.functional.cross_entropy(
                logits.reshape(-1, logits.shape[-1]), wanted.reshape(-1), ignore_index=IGNORED, reduction="sum"
            )
            total, count = total + float(losses), count + int((wanted != IGNORED).sum())
    model.train(was_training)
    return total / count


def padded(rows: list[dict[str, list[int]]], pad: int, multiple: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows padded on the right to a multiple of some number of tokens: (input ids, labels, attention mask)."""
    import torch

    longest = -(-max(len(row["input_ids"]) for row in rows) // multiple) * multiple

    def column(name: str, filler: int) -> torch.Tensor:
        return torch.tensor([row[name] + [filler] * (longest - len(row[name])) for row in rows])

    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    mask = (torch.arange(longest)[None, :] < lengths[:, None]).long()
    return column("input_ids", pad), column("labels", IGNORED), mask


def _ids(tokenizer: PreTrainedTokenizerBase, conversations: list[list[dict[str, str]]], **options: Any) -> list[list[int]]:
    rendered = tokenizer.apply_chat_template(conversations, tokenize=False, **options)
    encoded = tokenizer(rendered, add_special_tokens=False)
    return [list(ids) for ids in encoded["input_ids"]]
