"""A batch of samples that several processes hold, mixed and cut into updates as one process would."""

from __future__ import annotations

from typing import Any

import torch

from retain_core.training import ranks


def mixed(samples: dict[str, Any], slices: int, pad: int) -> list[dict[str, Any]]:
    """This process's share of each of `slices` updates, from the samples that every process made.

    Rows of other processes are padded to the longest: prompts on the left, all else on the right.
    """
    parts = ranks.gathered({name: value.cpu() if isinstance(value, torch.Tensor) else value for name, value in samples.items()})
    rows = {name: _together(name, [part[name] for part in parts], pad) for name, value in samples.items() if _by_row(value)}
    order = torch.randperm(sum(len(part["completion_ids"]) for part in parts))
    device = samples["completion_ids"].device
    return [
        {name: rows[name][ranks.share(chosen)].to(device) if name in rows else value for name, value in samples.items()}
        for chosen in order.chunk(slices)
    ]


def _by_row(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() > 0


def _together(name: str, parts: list[torch.Tensor], pad: int) -> torch.Tensor:
    if parts[0].dim() == 1:
        return torch.cat(parts)
    longest, filler = max(part.shape[1] for part in parts), pad if name.endswith("_ids") else 0
    padded = []
    for part in parts:
        missing = longest - part.shape[1]
        sides = (missing, 0) if name.startswith("prompt_") else (0, missing)
        padded.append(torch.nn.functional.pad(part, sides, value=filler))
    return torch.cat(padded)
