"""The noise floor: the base evaluated again under changes that must not matter (measurement: section 6).

A difference between two checkpoints that is not larger than what the batch size, the order of the items,
the number of threads or the last bits of the arithmetic do to one and the same model is no difference.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from retain_core.devices import has_cuda
from retain_core.evaluation.benchmarks import BATCH_SIZE
from retain_core.evaluation.generation import TRANSFORMERS, Generation


@dataclass(frozen=True)
class Nuisance:
    """How an evaluation is carried out: nothing here is a property of the model."""

    name: str
    batch_size: int = BATCH_SIZE
    item_order: Literal["given", "reversed", "shuffled"] = "given"
    more_threads: int = 0
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"

    def applied_to(self, model: Any) -> Any:
        """The model in this precision; weights in float32 are left as they are."""
        import torch

        return model if self.dtype == "float32" else model.to(getattr(torch, self.dtype))

    @contextlib.contextmanager
    def ordered(self, items: Path, benchmark: str) -> Iterator[Path]:
        """A folder that holds the benchmark's items in this order, under their own document ids."""
        if self.item_order == "given":
            yield items
            return
        lines = (items / f"{benchmark}.jsonl").read_text(encoding="utf-8").splitlines()
        if self.item_order == "reversed":
            lines.reverse()
        else:
            random.Random("item order").shuffle(lines)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / f"{benchmark}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
            yield Path(folder)


USUAL = Nuisance("usual")
"""How everything that is compared is evaluated."""


def nuisances(generation: Generation = TRANSFORMERS) -> tuple[Nuisance, ...]:
    """The changes under which the base is evaluated again; a server has batches, threads and a precision of its own."""
    if generation.backend == "http":
        return (Nuisance("reversed", item_order="reversed"), Nuisance("shuffled", item_order="shuffled"))
    return (
        Nuisance("half_batch", batch_size=BATCH_SIZE // 2),
        Nuisance("odd_batch", batch_size=37),
        Nuisance("reversed", item_order="reversed"),
        Nuisance("shuffled", item_order="shuffled"),
        Nuisance("more_threads", more_threads=1),
        Nuisance("other_dtype", dtype="bfloat16" if has_cuda() else "float64"),
    )
