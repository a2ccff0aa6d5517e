"""The KL penalty to the base, one definition for every method.

At every position of an answer (stop token included, prompt left out) the penalty estimates KL(policy || base):

k2     (log policy(y) - log base(y))^2 / 2 of the token that stands there
k3     base(y)/policy(y) - 1 - log(base(y)/policy(y)) of the token that stands there
exact  the sum over the whole vocabulary

k2 and k3 estimate it on the policy's own samples (Schulman 2020); on text from elsewhere only `exact` is the KL at
that prefix. The mean is taken over the tokens of an answer, then over answers.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

Estimator = Literal["k2", "k3", "exact"]


def kl_penalty(
    policy_logits: torch.Tensor, base_logits: torch.Tensor, tokens: torch.Tensor, counted: torch.Tensor, estimator: Estimator
) -> torch.Tensor:
    """The penalty of a batch, a scalar in nats per token with the policy's gradient.

    Args:
        policy_logits: B x T x vocabulary, the distribution that each of `tokens` was drawn from.
        base_logits: The same of the base; no gradient flows into it.
        tokens: B x T token ids.
        counted: B x T, 1 where a token belongs to an answer.
        estimator: Which estimate.
    """
    if estimator == "exact":
        policy, base = policy_logits.float().log_softmax(-1), base_logits.detach().float().log_softmax(-1)
        # The ratio's own gradient sums to 0 over the vocabulary; left in, its rounding would move a policy at the base.
        per_token = (policy.exp() * (policy - base).detach()).sum(-1)
    else:
        ratio = log_ratio(policy_logits, base_logits, tokens)
        per_token = ratio**2 / 2 if estimator == "k2" else (-ratio).exp() - 1 + ratio
    counted = counted.to(per_token.dtype)
    return ((per_token * counted).sum(-1) / counted.sum(-1).clamp(min=1)).mean()


def log_ratio(policy_logits: torch.Tensor, base_logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The KL as a part of the reward: log policy(y) - log base(y) of each token, B x T (shapes as in `kl_penalty`).

    Its mean over the policy's own samples is KL(policy || base), and so is its gradient when a policy gradient learns
    from it as a cost. k2 and k3 as a cost teach next to nothing: the gradient of their token's own part vanishes.
    """
    policy, base = policy_logits.float().log_softmax(-1), base_logits.detach().float().log_softmax(-1)
    return (policy - base).gather(-1, tokens[..., None])[..., 0]


def kl_on_text(model: Any, base: Any, ids: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor, estimator: Estimator) -> Any:
    """`kl_penalty` along whole sequences: B x T ids with their attention mask; labels below 0 carry no penalty."""
    policy_logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    with torch.no_grad():
        base_logits = base(input_ids=ids, attention_mask=mask).logits[:, :-1]
    return kl_penalty(policy_logits, base_logits, ids[:, 1:], labels[:, 1:] >= 0, estimator)
