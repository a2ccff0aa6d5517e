"""How far policies are from their base, on the same inputs. Log probabilities (..., n, answers) in, (...,) out.

Means over inputs; KL in nats for one input. Source: paper section 5 (the predictors that were compared).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def forward_kl(base_log_p: torch.Tensor, log_p: torch.Tensor) -> torch.Tensor:
    """KL(base || policy)."""
    return (base_log_p.exp() * (base_log_p - log_p)).sum(-1).mean(-1)


def reverse_kl(base_log_p: torch.Tensor, log_p: torch.Tensor) -> torch.Tensor:
    """KL(policy || base)."""
    return (log_p.exp() * (log_p - base_log_p)).sum(-1).mean(-1)


def total_variation(base_log_p: torch.Tensor, log_p: torch.Tensor) -> torch.Tensor:
    """Half the sum of absolute differences: from 0 to 1."""
    return (log_p.exp() - base_log_p.exp()).abs().sum(-1).mean(-1) / 2
