"""What a policy in mixed precision samples from: a copy of it in bf16.

Mixed precision keeps weights in fp32 and casts them for every product, which for one token at a time costs more than the
product. The copy is read as it is, as an inference server would; it takes 2 bytes a parameter. The tokens are scored by the
policy itself, so the ratio of an update that follows at once is 1 all the same.
"""

from __future__ import annotations

from typing import Any

import torch

from retain_core.training.adapters import plain_weights


def sampling_copy(model: Any) -> Any:
    """A model in bf16 of the same shape, where the policy is; its weights are only there after `refresh`."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    device = next(plain.parameters()).device
    with torch.random.fork_rng(), torch.device(device):
        copy = type(plain)._from_config(plain.config, dtype=torch.bfloat16)
    copy.generation_config = plain.generation_config
    return copy.eval().requires_grad_(False)


def refresh(copy: Any, model: Any) -> None:
    """Give the copy the policy's weights as they are now, adapters included."""
    with torch.no_grad():
        for name, weight in plain_weights(model).items():
            copy.get_parameter(name).copy_(weight)
