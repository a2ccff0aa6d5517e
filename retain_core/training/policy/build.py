"""From an arm's spec to the trainer of its on-policy method."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel

from retain_core.arms import ArmSpec
from retain_core.passes import tokens_at_once
from retain_core.training import configs
from retain_core.training.adapters import adapters
from retain_core.training.encode import IGNORED, encode_prompts, user_turn
from retain_core.training.held import frozen_base, reading
from retain_core.training.notes import drawn_once
from retain_core.training.policy.ppo import Critic, PPOTrainer
from retain_core.training.policy.trainer import PolicyTrainer
from retain_core.training.record import TrainingRecord
from retain_core.training.rewards import Reward
from retain_core.training.rollouts.policy import rollouts_of
from retain_core.training.sampling import sample_ids
from retain_core.training.target import Problem, Target

RETENTION_NEW_TOKENS = 16
"""Longest answer to a retention prompt, as in the evaluation of KL."""


def policy_trainer(spec: ArmSpec, base: Path, tokenizer: Any, target: Target, common: dict[str, Any]) -> Any:
    """(trainer, what it counted when it is done) for a method with a reward."""
    dials, seed = spec.config, spec.seed or 0
    epochs, slices = reuse(dials, spec.updates)
    batches = -(-spec.updates // (epochs * slices))
    prompts = batches * slices * spec.sequences_per_update // dials["group_size"]
    problems: list[Problem] = list(islice(target.problems(seed), prompts))
    reward = Reward(dials["reward"], seed, tokenizer.eos_token_id, {p.prompt: p for p in problems})
    frozen = frozen_base(base, spec.size.base_in_bf16(common["precise"])) if dials["kl"] else None
    retention = None
    if frozen is not None and dials["kl_prompts"] == "retention":
        retention = base_answers(lambda: frozen, tokenizer, target, seed, spec.updates * spec.sequences_per_update)
    settings: dict[str, Any] = {
        "model": str(base), "args": configs.grpo_config(dials, target.longest_answer, epochs=epochs, slices=slices, **common),
        "processing_class": tokenizer, "reward_funcs": reward, "retention": retention,
        "base": frozen, "peft_config": adapters(dials), "size": spec.size,
        "rollouts": rollouts_of(spec, tokenizer, common["out"], problems[0].prompt),
        "train_dataset": Dataset.from_list([{"prompt": user_turn(p.prompt)} for p in problems]),
    }  # fmt: skip
    if dials["algorithm"] == "ppo":
        trainer: PolicyTrainer = PPOTrainer(**settings, dials={**dials, "advantage": "none"}, critic=Critic(base))
    else:
        trainer = PolicyTrainer(**settings, dials=dials)
    sequences, unique = spec.updates * spec.sequences_per_update, len({p.prompt for p in problems})
    return trainer, lambda done: TrainingRecord(spec.updates, sequences, unique, done.tokens_trained, reward.tokens)


def reuse(dials: dict[str, Any], updates: int) -> tuple[int, int]:
    """(how often a batch of samples is gone through, updates in one pass); never more than the whole arm in a pass."""
    if dials["algorithm"] == "ppo":
        return dials["epochs"], min(dials["minibatches"], updates)
    return 1, min(dials["staleness"], updates)


def base_answers(
    base: Callable[[], PreTrainedModel], tokenizer: Any, target: Target, seed: int, count: int
) -> list[dict[str, list[int]]]:
    """Rows of training-side prompts of the retention skills, answered by the base at temperature 1.

    No held-out item is among them, and the policy's own random stream is left as it was found.
    """
    prompts = [prompt for prompt, _ in islice(target.retention(seed), count)]

    def draw() -> list[list[int]]:
        model = base()
        with torch.random.fork_rng(), reading(model):
            torch.manual_seed(seed)
            at_once = tokens_at_once(model.config)
            return sample_ids(model, tokenizer, prompts, temperature=1.0, max_new_tokens=RETENTION_NEW_TOKENS, at_once=at_once)

    asked = encode_prompts(tokenizer, prompts)
    return [
        {"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer}
        for prompt, answer in zip(asked, drawn_once(draw), strict=True)
    ]
