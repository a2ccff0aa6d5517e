"""The `evaluation` artifact: every answer of one checkpoint to one benchmark.

answers.parquet   a row per item and repeat: doc_id, item, repeat, prompt, prompt_hash, target,
                  cluster, split, kind, parsed, finish_reason, n_tokens, response
scores.parquet    a row per item, repeat and metric: item, repeat, metric, score
meta              benchmark, settings, settings_hash, n
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retain_core.canonical import hash64

ANSWERS, SCORES = "answers.parquet", "scores.parquet"


@dataclass
class Answer:
    """One answer with its scores, one per metric."""

    doc_id: int
    prompt: str
    target: str
    cluster: str | None
    response: str
    scores: dict[str, float]
    parsed: bool | None = None
    finish_reason: str | None = None
    n_tokens: int | None = None
    repeat: int = 0
    kind: str | None = None
    """What sort of item it is, where a benchmark has several (harmful, harmless)."""
    item: int | None = None
    """Its 64-bit identity, where question and answer do not tell items apart."""


def write_answers(folder: Path, benchmark: str, answers: list[Answer]) -> None:
    """Write both Parquet files of an evaluation."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    items = [item_hash(benchmark, a.prompt, a.target) if a.item is None else a.item for a in answers]
    table = pa.table(
        {
            "doc_id": pa.array([a.doc_id for a in answers], pa.int32()),
            "item": pa.array(items, pa.int64()),
            "repeat": pa.array([a.repeat for a in answers], pa.int16()),
            "prompt": [a.prompt for a in answers],
            "prompt_hash": pa.array([hash64(a.prompt) for a in answers], pa.int64()),
            "target": [a.target for a in answers],
            "cluster": pa.array([a.cluster for a in answers], pa.string()),
            "split": [split_of(item) for item in items],
            "kind": pa.array([a.kind for a in answers], pa.string()),
            "parsed": pa.array([a.parsed for a in answers], pa.bool_()),
            "finish_reason": pa.array([a.finish_reason for a in answers], pa.string()),
            "n_tokens": pa.array([a.n_tokens for a in answers], pa.int32()),
            "response": [a.response for a in answers],
        }
    )
    pq.write_table(table, folder / ANSWERS, compression="zstd")
    rows = [(item, a.repeat, m, s) for item, a in zip(items, answers, strict=True) for m, s in a.scores.items()]
    columns: list[list[Any]] = [list(column) for column in zip(*rows, strict=True)]
    scores = pa.table(
        {
            "item": pa.array(columns[0], pa.int64()), "repeat": pa.array(columns[1], pa.int16()),
            "metric": columns[2], "score": pa.array(columns[3], pa.float64()),
        }
    )  # fmt: skip
    pq.write_table(scores, folder / SCORES, compression="zstd")


def item_hash(benchmark: str, prompt: str, target: str) -> int:
    """The 64-bit identity of an item: the same question has the same hash in every evaluation."""
    return hash64(f"{benchmark}\n{prompt}\n{target}")


def split_of(item: int) -> str:
    """`select` or `report`, by hash: points are chosen on one half and shown on the other."""
    return "select" if hash64(f"split {item}") & 1 else "report"
