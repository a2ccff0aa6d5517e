"""Weights on the straight line between two models (WiSE-FT: Wortsman et al., 2022, arXiv 2109.01903, equation 1)."""

from __future__ import annotations

import shutil
from pathlib import Path

from retain_core.errors import RetainError


def interpolate(base: Path, tuned: Path, alpha: float, out: Path) -> None:
    """Save (1 - alpha) x base + alpha x tuned as float32 safetensors; whatever is no weight is that of the tuned model.

    Computed in float32, one file of the tuned model at a time. Alpha 0 and 1 give the ends, and a weight that training
    did not move stays as it is. Raises RetainError when the models do not have the same parameters.
    """
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    _refuse_unlike(_shapes(base), _shapes(tuned))
    shutil.copytree(tuned, out, ignore=shutil.ignore_patterns("*.safetensors"))
    for file in sorted(tuned.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            end = {name: tensors.get_tensor(name).float() for name in tensors.keys()}  # noqa: SIM118
        blend = {}
        for origin in sorted(base.glob("*.safetensors")):
            with safe_open(origin, "pt") as tensors:
                for name in end.keys() & tensors.keys():
                    blend[name] = torch.lerp(tensors.get_tensor(name).float(), end.pop(name), alpha)
        save_file(blend, out / file.name, metadata={"format": "pt"})


def _shapes(folder: Path) -> dict[str, list[int]]:
    """Parameter -> shape, from the headers."""
    from safetensors import safe_open

    shapes: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            shapes |= {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    return shapes


def _refuse_unlike(base: dict[str, list[int]], tuned: dict[str, list[int]]) -> None:
    odd = sorted(name for name in base.keys() | tuned.keys() if base.get(name) != tuned.get(name))
    if odd:
        told = f"{odd[0]} is {base.get(odd[0], 'missing')} in the base and {tuned.get(odd[0], 'missing')} in the tuned model"
        more = f" (and {len(odd) - 1} more)" if len(odd) > 1 else ""
        raise RetainError(f"cannot interpolate models of unlike parameters: {told}{more}")
