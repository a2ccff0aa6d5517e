"""The five arms of the parity toy: what each makes of a batch. Source: paper section 5; GRPO as in section 2.1, 6.

All losses are means over the batch, one for each run. The probability of a digit is that of the one answer there is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retain_core.parity.images import DIGITS

if TYPE_CHECKING:
    import torch

GRPO, GRPO_KL, SFT_1, SFT_2, SFT_ORACLE = ARMS = ("grpo", "grpo_kl0.1", "sft_1", "sft_2", "sft_oracle")
KL_COEFFICIENTS = {GRPO: 0.0, GRPO_KL: 0.1}
GROUP = 8


def right_digits(digits: torch.Tensor) -> torch.Tensor:
    """1 where an answer has the parity of the digit shown, else 0: (n, 10)."""
    import torch

    answers = torch.arange(DIGITS, device=digits.device)
    return (answers % 2 == digits[:, None] % 2).float()


def oracle(base: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The base's policy within the right digits: of all policies that are always right the one closest to the base.

    The I-projection: it minimises KL(q || base) over q with all its mass on the right digits, at -ln base(right). The
    paper prints KL(base || q), which is infinite for every such q. Probabilities (..., 10).
    """
    kept = base * right
    return kept / kept.sum(-1, keepdim=True)


def labels(arm: str, digits: torch.Tensor, target: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The label of each image under one of the SFT arms, drawn anew at every visit. `target` is the oracle, (n, 10).

    SFT-1: 0 for even, 1 for odd. SFT-2: 0 or 4 for even, 1 or 5 for odd. SFT-oracle: from the oracle.
    """
    import torch

    if arm == SFT_ORACLE:
        return torch.multinomial(target, 1, generator=generator)[:, 0]
    if arm == SFT_2:
        return digits % 2 + 4 * torch.randint(2, digits.shape, generator=generator)
    return digits % 2


def sft_loss(log_p: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of labels (n,) under log probabilities (runs, n, 10): (runs,)."""
    return -log_p.gather(-1, chosen.expand(len(log_p), -1)[..., None]).mean((-2, -1))


def advantages(rewards: torch.Tensor) -> torch.Tensor:
    """Rewards (..., group) in standard units of their group; 0 where all are equal."""
    return (rewards - rewards.mean(-1, keepdim=True)) / (rewards.std(-1, keepdim=True) + 1e-8)


def grpo_loss(
    log_p: torch.Tensor, base_log_p: torch.Tensor, right: torch.Tensor, coefficient: float, generator: torch.Generator
) -> torch.Tensor:
    """GRPO on answers drawn from the policy itself, one step a batch: (runs,).

    The penalty is KL(policy || base), summed over all ten answers. Shapes: policy (runs, n, 10), base and right (n, 10).
    """
    import torch

    drawn = torch.multinomial(log_p.detach().exp().flatten(0, -2), GROUP, replacement=True, generator=generator)
    drawn = drawn.view(*log_p.shape[:-1], GROUP)
    rewards = right.expand(len(log_p), -1, -1).gather(-1, drawn)
    surrogate = (advantages(rewards) * log_p.gather(-1, drawn)).mean((-2, -1))
    penalty = (log_p.exp() * (log_p - base_log_p)).sum(-1).mean(-1)
    return coefficient * penalty - surrogate
