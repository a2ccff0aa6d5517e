"""LoRA: the adapters of an arm, and the plain weights that they amount to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor


def adapters(config: dict[str, Any]) -> Any:
    """The config of peft for `lora_rank`, None where all weights are trained.

    Adapters sit on every linear layer but the output layer; the scale is 2 at every rank, no dropout.
    They begin as the identity (B is 0). Embeddings stay as they are.
    """
    if config["lora_rank"] is None:
        return None
    from peft import LoraConfig

    rank = config["lora_rank"]
    return LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, bias="none", target_modules="all-linear", task_type="CAUSAL_LM"
    )


def plain_weights(model: Any) -> dict[str, torch.Tensor]:
    """Name -> weight of the model without adapters that answers the same."""
    if not _adapted(model):
        return {name: _whole(weight) for name, weight in model.named_parameters()}
    plain, weights = model.get_base_model(), {}
    for name, weight in plain.named_parameters():
        if "lora_" in name:
            continue
        layer, found, last = name.partition(".base_layer.")
        changed = found and last == "weight"
        merged = weight + plain.get_submodule(layer).get_delta_weight("default").to(weight.dtype) if changed else weight
        weights[f"{layer}.{last}" if found else name] = _whole(merged.detach())
    return weights


def plain_state(model: Any) -> dict[str, torch.Tensor] | None:
    """What `save_plain` needs beside the model, put together by all processes that train it; None: the model has it itself."""
    return plain_weights(model) if _adapted(model) or in_shards(model) else None


def save_plain(model: Any, folder: Path, state: dict[str, torch.Tensor] | None) -> None:
    """Save as safetensors that load without peft; the model itself is left as it is. `state` is its `plain_state`."""
    (model.get_base_model() if _adapted(model) else model).save_pretrained(folder, state_dict=state)


def in_shards(model: Any) -> bool:
    """Whether each of several processes holds a part of every weight (FSDP) or of every optimizer state (ZeRO)."""
    return any(isinstance(weight, DTensor) for weight in model.parameters()) or _zero_stage() > 0


def _zero_stage() -> int:
    """1 to 3 under DeepSpeed; 3 holds the weights in shards too."""
    from accelerate.state import AcceleratorState

    plugin = AcceleratorState().deepspeed_plugin if AcceleratorState._shared_state else None
    return int(plugin.zero_stage) if plugin else 0


def _whole(weight: torch.Tensor) -> torch.Tensor:
    """A weight that processes hold in shards put together, in all of them; any other as it is."""
    if isinstance(weight, DTensor):
        return weight.full_tensor()
    if hasattr(weight, "ds_id"):
        from deepspeed.zero import GatheredParameters

        with GatheredParameters([weight]):
            return weight.detach().clone()
    return weight


def _adapted(model: Any) -> bool:
    from peft import PeftModel

    return isinstance(model, PeftModel)
