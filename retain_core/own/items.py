"""The `items` artifact: what a benchmark of the user's own asks, read once.

items.jsonl   one item a line: doc_id, item (its 64-bit identity), prompt, target, cluster, kind; an item of a target also
              has `row`, all that its file says of it, and `valid` where the file lists every right answer
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from retain_core.arms import computed_by
from retain_core.canonical import canonical_json, hash64
from retain_core.errors import RetainError
from retain_core.evaluation.benchmarks import Benchmark
from retain_core.judge.benchmark import JudgedBenchmark
from retain_core.judge.benchmark import items_of as items_of_requests
from retain_core.own.benchmark import rows_of
from retain_core.own.target import OwnTarget
from retain_core.public.catalogue import PUBLIC
from retain_core.store import Store, key_of
from retain_core.suite.benchmark import SuiteBenchmark

FILE = "items.jsonl"
ITEMS_VERSION = 2
"""Raised when equal files would give other items."""


def items_inputs(benchmark: Benchmark) -> dict[str, Any]:
    """What the items of a benchmark of the user's own depend on."""
    own = benchmark.own
    if isinstance(own, OwnTarget):
        public = {"public": own.public} if own.public else {}
        return {"items": own.content("items"), "name": benchmark.name, "items_version": ITEMS_VERSION, **public}
    assert own is not None
    if isinstance(own, JudgedBenchmark):
        return {"items": own.content, "name": benchmark.name, "judged": True, "items_version": ITEMS_VERSION}
    if isinstance(own, SuiteBenchmark):
        return {
            "items": own.content, "name": benchmark.name, "items_version": ITEMS_VERSION, **computed_by("lm_eval", "datasets"),
        }  # fmt: skip
    return {
        "items": own.content, "cluster": own.cluster, "name": benchmark.name, "items_version": ITEMS_VERSION,
        **computed_by("lm_eval", "datasets"),
    }  # fmt: skip


def items_key(benchmark: Benchmark) -> str:
    """The key of its items."""
    return key_of(items_inputs(benchmark))


def prepare_items(store: Store, benchmarks: Sequence[Benchmark]) -> None:
    """Read the items of every benchmark of the user's own that the store lacks. Raises RetainError."""
    for benchmark in benchmarks:
        if benchmark.own is None or store.find("items", items_key(benchmark)):
            continue
        rows = _rows(benchmark)
        if len(rows) < 2:
            raise RetainError(f"{benchmark.name} has {len(rows)} item, and a drop is a mean over items: give it more")
        again: Counter[str] = Counter()
        for row in rows:
            # The warehouse keeps one row an item, so all that it says of an item tells items apart.
            same = canonical_json([benchmark.name, *(row[field] for field in ("prompt", "target", "cluster", "kind"))])
            row["item"] = hash64(f"{same}\n{again[same]}")
            again[same] += 1
        inputs = items_inputs(benchmark)
        with store.create("items", key_of(inputs), inputs) as draft:
            text = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
            (draft.path / FILE).write_text(text, encoding="utf-8")
            draft.meta["n"] = len(rows)


def read_items(store: Store, benchmark: Benchmark) -> list[dict[str, Any]]:
    """The items of a benchmark of the user's own."""
    file = store.get("items", items_key(benchmark)).file(FILE)
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


def _rows(benchmark: Benchmark) -> list[dict[str, Any]]:
    own = benchmark.own
    assert own is not None
    if isinstance(own, OwnTarget):
        return _of_target(own)
    if isinstance(own, JudgedBenchmark):
        return items_of_requests(own)
    if isinstance(own, SuiteBenchmark):
        from retain_core.suite.asking import items_of

        return items_of(own)
    return rows_of(own)


def _of_target(own: OwnTarget) -> list[dict[str, Any]]:
    rows = []
    gold = PUBLIC[own.public].gold if own.public else None
    for doc_id, (_, row) in enumerate(own.rows("items")):
        target = str(row[gold]) if gold else row.get("answer") or row.get("valid", [""])[0]
        cluster = None if row.get("cluster") is None else str(row["cluster"])
        valid = {"valid": row["valid"]} if own.exact else {}
        kind = row.get("kind") if own.public else None
        rows.append(
            {"doc_id": doc_id, "prompt": row["prompt"], "target": target, "cluster": cluster, "kind": kind, "row": row, **valid}
        )
    return rows
