"""A tree of plain values and tensors as two files that hold no code: JSON and safetensors.

    tree.json             the tree; a tensor is {"$": "tensor", "at": its name in the other file}
    tensors.safetensors   the tensors

Reading them runs nothing, unlike a pickle (torch.save). Numbers come back with the same bits, tuples as tuples, and keys
of dictionaries with their types.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

TREE, TENSORS = "tree.json", "tensors.safetensors"


def write_tree(folder: Path, tree: Any) -> None:
    """Write a tree of dict, list, tuple, str, int, float, bool, None and tensors. Raises TypeError on anything else."""
    tensors: dict[str, torch.Tensor] = {}
    plain = _plain(tree, tensors)
    (folder / TREE).write_text(json.dumps(plain, separators=(",", ":")), encoding="utf-8")
    save_file(tensors, folder / TENSORS)


def read_tree(folder: Path) -> Any:
    """The tree that `write_tree` wrote, its tensors on the CPU."""
    with safe_open(folder / TENSORS, "pt") as tensors:
        return _rich(json.loads((folder / TREE).read_text(encoding="utf-8")), tensors)


def _plain(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        copy = value.detach().to("cpu").contiguous()
        # Slices of one batch share memory, which safetensors refuses.
        whole = copy.untyped_storage().nbytes() == copy.numel() * copy.element_size() and copy.dim() > 0
        tensors[name] = copy if whole else copy.clone()
        return {"$": "tensor", "at": name}
    if isinstance(value, dict):
        return {"$": "dict", "of": [[_plain(key, tensors), _plain(entry, tensors)] for key, entry in value.items()]}
    if isinstance(value, list | tuple):
        entries = [_plain(entry, tensors) for entry in value]
        return entries if isinstance(value, list) else {"$": "tuple", "of": entries}
    if value is None or type(value) in (str, int, float, bool):
        return value
    raise TypeError(f"{type(value).__name__} cannot be kept to resume from")


def _rich(value: Any, tensors: Any) -> Any:
    if isinstance(value, list):
        return [_rich(entry, tensors) for entry in value]
    if not isinstance(value, dict):
        return value
    if value["$"] == "tensor":
        return tensors.get_tensor(value["at"])
    entries = [_rich(entry, tensors) for entry in value["of"]]
    return tuple(entries) if value["$"] == "tuple" else {key: entry for key, entry in entries}  # noqa: C416
