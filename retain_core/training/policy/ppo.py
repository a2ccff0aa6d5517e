"""Proximal policy optimisation (Schulman et al. 2017) with a value model of its own.

Own samples are split into `minibatches` updates, and that is repeated for `epochs`; ratio and clipping are those of
`PolicyTrainer`. The advantage of a token is its GAE over a learned value. The KL to the base is in the reward, as
log policy(y) - log base(y) of the token: the one estimate whose gradient as a reward is that of KL(policy || base).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel

from retain_core.training import ranks
from retain_core.training.kl import kl_penalty, log_ratio
from retain_core.training.policy.advantages import gae, rewards_at_the_end, whiten
from retain_core.training.policy.trainer import PolicyTrainer, whole


class Critic(torch.nn.Module):  # type: ignore[misc]
    """The value of a text: a copy of the base with a scalar head, which starts at 0.

    A copy, because a head on the policy would train the policy's own features: a change that no reward asked for.
    """

    def __init__(self, base: Path) -> None:
        super().__init__()
        self.body = AutoModel.from_pretrained(base, dtype=torch.float32)
        self.weight = torch.nn.Parameter(torch.zeros(self.body.config.hidden_size))
        self.bias = torch.nn.Parameter(torch.zeros(()))

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, length: int) -> torch.Tensor:
        """B x `length`: the value of the text before each of the last `length` tokens."""
        hidden = self.body(input_ids=ids, attention_mask=mask).last_hidden_state[:, -length - 1 : -1].float()
        return hidden @ self.weight + self.bias


class PPOTrainer(PolicyTrainer):
    """PPO on TRL's GRPO trainer: advantages of tokens, and a critic that takes one step with every update."""

    def __init__(self, *args: Any, critic: Critic, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.critic = critic.to(self.accelerator.device)
        self._critic_optimizer = torch.optim.AdamW(
            critic.parameters(), lr=self.dials["value_rate"], betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0
        )

    def resume_state(self) -> dict[str, Any]:
        """Beside that of the policy: the value model and its optimizer."""
        value = {"critic": dict(self.critic.named_parameters()), "critic_optimizer": self._critic_optimizer.state_dict()}
        return super().resume_state() | value

    def resume_from(self, state: dict[str, Any]) -> None:
        """Go on from what `resume_state` gave."""
        super().resume_from(state)
        with torch.no_grad():
            for name, weight in self.critic.named_parameters():
                weight.copy_(state["critic"][name])
        self._critic_optimizer.load_state_dict(state["critic_optimizer"])

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        scored = super()._generate_and_score_completions(inputs)
        counted = scored["completion_mask"]
        rewards = rewards_at_the_end(scored["advantages"], counted)
        with torch.no_grad():
            if self.base is not None and self.dials["kl_prompts"] == "target":
                rewards = rewards - self.dials["kl"] * self._log_ratio(scored)
            values = self._values(scored)
        advantages = gae(rewards, values, counted, self.dials["discount"], self.dials["gae_lambda"])
        scored["returns"] = (advantages + values) * counted
        scored["advantages"] = whiten(advantages, counted) if self.dials["whiten"] else advantages
        return scored

    def _log_ratio(self, scored: dict[str, Any]) -> torch.Tensor:
        policy, base = self.completion_logits(self.model, scored), self.completion_logits(self.base, scored)
        tokens, counted = scored["completion_ids"], scored["completion_mask"]
        penalty = kl_penalty(policy, base, tokens, counted, "k3", self.temperature)
        self._metrics["train"]["kl"].append(ranks.mean(penalty.item()))
        return log_ratio(policy, base, tokens, self.temperature) * counted

    def _penalty(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor | None:
        return None if self.dials["kl_prompts"] == "target" else super()._penalty(model, inputs)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        loss = super()._compute_loss(model, inputs)
        counted, parts = inputs["completion_mask"], self.current_gradient_accumulation_steps
        # Each process has its share of the batch, whose gradients are averaged: count times the sum over it.
        squared = ranks.count() * ((self._values(inputs) - inputs["returns"]) ** 2 * counted).sum()
        tokens = ranks.sum_of(counted.sum()).clamp(min=1)
        if self._step % parts == 0:
            self._critic_optimizer.zero_grad()
            self._tokens_valued = 0
        self._tokens_valued += int(tokens)
        (squared / (tokens if parts == 1 else 1)).backward()
        self._metrics["train"]["value_loss"].append(ranks.mean((squared / tokens).item()))
        if (self._step + 1) % parts:
            return loss  # the other micro-batches of this update come first
        if parts > 1:
            for weight in self.critic.parameters():
                weight.grad /= self._tokens_valued
        ranks.average_gradients(self.critic)
        norm = torch.nn.utils.clip_grad_norm_(self.critic.parameters(), self.args.max_grad_norm)
        if not torch.isfinite(norm):
            return loss * norm  # not finite either, so the training ends here
        self._critic_optimizer.step()
        return loss

    def _values(self, inputs: dict[str, Any]) -> torch.Tensor:
        with self.accelerator.autocast():
            values: torch.Tensor = self.critic(*whole(inputs), inputs["completion_ids"].shape[1])
        return values.float()
