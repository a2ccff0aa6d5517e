"""The untouched base beside a training: read once, moved where the training runs, never changed.

It may be held in bf16 where the training's products are taken in bf16 anyway. What flows between its layers stays in fp32 and
its products are taken under autocast, as the policy's are: of a base that was released in bf16 it says to the bit what it
says when it is held in fp32, in half the memory.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def frozen_base(base: Path, bf16: bool = False) -> PreTrainedModel:
    """The base as a reference: no gradient, no dropout, in float32 unless it is held in bf16 (then ask it in `reading`)."""
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if bf16 else torch.float32
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype).eval().requires_grad_(False)
    if bf16:
        model.get_input_embeddings().register_forward_hook(_in_fp32)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def reading(model: Any) -> contextlib.AbstractContextManager[object]:
    """What a frozen base is asked within: autocast where it is held in bf16, and nothing else where it is in float32."""
    half = model.dtype == torch.bfloat16
    return torch.autocast(model.device.type, torch.bfloat16) if half else contextlib.nullcontext()


def _in_fp32(_module: Any, _given: Any, embedded: torch.Tensor) -> torch.Tensor:
    return embedded.float()
