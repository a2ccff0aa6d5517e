"""KL to base, both ways, on target and retention prompts (measurement: section 1).

Forward is E over y ~ base of sum_t KL(base(.|x,y<t) || checkpoint(.|x,y<t)), reverse the same with y ~
checkpoint and the two models exchanged. Answers are sampled at temperature 1 from the whole distribution,
the sum runs over the full vocabulary at every position of the answer with its stop token, so only the
answers are random, not the KL along them. The answers of the base are drawn once.

Owns two artifacts:
base_samples   samples.parquet: prompts (target | retention), prompt, answer (token ids)
divergence     divergence.parquet: prompts, direction (forward | reverse), item, nats, tokens; meta: reason
               (why there are no rows, where there are none)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retain_core.arms import computed_by
from retain_core.canonical import hash64
from retain_core.evaluation.size import AS_THE_LAB, DIVERGENCE_PROMPTS, EvaluationSize
from retain_core.passes import groups, read
from retain_core.store import Artifact, Store, key_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SAMPLES, ROWS = "samples.parquet", "divergence.parquet"
MAX_NEW_TOKENS = 16
SEED = 0
DIVERGENCE_VERSION = 1
"""Raised when equal settings would give other numbers."""
SEQUENCES_PER_PASS = 200


@dataclass(frozen=True)
class DivergenceSettings:
    """What both artifacts depend on beside the models."""

    base: str
    """Fingerprint of the base."""
    dataset_key: str
    target: str
    retention: tuple[str, ...]
    """The retention benchmarks, in the study's order: their prompts take turns."""
    threads: int
    chat_template: str
    own: tuple[tuple[str, str], ...] = ()
    """(benchmark, key of its items) of those that are the user's own."""
    longest: int = MAX_NEW_TOKENS
    """Tokens of a sampled answer at most."""
    size: EvaluationSize = AS_THE_LAB
    """Precision and batches, of the base and of every checkpoint."""
    prompts: int = DIVERGENCE_PROMPTS
    """How many of the target, and of all retention benchmarks together, where there are as many."""

    def inputs(self) -> dict[str, Any]:
        """Canonical inputs of the base's samples."""
        own = {"own": dict(self.own)} if self.own else {}
        size = {"evaluation": self.size.inputs()} if self.size.inputs() else {}
        return {
            **own, **size, "base_samples": self.base, "dataset": self.dataset_key, "target": self.target,
            "retention": list(self.retention), "prompts_per_set": self.prompts, "max_new_tokens": self.longest,
            "seed": SEED, "threads": self.threads, "chat_template": self.chat_template,
            "divergence_version": DIVERGENCE_VERSION, **computed_by("torch", "transformers"),
        }  # fmt: skip


@dataclass(frozen=True)
class DivergencePlan:
    """The divergences of one checkpoint, to be computed or found."""

    checkpoint: dict[str, Any]
    settings: DivergenceSettings
    kind = "divergence"

    @property
    def inputs(self) -> dict[str, Any]:
        """What the numbers depend on."""
        return {"divergence": self.checkpoint, "samples": key_of(self.settings.inputs())}

    @property
    def key(self) -> str:
        """The key of the artifact."""
        return key_of(self.inputs)


def prompts_of(store: Store, settings: DivergenceSettings) -> dict[str, list[str]]:
    """`target` and `retention` -> prompts; those of the retention benchmarks in turn."""
    own = dict(settings.own)

    def read(benchmark: str) -> list[str]:
        if benchmark in own:
            file = store.get("items", own[benchmark]).file("items.jsonl")
        else:
            file = store.get("dataset", settings.dataset_key).file(f"items/{benchmark}.jsonl")
        return [json.loads(line)["prompt"] for line in file.read_text(encoding="utf-8").split("\n") if line]

    each = [read(name) for name in settings.retention]
    mixed = [prompt for turn in zip(*each, strict=False) for prompt in turn]
    return {"target": read(settings.target)[: settings.prompts], "retention": mixed[: settings.prompts]}


