"""What a sample's tokens are weighted with: the advantage over a group of samples, or over a learned value."""

from __future__ import annotations

from typing import Literal

import torch

from retain_core.training import ranks

Advantage = Literal["none", "mean", "mean_std", "leave_one_out"]

STD_FLOOR = 1e-4
"""Added to the standard deviation of a group (TRL's; the paper's code has 1e-8)."""
VARIANCE_FLOOR = 1e-8


def group_advantages(rewards: torch.Tensor, kind: Advantage, group: int) -> torch.Tensor:
    """The advantage of each sample over those to the same prompt.

    none           r
    mean           r - mean of the group
    mean_std       (r - mean) / (standard deviation with n - 1, + 1e-4)   (GRPO)
    leave_one_out  r - mean of the others = (r - mean) n / (n - 1)        (RLOO)

    A group of equal rewards has advantages of exactly 0, but for `none`.

    Args:
        rewards: B, the samples to one prompt side by side.
        kind: Which advantage.
        group: Samples to one prompt.
    """
    if kind == "none":
        return rewards
    grouped = rewards.view(-1, group)
    centred = grouped - grouped.mean(dim=1, keepdim=True)
    if kind == "mean_std":
        centred = centred / (grouped.std(dim=1, keepdim=True) + STD_FLOOR)
    elif kind == "leave_one_out":
        centred = centred * group / (group - 1)
    equal = grouped.amax(dim=1, keepdim=True) == grouped.amin(dim=1, keepdim=True)
    return centred.masked_fill(equal, 0.0).view(-1)


def rewards_at_the_end(rewards: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Rewards of samples (B) as rewards of tokens (B x T): all at the last counted token, none where no token counts."""
    position = torch.arange(counted.shape[1], device=counted.device)
    last = (position == counted.sum(dim=1, keepdim=True) - 1).to(rewards.dtype)
    return last * rewards[:, None]


def gae(rewards: torch.Tensor, values: torch.Tensor, counted: torch.Tensor, gamma: float, gae_lambda: float) -> torch.Tensor:
    """Generalised advantage estimates (Schulman et al. 2016), B x T; an answer ends after its last counted token.

    delta_t = r_t + gamma V_(t+1) - V_t and A_t = delta_t + gamma lambda A_(t+1), both without a successor at the end. With
    gamma = lambda = 1 this is the rewards still to come less the value.

    Args:
        rewards: B x T, earned by each token.
        values: B x T, of the text before each token.
        counted: B x T, 1 for the tokens of an answer, which stand first.
        gamma: Discount.
        gae_lambda: 0 trusts the value of the next token, 1 the rewards.
    """
    counted = counted.to(values.dtype)
    advantages = torch.zeros_like(values)
    following, value = torch.zeros_like(values[:, 0]), torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        following = (rewards[:, t] + gamma * value - values[:, t] + gamma * gae_lambda * following) * counted[:, t]
        value = values[:, t] * counted[:, t]
        advantages[:, t] = following
    return advantages


def whiten(advantages: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Advantages with mean 0 and variance 1 over the counted tokens of the whole batch; 0 elsewhere."""
    counted = counted.to(advantages.dtype)
    tokens = ranks.sum_of(counted.sum()).clamp(min=1)
    centred = (advantages - ranks.sum_of((advantages * counted).sum()) / tokens) * counted
    return centred / (ranks.sum_of((centred**2).sum()) / tokens + VARIANCE_FLOOR).sqrt()
