"""LoRA: the adapters of an arm, and the plain weights that they amount to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


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
        return dict(model.named_parameters())
    plain, weights = model.get_base_model(), {}
    for name, weight in plain.named_parameters():
        if "lora_" in name:
            continue
        layer, found, last = name.partition(".base_layer.")
        changed = found and last == "weight"
        merged = weight + plain.get_submodule(layer).get_delta_weight("default").to(weight.dtype) if changed else weight
        weights[f"{layer}.{last}" if found else name] = merged.detach()
    return weights


def save_plain(model: Any, folder: Path) -> None:
    """Save as safetensors that load without peft; the model itself is left as it is."""
    if _adapted(model):
        model.get_base_model().save_pretrained(folder, state_dict=plain_weights(model))
    else:
        model.save_pretrained(folder)


def _adapted(model: Any) -> bool:
    from peft import PeftModel

    return isinstance(model, PeftModel)
