"""The exact target score: the probability that a model answers correctly, summed, not sampled.

For each item it is the sum over all valid answers y of P(y, stop | prompt) at temperature 1
(measurement: section 1). It is what accuracy under sampling estimates, without the sampling error.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retain_core.passes import Read, groups, read
from retain_core.training.encode import encode_exchanges, encode_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ITEMS_PER_PASS = 50
NEGLIGIBLE = 1e-8
"""An answer whose first token is less likely than this is left out: it could add no more."""


@dataclass(frozen=True)
class ExactItem:
    """One item in token ids: its prompt, and every valid answer with its stop token."""

    doc_id: int
    prompt: list[int]
    answers: list[list[int]]


def exact_items(tokenizer: PreTrainedTokenizerBase, file: Path) -> list[ExactItem]:
    """The items of a benchmark's JSONL file with every valid answer (`valid`), encoded."""
    docs = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    rows = iter(encode_exchanges(tokenizer, [(doc["prompt"], answer) for doc in docs for answer in doc["valid"]]))
    prompts = encode_prompts(tokenizer, [doc["prompt"] for doc in docs])
    return [
        ExactItem(doc["doc_id"], prompt, [next(rows)["input_ids"][len(prompt) :] for _ in doc["valid"]])
        for doc, prompt in zip(docs, prompts, strict=True)
    ]


def exact_scores(model: PreTrainedModel, items: list[ExactItem], at_once: int | None = None) -> dict[int, float]:
    """doc_id -> probability mass on the valid answers of that item, from 0 to 1.

    `at_once` is how many tokens a pass holds at most, prompt and answer of every row; None: whatever the items have.
    """
    ordered = sorted(items, key=lambda item: (len(item.prompt), item.doc_id))
    scores: dict[int, float] = {}
    for some in groups([len(item.prompt) for item in ordered], ITEMS_PER_PASS, at_once):
        chosen = ordered[some]
        scores.update({item.doc_id: mass for item, mass in zip(chosen, _masses(model, chosen, at_once), strict=True)})
    return scores


def _masses(model: PreTrainedModel, items: list[ExactItem], at_once: int | None) -> list[float]:
    """Probability mass of each item; each prompt is read once and its cache shared by its answers."""
    import torch

    device, whole = model.device, at_once is None
    prompts, prompt_mask = (t.to(device) for t in _padded([item.prompt for item in items], left=True))
    positions = (prompt_mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        asked = read(model, prompts, whole, attention_mask=prompt_mask, position_ids=positions, use_cache=True)
        first = asked.logits(slice(-1, None))[:, -1].float().log_softmax(dim=-1)
        likely = first.exp().tolist()
        kept = [(i, a) for i, item in enumerate(items) for a in item.answers if likely[i][a[0]] >= NEGLIGIBLE]
        mass = [0.0] * len(items)
        if not kept:
            return mass
        parts = groups([prompts.shape[1] + len(answer) for _, answer in kept], len(kept), at_once)
        for some in parts:
            rows = torch.tensor([i for i, _ in kept[some]], device=device)
            answers, answer_mask = (t.to(device) for t in _padded([a for _, a in kept[some]], left=False))
            cache = asked.cache if len(parts) == 1 else copy.deepcopy(asked.cache)
            cache.batch_select_indices(rows)
            follow = read(
                model,
                answers[:, :-1],
                whole,
                attention_mask=torch.cat([prompt_mask[rows], answer_mask[:, :-1]], dim=1),
                position_ids=positions[rows, -1:] + 1 + torch.arange(answers.shape[1] - 1, device=device),
                past_key_values=cache,
            )
            later = _log_probabilities(follow, answers[:, 1:], whole)
            taken = first[rows].gather(1, answers[:, :1])[:, 0] + (later * answer_mask[:, 1:]).sum(dim=1)
            for (owner, _), probability in zip(kept[some], taken.double().exp().tolist(), strict=True):
                mass[owner] += probability
    return mass


def _log_probabilities(text: Read, tokens: Any, whole: bool) -> Any:
    """The log of the probability of every token, which follows where a text was read."""
    import torch

    found = [
        text.logits(part).float().log_softmax(dim=-1).gather(2, tokens[:, part, None])[..., 0] for part in text.stretches(whole)
    ]
    return torch.cat(found, dim=1)


def _padded(rows: list[list[int]], left: bool) -> tuple[Any, Any]:
    import torch

    longest = max(map(len, rows))
    fill = [[0] * (longest - len(row)) for row in rows]
    ids = [f + row if left else row + f for row, f in zip(rows, fill, strict=True)]
    mask = [[0] * len(f) + [1] * len(row) if left else [1] * len(row) + [0] * len(f) for row, f in zip(rows, fill, strict=True)]
    return torch.tensor(ids), torch.tensor(mask)
