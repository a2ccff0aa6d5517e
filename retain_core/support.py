"""How much support the base has on the target: pass@k from many samples an item.

Owns the `support` artifact: counts.parquet with a row per item (doc_id, samples, correct). On-policy
methods can only find what the base already samples, so this says what they can hope for.
"""

from __future__ import annotations

import json
from math import comb
from pathlib import Path
from typing import Any

from retain_core.arms import computed_by
from retain_core.store import Artifact, Store, key_of

ITEMS, SAMPLES, SEED, MAX_NEW_TOKENS = 100, 64, 0, 16
KS = (1, 8, 64)


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Unbiased estimate of P(at least one of k samples is right): 1 - C(n-c, k) / C(n, k)."""
    return 1.0 - comb(samples - correct, k) / comb(samples, k)


def support_inputs(fingerprint: str, dataset_key: str, target: str, threads: int) -> dict[str, Any]:
    """What the counts depend on."""
    return {
        "support": fingerprint, "dataset": dataset_key, "target": target, "items": ITEMS, "samples": SAMPLES, "seed": SEED,
        "threads": threads, **computed_by("torch", "transformers"),
    }  # fmt: skip


def support_key(fingerprint: str, dataset_key: str, target: str, threads: int) -> str:
    """The key of the support artifact."""
    return key_of(support_inputs(fingerprint, dataset_key, target, threads))


def measure_support(store: Store, weights: Path, fingerprint: str, dataset: Artifact, target: str, threads: int) -> None:
    """Sample the base on the first target items and publish how often it is right."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

    from retain_core.training.sampling import sample_answers

    lines = dataset.file(f"items/{target}.jsonl").read_text(encoding="utf-8").splitlines()
    docs = [json.loads(line) for line in lines[:ITEMS]]
    model = AutoModelForCausalLM.from_pretrained(weights, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(weights)
    set_seed(SEED)
    prompts = [doc["prompt"] for doc in docs for _ in range(SAMPLES)]
    answers = sample_answers(model, tokenizer, prompts, temperature=1.0, max_new_tokens=MAX_NEW_TOKENS)
    correct = [0] * len(docs)
    for index, (text, finished, _) in enumerate(answers):
        correct[index // SAMPLES] += finished and text in docs[index // SAMPLES]["valid"]
    inputs = support_inputs(fingerprint, dataset.key, target, threads)
    with store.create("support", key_of(inputs), inputs) as draft:
        rows = [{"doc_id": d["doc_id"], "samples": SAMPLES, "correct": c} for d, c in zip(docs, correct, strict=True)]
        pq.write_table(pa.Table.from_pylist(rows), draft.path / "counts.parquet")
        draft.meta["pass_at"] = {str(k): sum(pass_at_k(SAMPLES, c, k) for c in correct) / len(correct) for k in KS}
