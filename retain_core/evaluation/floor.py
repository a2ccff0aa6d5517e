"""The noise floor: the base evaluated again under changes that must not matter (measurement: section 6).

A difference between two checkpoints that is not larger than what the batch size, the order of the items,
the number of threads or the last bits of the arithmetic do to one and the same model is no difference.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from retain_core.devices import has_cuda
from retain_core.evaluation.benchmarks import BATCH_SIZE
from retain_core.evaluation.generation import TRANSFORMERS, Generation
from retain_core.evaluation.size import AS_THE_LAB, EvaluationSize


@dataclass(frozen=True)
class Nuisance:
    """How an evaluation is carried out: nothing here is a property of the model."""

    name: str
    batch_size: int = BATCH_SIZE
    item_order: Literal["given", "reversed", "shuffled"] = "given"
    more_threads: int = 0
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    batch_tokens: int | None = None
    """Tokens of a pass at most; None: batches of `batch_size`, whatever their length."""
    of_study: Literal["float32", "bfloat16"] = "float32"
    """The precision that the study says, from which `dtype` differs in one nuisance only."""

    @property
    def read_as(self) -> str:
        """The precision that weights are read in."""
        return "float32" if self.of_study == "float32" else self.dtype

    @property
    def softmax(self) -> str | None:
        """The precision in which a benchmark's log-likelihoods are taken; None: that of the logits."""
        return None if self.of_study == "float32" else "float32"

    def applied_to(self, model: Any) -> Any:
        """The model, read as `read_as`, in this precision."""
        import torch

        return model if self.dtype == self.read_as else model.to(getattr(torch, self.dtype))

    def settings(self, generation: Generation) -> dict[str, Any]:
        """What can change a score, beside the order of the items and the threads; a server makes batches of its own."""
        size = {"batch_tokens": self.batch_tokens} if self.batch_tokens and generation.backend == "transformers" else {}
        softmax = {"softmax_dtype": self.softmax} if self.softmax else {}
        return {"dtype": self.dtype, "batch_size": self.batch_size, **size, **softmax}

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


def usual(size: EvaluationSize = AS_THE_LAB) -> Nuisance:
    """How everything of a study that is compared is evaluated."""
    return Nuisance("usual", dtype=size.dtype, batch_tokens=size.batch_tokens, of_study=size.dtype)


USUAL = usual()
"""How the lab evaluates."""


def nuisances(generation: Generation = TRANSFORMERS, size: EvaluationSize = AS_THE_LAB) -> tuple[Nuisance, ...]:
    """The changes under which the base is evaluated again; a server has batches, threads and a precision of its own."""
    plain = usual(size)
    orders = (replace(plain, name="reversed", item_order="reversed"), replace(plain, name="shuffled", item_order="shuffled"))
    if generation.backend == "http":
        return orders
    half: dict[str, Any] = {"batch_size": BATCH_SIZE // 2}
    odd: dict[str, Any] = {"batch_size": 37}
    if size.batch_tokens:
        half, odd = {"batch_tokens": max(1, size.batch_tokens // 2)}, {"batch_tokens": max(1, size.batch_tokens // 3)}
    other: Literal["float32", "float64", "bfloat16"]
    other = "float32" if size.dtype == "bfloat16" else "bfloat16" if has_cuda() else "float64"
    return (
        replace(plain, name="half_batch", **half),
        replace(plain, name="odd_batch", **odd),
        *orders,
        replace(plain, name="more_threads", more_threads=1),
        replace(plain, name="other_dtype", dtype=other),
    )
