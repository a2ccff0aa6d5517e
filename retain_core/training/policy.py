"""Methods that learn from a reward on their own samples: TRL's GRPO trainer and what it lacks, as small subclasses."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOTrainer

from retain_core.arms import ArmSpec
from retain_core.training import configs
from retain_core.training.encode import user_turn
from retain_core.training.record import TrainingRecord
from retain_core.training.rewards import Reward
from retain_core.training.target import MAX_NEW_TOKENS, CountdownTarget, Problem


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


def policy_trainer(spec: ArmSpec, base: Path, tokenizer: Any, target: CountdownTarget, common: dict[str, Any]) -> Any:
    """(trainer, what it counted when it is done) for a method with a reward."""
    prompts = spec.updates * spec.sequences_per_update // spec.config["group_size"]
    problems: list[Problem] = list(islice(target.problems(spec.seed or 0), prompts))
    reward = Reward(spec.config["reward"], spec.seed or 0, tokenizer.eos_token_id, {p.prompt: p for p in problems})
    trainer_class = ReinforceTrainer if spec.config["algorithm"] == "reinforce" else GRPOTrainer
    trainer = trainer_class(
        model=str(base), args=configs.grpo_config(spec.config, MAX_NEW_TOKENS, **common), processing_class=tokenizer,
        reward_funcs=reward, train_dataset=Dataset.from_list([{"prompt": user_turn(p.prompt)} for p in problems]),
    )  # fmt: skip
    sequences = spec.updates * spec.sequences_per_update
    unique = len({p.prompt for p in problems})
    return trainer, lambda _: TrainingRecord(spec.updates, sequences, unique, reward.tokens, reward.tokens)
