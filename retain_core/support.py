"""How much support the base has on the target: pass@k from many samples an item.

Owns the `support` artifact: counts.parquet with a row per item (doc_id, samples, correct). On-policy
methods can only find what the base already samples, so this says what they can hope for.
"""

from __future__ import annotations

import json
from functools import partial
from math import comb
from pathlib import Path
from typing import Any

from retain_core.arms import computed_by
from retain_core.evaluation.benchmarks import Benchmark
from retain_core.evaluation.size import AS_THE_LAB, EvaluationSize
from retain_core.own.items import read_items
from retain_core.own.target import OwnTarget, longest_answer, says
from retain_core.store import Store, key_of
from retain_core.training.rewards import Judge, alarm

ITEMS, SAMPLES, SEED = 100, 64, 0
KS = (1, 8, 64)


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Unbiased estimate of P(at least one of k samples is right): 1 - C(n-c, k) / C(n, k)."""
    return 1.0 - comb(samples - correct, k) / comb(samples, k)


def support_inputs(
    fingerprint: str, dataset_key: str, target: Benchmark, threads: int, size: EvaluationSize = AS_THE_LAB
) -> dict[str, Any]:
    """What the counts depend on."""
    asked: dict[str, Any] = {"dataset": dataset_key, "target": target.name}
    if isinstance(target.own, OwnTarget):
        asked = {"target": target.own.evaluation_identity()}
    return {
        "support": fingerprint, **asked, "items": ITEMS, "samples": SAMPLES, "seed": SEED,
        "threads": threads, **computed_by("torch", "transformers"), **({"evaluation": size.inputs()} if size.inputs() else {}),
    }  # fmt: skip


def support_key(fingerprint: str, dataset_key: str, target: Benchmark, threads: int, size: EvaluationSize = AS_THE_LAB) -> str:
    """The key of the support artifact."""
    return key_of(support_inputs(fingerprint, dataset_key, target, threads, size))


def measure_support(
    store: Store,
    weights: Path,
    fingerprint: str,
    dataset_key: str,
    target: Benchmark,
    threads: int,
    size: EvaluationSize = AS_THE_LAB,
) -> None:
    """Sample the base on the first target items and publish how often it is right."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from transformers import set_seed

    from retain_core.evaluation.divergence import load_model
    from retain_core.training.sampling import sample_answers

    model, tokenizer = load_model(weights, size.dtype)
    longest, judge = target.longest, Judge()
    if isinstance(target.own, OwnTarget):
        docs, right = read_items(store, target)[:ITEMS], target.own.verifier.load()
        longest = longest_answer(target.own, tokenizer)
    else:
        file = store.get("dataset", dataset_key).file(f"items/{target.name}.jsonl")
        docs = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[:ITEMS]]

    def solved(doc: dict[str, Any], text: str) -> bool:
        if target.own is None:
            return text.strip() in doc["valid"]
        return judge.earned(partial(says, right, doc["row"], text)) > 0

    set_seed(SEED)
    prompts = [doc["prompt"] for doc in docs for _ in range(SAMPLES)]
    answers = sample_answers(model, tokenizer, prompts, temperature=1.0, max_new_tokens=longest, at_once=size.batch_tokens)
    correct = [0] * len(docs)
    with alarm():
        for index, (text, finished, _) in enumerate(answers):
            correct[index // SAMPLES] += finished and solved(docs[index // SAMPLES], text)
    judge.refuse(f"the verifier of {target.name}", judge.failures, len(answers))
    inputs = support_inputs(fingerprint, dataset_key, target, threads, size)
    with store.create("support", key_of(inputs), inputs) as draft:
        rows = [{"doc_id": d["doc_id"], "samples": SAMPLES, "correct": c} for d, c in zip(docs, correct, strict=True)]
        pq.write_table(pa.Table.from_pylist(rows), draft.path / "counts.parquet")
        draft.meta["pass_at"] = {str(k): sum(pass_at_k(SAMPLES, c, k) for c in correct) / len(correct) for k in KS}
