"""The KL penalty to the base, one definition for every method.

At every position of an answer (stop token included, prompt left out) the penalty estimates KL(policy || base):

k2     (log policy(y) - log base(y))^2 / 2 of the token that stands there
k3     base(y)/policy(y) - 1 - log(base(y)/policy(y)) of the token that stands there
exact  the sum over the whole vocabulary

k2 and k3 estimate it on the policy's own samples (Schulman 2020); on text from elsewhere only `exact` is the KL at
that prefix. The mean is taken over the tokens of an answer, then over answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch.utils.checkpoint import checkpoint

from retain_core.passes import LOGITS_AT_ONCE, stretches
from retain_core.training.held import reading

Estimator = Literal["k2", "k3", "exact"]


def kl_penalty(
    policy_logits: torch.Tensor,
    base_logits: torch.Tensor,
    tokens: torch.Tensor,
    counted: torch.Tensor,
    estimator: Estimator,
    temperature: float = 1.0,
) -> torch.Tensor:
    """The penalty of a batch, a scalar in nats per token with the policy's gradient.

    Distributions of a large batch are made some positions at a time, and again in the backward pass, so that beside the logits
    and their gradient nothing of the size of the vocabulary stays.

    Args:
        policy_logits: B x T x vocabulary; over the temperature, the distribution that each of `tokens` was drawn from.
        base_logits: The same of the base; no gradient flows into it.
        tokens: B x T token ids.
        counted: B x T, 1 where a token belongs to an answer.
        estimator: Which estimate.
        temperature: Of both distributions.
    """

    def penalties(policy_logits: torch.Tensor, base_logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        policy, base = _log_probabilities(policy_logits, base_logits, temperature)
        if estimator == "exact":
            # The ratio's own gradient sums to 0 over the vocabulary; left in, its rounding would move a policy at the base.
            return (policy.exp() * (policy - base).detach()).sum(-1)
        ratio = _of_tokens(policy, tokens) - _of_tokens(base, tokens)
        return ratio**2 / 2 if estimator == "k2" else (-ratio).exp() - 1 + ratio

    per_token = _by_position(penalties, policy_logits, base_logits, tokens)
    counted = counted.to(per_token.dtype)
    return ((per_token * counted).sum(-1) / counted.sum(-1).clamp(min=1)).mean()


def log_ratio(
    policy_logits: torch.Tensor, base_logits: torch.Tensor, tokens: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """The KL as a part of the reward: log policy(y) - log base(y) of each token, B x T (shapes as in `kl_penalty`).

    Its mean over the policy's own samples is KL(policy || base), and so is its gradient when a policy gradient learns
    from it as a cost. k2 and k3 as a cost teach next to nothing: the gradient of their token's own part vanishes.
    """

    def ratios(policy_logits: torch.Tensor, base_logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        policy, base = _log_probabilities(policy_logits, base_logits, temperature)
        return _of_tokens(policy, tokens) - _of_tokens(base, tokens)

    return _by_position(ratios, policy_logits, base_logits, tokens)


def _log_probabilities(
    policy_logits: torch.Tensor, base_logits: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    policy, base = policy_logits.float(), base_logits.detach().float()
    if temperature != 1:
        policy, base = policy / temperature, base / temperature
    return policy.log_softmax(-1), base.log_softmax(-1)


def _of_tokens(values: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return values.gather(-1, tokens[..., None])[..., 0]


def _by_position(
    each: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
    policy_logits: torch.Tensor,
    base_logits: torch.Tensor,
    tokens: torch.Tensor,
) -> torch.Tensor:
    """B x T of a function of logits and tokens, made at once where the logits are few."""
    if policy_logits.numel() <= LOGITS_AT_ONCE:
        return each(policy_logits, base_logits, tokens)
    parts = stretches(policy_logits.shape[0], *policy_logits.shape[1:])
    given = ((policy_logits[:, part], base_logits[:, part], tokens[:, part]) for part in parts)
    made = [checkpoint(each, *some, use_reentrant=False, preserve_rng_state=False) for some in given]
    return torch.cat(made, dim=1)


def kl_on_text(model: Any, base: Any, ids: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor, estimator: Estimator) -> Any:
    """`kl_penalty` along whole sequences: B x T ids with their attention mask; labels below 0 carry no penalty."""
    policy_logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    with torch.no_grad(), reading(base):
        base_logits = base(input_ids=ids, attention_mask=mask).logits[:, :-1]
    return kl_penalty(policy_logits, base_logits, ids[:, 1:], labels[:, 1:] >= 0, estimator)
