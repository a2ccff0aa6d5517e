"""Offline preference: a right answer against a wrong one, both sampled from the base before training."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import DPOTrainer

from retain_core.arms import ArmSpec
from retain_core.errors import RetainError
from retain_core.training import configs, ranks
from retain_core.training.adapters import adapters
from retain_core.training.encode import IGNORED, encode_exchanges, loss_per_token, user_turn
from retain_core.training.frozen import FrozenBase, labelled
from retain_core.training.record import TrainingRecord
from retain_core.training.rewards import judged
from retain_core.training.target import Problem, Target

GROUP = 8
"""Answers that the base samples to one problem."""
MOST_ROUNDS = 8
"""How often sampling is repeated before the pairs found have to do."""
Pair = tuple[str, str, str]
"""A prompt, a right answer and a wrong one."""


def simpo_loss(right: torch.Tensor, wrong: torch.Tensor, beta: float, gamma: float) -> torch.Tensor:
    """-log sigma(beta (right - wrong) - gamma), averaged (SimPO, arXiv 2405.14734); no reference model.

    Args:
        right: log p(right answer) / its tokens, one a pair, in nats.
        wrong: The same of the wrong answers.
        beta: Slope.
        gamma: Margin.
    """
    return -torch.nn.functional.logsigmoid(beta * (right - wrong) - gamma).mean()


class SimPOTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's DPO trainer with the loss of SimPO, on the same batches."""

    def __init__(self, *args: Any, gamma: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ref_model = None
        self._gamma = gamma

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        answers = inputs["completion_mask"]
        labels = inputs["input_ids"].masked_fill(answers == 0, IGNORED)
        outputs = model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False, labels=labels,
            fused_lm_head=True,
        )  # fmt: skip
        right, wrong = (outputs.log_probs.sum(dim=1) / answers[:, 1:].sum(dim=1)).chunk(2)
        metrics = self._metrics["train"]
        metrics["rewards/accuracies"].append(ranks.mean((right > wrong).float().mean().item()))
        metrics["rewards/margins"].append(ranks.mean((self.beta * (right - wrong)).mean().item()))
        loss = simpo_loss(right, wrong, self.beta, self._gamma)
        return (loss, outputs) if return_outputs else loss


def preference_trainer(spec: ArmSpec, path: Path, tokenizer: Any, target: Target, common: dict[str, Any]) -> Any:
    """(trainer, what it counted when it is done) for DPO and SimPO; a pair is two of the budget's sequences."""
    base, dials, seed = (
        FrozenBase(path, tokenizer, target.longest_answer, spec.size.base_in_bf16(common["precise"])),
        spec.config,
        spec.seed or 0,
    )
    size = spec.sequences_per_update // 2
    pairs = sampled_pairs(base, target.problems(seed), size * spec.updates, dials["temperature"], seed)
    rows = [{"prompt": user_turn(prompt), "chosen": _said(right), "rejected": _said(wrong)} for prompt, right, wrong in pairs]
    settings: dict[str, Any] = {
        "model": str(path), "args": configs.preference_config(dials, **{**common, "batch": size}),
        "processing_class": tokenizer, "train_dataset": Dataset.from_list(rows), "peft_config": adapters(dials),
    }  # fmt: skip
    trainer = SimPOTrainer(**settings, gamma=dials["gamma"]) if dials["algorithm"] == "simpo" else DPOTrainer(**settings)
    right_rows = encode_exchanges(tokenizer, [(prompt, right) for prompt, right, _ in pairs])
    wrong_rows = encode_exchanges(tokenizer, [(prompt, wrong) for prompt, _, wrong in pairs])
    record = TrainingRecord(
        spec.updates, 2 * size * spec.updates, len({prompt for prompt, _, _ in pairs}),
        labelled(right_rows) + labelled(wrong_rows), base.tokens,
        loss_per_token(trainer.model, right_rows, tokenizer.pad_token_id),
    )  # fmt: skip
    return trainer, lambda _: record


def _said(answer: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": answer}]


def sampled_pairs(base: FrozenBase, problems: Iterator[Problem], count: int, temperature: float, seed: int) -> list[Pair]:
    """`count` pairs; they start over in another order where the base gave fewer. Raises RetainError where it gave none.

    Of the `GROUP` answers to a problem each right one is paired with another wrong one, as far as both go. Answers that
    were cut are left out.
    """
    pairs: list[Pair] = []
    for _ in range(MOST_ROUNDS):
        asked = [problem for problem in (next(problems) for _ in range(-(-(count - len(pairs)) // 2))) for _ in range(GROUP)]
        answers = base.sample([problem.prompt for problem in asked], temperature)
        verdicts = [(*answer, ok) for answer, ok in zip(answers, judged(asked, answers), strict=True)]
        for start in range(0, len(asked), GROUP):
            group = verdicts[start : start + GROUP]
            right = [text for text, _, ok in group if ok]
            wrong = [text for text, finished, ok in group if finished and not ok]
            pairs += [(asked[start].prompt, r, w) for r, w in zip(right, wrong, strict=False)]
        if not pairs:
            raise RetainError(
                f"to none of {len(asked) // GROUP} problems the base gave both a right and a wrong answer in {GROUP} samples, "
                "so there is no preference to learn: it has too little support on the target"
            )
        if len(pairs) >= count:
            return pairs[:count]
    again, order = list(pairs), random.Random(f"pairs {seed}")
    while len(again) < count:
        again += order.sample(pairs, len(pairs))
    return again[:count]