def sample_base(store: Store, weights: Path, settings: DivergenceSettings) -> None:
    """Draw the base's answers and publish them, if they are not there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    inputs = settings.inputs()
    if store.find("base_samples", key_of(inputs)):
        return
    model, tokenizer = load_model(weights, settings.size.dtype)
    rows: list[dict[str, Any]] = []
    for name, prompts in prompts_of(store, settings).items():
        answers = _sampled(model, tokenizer, prompts, settings)
        rows += [{"prompts": name, "prompt": p, "answer": a} for p, a in zip(prompts, answers, strict=True)]
    with store.create("base_samples", key_of(inputs), inputs) as draft:
        pq.write_table(pa.Table.from_pylist(rows), draft.path / SAMPLES, compression="zstd")


class Divergences:
    """Computes the divergences of one checkpoint after another; the base is read once."""

    def __init__(self, base_weights: Path, samples: Artifact, size: EvaluationSize = AS_THE_LAB) -> None:
        import pyarrow.parquet as pq

        self._base, self._tokenizer = load_model(base_weights, size.dtype)
        self._samples: list[dict[str, Any]] = pq.read_table(samples.file(SAMPLES)).to_pylist()

    def measure(self, store: Store, plan: DivergencePlan, model: Any, tokenizer: Any) -> None:
        """Publish both directions on both sets of prompts; the model is in the precision of the plan's settings."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        same_words = tokenizer.get_vocab() == self._tokenizer.get_vocab()
        rows = self._rows(model, tokenizer, plan.settings) if same_words else []
        schema = pa.schema(
            [("prompts", pa.string()), ("direction", pa.string()), ("item", pa.int64()), ("nats", pa.float64()),
             ("tokens", pa.int32())]
        )  # fmt: skip
        with store.create("divergence", plan.key, plan.inputs) as draft:
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), draft.path / ROWS, compression="zstd")
            draft.meta["reason"] = None if same_words else "the checkpoint's tokenizer has another vocabulary than the base's"

    def _rows(self, model: Any, tokenizer: Any, settings: DivergenceSettings) -> list[dict[str, Any]]:
        rows, at_once = [], settings.size.batch_tokens
        for name in ("target", "retention"):
            drawn = [s for s in self._samples if s["prompts"] == name]
            prompts = [s["prompt"] for s in drawn]
            own = _sampled(model, tokenizer, prompts, settings)
            forward = kl_along(self._base, model, tokenizer, prompts, [s["answer"] for s in drawn], at_once)
            reverse = kl_along(model, self._base, tokenizer, prompts, own, at_once)
            for direction, found in (("forward", forward), ("reverse", reverse)):
                rows += [
                    {"prompts": name, "direction": direction, "item": hash64(prompt), "nats": nats, "tokens": tokens}
                    for prompt, (nats, tokens) in zip(prompts, found, strict=True)
                ]
        return rows


def kl_along(
    p: PreTrainedModel,
    q: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    answers: list[list[int]],
    at_once: int | None = None,
) -> list[tuple[float, int]]:
    """(sum over the answer's positions of KL(p || q) in nats, number of positions) for each prompt and its answer.

    `answers` are token ids that end with the stop token unless they were cut; prompts are rendered by the
    chat template. Both models read the same tokens. `at_once` is how many of them a pass holds at most, and then the
    distributions are there for some positions at a time; None compares whole batches at once.
    """
    import torch

    from retain_core.training.encode import encode_prompts

    encoded, whole = encode_prompts(tokenizer, prompts), at_once is None
    found: list[tuple[float, int]] = []
    for chosen in groups([len(h) + len(t) for h, t in zip(encoded, answers, strict=True)], SEQUENCES_PER_PASS, at_once):
        heads, tails = encoded[chosen], answers[chosen]
        longest = max(len(h) + len(t) for h, t in zip(heads, tails, strict=True))
        rows = [h + t + [0] * (longest - len(h) - len(t)) for h, t in zip(heads, tails, strict=True)]
        ids = torch.tensor(rows, device=p.device)
        place = torch.arange(longest, device=p.device)
        ends = torch.tensor([len(h) + len(t) for h, t in zip(heads, tails, strict=True)], device=p.device)[:, None]
        starts = torch.tensor([len(h) for h in heads], device=p.device)[:, None]
        mask = (place < ends).long()
        # The distribution at position t is the one that the token at t+1 was drawn from.
        counted = (place >= starts - 1) & (place < ends - 1)
        with torch.no_grad():
            of_p, of_q = (read(model, ids, whole, attention_mask=mask) for model in (p, q))
            kl = torch.zeros(ids.shape, dtype=torch.float64, device=p.device)
            for part in of_p.stretches(whole):
                if counted[:, part].any():
                    log_p, log_q = (of.logits(part).float().log_softmax(-1) for of in (of_p, of_q))
                    kl[:, part] = (log_p.exp() * (log_p - log_q)).sum(-1).double()
        kl *= counted
        # In this order: rounding below 0 is cut, a NaN stays one.
        found += [(max(nats, 0.0), len(t)) for nats, t in zip(kl.sum(1).tolist(), tails, strict=True)]
    return found


def load_model(weights: Path, dtype: str = "float32") -> tuple[Any, Any]:
    """A model on the device at hand, ready to be asked, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM

    from retain_core.training.encode import read_tokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(weights, dtype=getattr(torch, dtype), use_safetensors=True).to(device).eval()
    return model, read_tokenizer(weights)


def _sampled(model: Any, tokenizer: Any, prompts: list[str], settings: DivergenceSettings) -> list[list[int]]:
    from transformers import set_seed

    from retain_core.training.sampling import sample_ids

    set_seed(SEED)
    at_once = settings.size.batch_tokens
    return sample_ids(model, tokenizer, prompts, temperature=1.0, max_new_tokens=settings.longest, at_once=at_once)
