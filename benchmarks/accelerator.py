"""What training and evaluation take on one accelerator, at the size of a model of 1.5 billion parameters with random weights.

    python -m benchmarks.accelerator [--out FILE] [--parts rate sft grpo evaluation passes resume] [--seconds N] [--tiny]
        [--only TEXT ...]

rate        matrix products of bf16 a second (8192 x 8192 x 8192): what the shares below are shares of
sft         retain's own SFT trainer: tokens a second, share of the rate, peak memory beside the estimate
grpo        a step of GRPO split into sampling, log-probabilities and update; sampling beside the model library alone
evaluation  items a second by kind of request, precision and batch size, through retain's own lm-eval model
passes      peak memory of the passes of an evaluation, as large as a study makes them, beside the estimate
resume      a training that is killed and goes on, beside one that nobody killed (a small model)

The results so far are in FILE after every measurement, so a kill loses little. `--tiny` is the same at tiny width, for a
machine without an accelerator: its numbers mean nothing, but every line has run.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parent.parent
PARTS = ("rate", "sft", "grpo", "evaluation", "passes", "resume")
FULL: dict[str, Any] = {
    "shape": {"hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
              "intermediate_size": 8960, "vocab_size": 151_936},
    "small": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
              "intermediate_size": 1024, "vocab_size": 4096},
    "matrix": 8192, "sequences": 64, "asked": 64, "answered": 960, "sampled": 256, "warm": 2, "timed": 3,
    "batches": (16, 64, 256), "generated": 64, "read": 128, "pass": None,
}  # fmt: skip
TINY: dict[str, Any] = {
    "shape": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
              "intermediate_size": 64, "vocab_size": 512},
    "small": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
              "intermediate_size": 64, "vocab_size": 512},
    "matrix": 256, "sequences": 16, "asked": 8, "answered": 16, "sampled": 8, "warm": 1, "timed": 1,
    "batches": (4, 8), "generated": 4, "read": 16, "pass": 256,
}  # fmt: skip
SFT_CASES: tuple[dict[str, Any], ...] = (
    {"micro_batch": 8, "compile": True, "profiled": True},
    {"micro_batch": 8, "profiled": True},
    {"micro_batch": 16, "compile": True, "activation_checkpointing": True},
    {"micro_batch": 16, "compile": True},
    {"micro_batch": 4},
    {"micro_batch": 16, "activation_checkpointing": True},
    {"micro_batch": 8, "compile": True, "uneven": True},
)
"""The most telling first: time may run out."""
TINY_CASES: tuple[dict[str, Any], ...] = (
    {"micro_batch": 4, "profiled": True},
    {"micro_batch": 4, "activation_checkpointing": True, "uneven": True},
    {"micro_batch": 4, "compile": True},
)
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'user' %}<user>{{ m.content }}{% else %}<assistant>{{ m.content }}<end>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
SPECIAL = ("<pad>", "<end>", "<user>", "<assistant>")
VERIFIER = '''"""A coin that anyone can toss again: half of all answers are right, by their letters."""

import hashlib


def right(answer, row):
    return hashlib.sha256(answer.encode()).digest()[0] % 2 == 0
'''
KILLED_AFTER, RESUMED_UPDATES = 4, 16


def cuda() -> bool:
    """Whether there is an accelerator."""
    return torch.cuda.is_available()


def now() -> float:
    """Seconds, once the accelerator has done what it was given."""
    if cuda():
        torch.cuda.synchronize()
    return time.perf_counter()


class Results:
    """What was measured so far, on disk after every measurement."""

    def __init__(self, file: Path, seconds: float, only: Sequence[str]) -> None:
        self._file, self._began, self._seconds, self._only = file, time.perf_counter(), seconds, only
        packages = ("torch", "transformers", "trl", "peft", "accelerate", "lm_eval")
        self.found: dict[str, Any] = {
            "date": time.strftime("%Y-%m-%d"), "python": platform.python_version(),
            "device": torch.cuda.get_device_name() if cuda() else "CPU",
            "versions": {name: _version(name) for name in packages}, "part": {},
        }  # fmt: skip

    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self._seconds - (time.perf_counter() - self._began)

    def measure(self, part: str, case: str, needs: float, work: Callable[[], dict[str, Any]]) -> None:
        """Keep what `work` gives, or why it gave nothing; it is left out where fewer than `needs` seconds are left."""
        if self._only and not any(text in f"{part} {case}" for text in self._only):
            return
        entry: dict[str, Any] = {}
        started = time.perf_counter()
        if needs and self.left() < needs:
            entry = {"left out": f"{self.left():.0f} s were left of the budget"}
        else:
            try:
                entry = work()
            except Exception as error:
                entry = {"failed": f"{type(error).__name__}: {error}"[:2000]}
            entry["wall_seconds"] = round(time.perf_counter() - started, 2)
        self.found["part"].setdefault(part, {})[case] = entry
        self._file.write_text(json.dumps(self.found, indent=1, default=str) + "\n", encoding="utf-8")
        sys.stderr.write(f"{part} {case}: {json.dumps({k: v for k, v in entry.items() if k != 'kernels'}, default=str)}\n")
        sys.stderr.flush()
        torch._dynamo.reset()  # what was compiled for one model keeps it alive
        gc.collect()
        if cuda():
            torch.cuda.empty_cache()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# What is measured with: a model, a tokenizer of its size, and a target of the user's own


def make_base(folder: Path, shape: dict[str, Any]) -> Path:
    """A Qwen2-shaped model with random weights and a tokenizer of its family with as many tokens."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = make_tokenizer(shape["vocab_size"])
    config = Qwen2Config(
        **shape, max_position_embeddings=4096, tie_word_embeddings=True, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cuda" if cuda() else "cpu"):
        model = Qwen2ForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def pieces(vocabulary: int) -> tuple[list[str], list[str], list[tuple[str, str]]]:
    """(tokens that are no words, words, merges) of a byte-pair vocabulary of that size.

    A word is two syllables, each a capital and a small letter, behind a space: ` AbCd` is one token.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    letters = "abcdefghijklmnopqrstuvwxyz"
    syllables = [(a.upper(), b) for a in letters for b in letters][: 676 if vocabulary > 10_000 else 16]
    joined = ["".join(pair) for pair in syllables]
    first = [("\u0120", syllable) for syllable in joined]  # byte-level BPE writes a space as this letter
    few = [*sorted(ByteLevel.alphabet()), *joined, *("".join(pair) for pair in first)]
    whole = [(f"\u0120{a}", b) for a in joined for b in joined][: vocabulary - len(few) - len(SPECIAL)]
    return few, ["".join(pair) for pair in whole], [*syllables, *first, *whole]


def make_tokenizer(vocabulary: int) -> Any:
    """A tokenizer of Qwen2's kind with words of our own."""
    from transformers import Qwen2Tokenizer

    few, words, merges = pieces(vocabulary)
    tokens = {token: i for i, token in enumerate([*few, *words])}
    return Qwen2Tokenizer(
        vocab=tokens, merges=merges, unk_token=None, pad_token="<pad>", eos_token="<end>",
        extra_special_tokens=["<user>", "<assistant>"], chat_template=TEMPLATE, padding_side="left",
    )  # fmt: skip


def make_target(folder: Path, name: str, dials: dict[str, Any], vocabulary: int, uneven: bool = False) -> Any:
    """A target whose prompts and answers are random words: all of one length, or answers from half of it up."""
    from retain_core.own.target import TargetFiles, seal_target

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "coin.py").write_text(VERIFIER, encoding="utf-8")
    rng, words = random.Random("accelerator"), pieces(vocabulary)[1]

    def row() -> dict[str, str]:
        answered = dials["answered"] - 1  # the stop token comes on top
        length = rng.randint(answered // 2, answered) if uneven else answered
        return {"prompt": text(rng, words, dials["asked"] - 2), "answer": text(rng, words, length)}  # <user>, <assistant>

    for part, count in (("train", 256), ("items", 8)):
        lines = "".join(json.dumps(row()) + "\n" for _ in range(count))
        (folder / f"{name}-{part}.jsonl").write_text(lines, encoding="utf-8")
    files = TargetFiles(
        name="made",
        train=f"{name}-train.jsonl",
        items=f"{name}-items.jsonl",
        verifier="coin:right",
        longest_answer=dials["sampled"],
    )
    return seal_target(files, folder)


def text(rng: random.Random, words: list[str], tokens: int) -> str:
    """Random words that make so many tokens; the first word has no space before it and takes two."""
    return "".join(rng.choice(words) for _ in range(tokens - 1)).replace("\u0120", " ").strip()


def arm(base: Path, target: Any, method: str, updates: int, sequences: int, size: Any, **more: Any) -> Any:
    """An arm of that method as a study would make it."""
    from retain_core.arms import ArmSpec, BaseRef
    from retain_core.lab.spec import lab_spec
    from retain_core.methods import NAMED, Method

    return ArmSpec(
        arm=f"accelerator/{method}", study="accelerator", method=method, role="method",
        config=Method(label=method, **NAMED[method] | more).config(), base=BaseRef(model=str(base), fingerprint="made"),
        world=lab_spec("smoke"), dataset_key="made", target="made", learning_rate=1e-5, seed=0, updates=updates,
        sequences_per_update=sequences, steps=(updates,), retention=(), benchmarks=(), keep="last", threads=1,
        own_target=target, size=size,
    )  # fmt: skip


class Watch:
    """Seconds and peak memory of every update of a trainer, and the kernels of the last one where that is wanted."""

    def __init__(self, trainer: Any, profiled: bool) -> None:
        from transformers import TrainerCallback

        self.seconds: list[float] = []
        self.peaks: list[int] = []
        self.kernels: list[dict[str, Any]] = []
        watch, last = self, trainer.args.max_steps - 1

        class Each(TrainerCallback):  # type: ignore[misc]
            started = 0.0
            profiler: Any = None

            def on_step_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
                if cuda():
                    torch.cuda.reset_peak_memory_stats()
                if profiled and state.global_step == last:
                    kinds = [torch.profiler.ProfilerActivity.CUDA if cuda() else torch.profiler.ProfilerActivity.CPU]
                    self.profiler = torch.profiler.profile(activities=kinds)
                    self.profiler.__enter__()
                self.started = now()

            def on_step_end(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
                watch.seconds.append(now() - self.started)
                watch.peaks.append(torch.cuda.max_memory_allocated() if cuda() else 0)
                if self.profiler is not None:
                    self.profiler.__exit__(None, None, None)
                    watch.kernels = _kernels(self.profiler)
                    self.profiler = None

        trainer.add_callback(Each())


def _kernels(profiler: Any, most: int = 25) -> list[dict[str, Any]]:
    """Where an update's time went, the longest first."""
    spent = [
        (getattr(event, "self_device_time_total", 0) or event.self_cpu_time_total, event.count, event.key)
        for event in profiler.key_averages()
    ]
    whole = sum(entry[0] for entry in spent) or 1
    return [
        {"kernel": key[:120], "share": round(time_ / whole, 4), "ms": round(time_ / 1e3, 2), "count": count}
        for time_, count, key in sorted(spent, reverse=True)[:most]
    ]


# The parts


def rate(size: int) -> dict[str, Any]:
    """Operations a second of a square product in bf16 on random values."""
    device = "cuda" if cuda() else "cpu"
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        a @ b
    spent = []
    for _ in range(5):
        started = now()
        for _ in range(10):
            a @ b
        spent.append((now() - started) / 10)
    return {"flops_per_second": 2 * size**3 / statistics.median(spent), "size": size}


def sft(folder: Path, base: Path, dials: dict[str, Any], peak_rate: float | None, case: dict[str, Any]) -> dict[str, Any]:
    """SFT on sequences of one length, or of many: retain's trainer as `prepare` makes it."""
    from retain_core.training.finite import refuse_what_is_not_finite
    from retain_core.training.memory import Shape, training_flops, training_peak
    from retain_core.training.size import TrainingSize
    from retain_core.training.train import prepare

    profiled, uneven = case.pop("profiled", False), case.pop("uneven", False)
    size = TrainingSize(**case, dtype="auto" if cuda() else "bf16")
    target = make_target(folder / "text", f"uneven-{uneven}", dials, dials["shape"]["vocab_size"], uneven)
    updates = dials["warm"] + dials["timed"] + profiled
    started = now()
    trainer, count = prepare(arm(base, target, "sft", updates, dials["sequences"], size), base, folder)
    prepared = now() - started
    refuse_what_is_not_finite(trainer)
    watch = Watch(trainer, profiled)
    started = now()
    trainer.train()
    whole = now() - started
    shape = Shape.of(trainer.model.config)
    assert shape.parameters == sum(p.numel() for p in trainer.model.parameters())
    timed = watch.seconds[dials["warm"] : dials["warm"] + dials["timed"]]
    seconds = statistics.median(timed)
    longest = dials["asked"] + dials["answered"]
    tokens, answered = dials["sequences"] * longest, dials["sequences"] * dials["answered"]
    if uneven:  # padding is not counted
        answered = count(trainer).tokens_trained // updates
        tokens = answered + dials["sequences"] * dials["asked"]
    assert uneven or count(trainer).tokens_trained == updates * answered
    flops = training_flops(shape, tokens, answered, longest if not uneven else tokens // dials["sequences"])
    estimate = training_peak(shape, size, min(size.micro_batch or dials["sequences"], dials["sequences"]), longest)
    peak = max(watch.peaks[1:], default=0)
    found = {
        "size": size.model_dump(), "sequences": dials["sequences"], "longest": longest, "uneven": uneven,
        "parameters": shape.parameters, "seconds_per_update": seconds, "seconds": watch.seconds,
        "seconds_to_prepare": prepared, "seconds_outside_updates": whole - sum(watch.seconds),
        "tokens_per_second": tokens / seconds, "flops_per_second": flops / seconds,
        "flops_per_second_6N": 6 * shape.parameters * tokens / seconds,
        "share_of_rate": peak_rate and flops / seconds / peak_rate,
        "share_of_rate_6N": peak_rate and 6 * shape.parameters * tokens / seconds / peak_rate,
        "peak_bytes": peak, "estimated_bytes": estimate, "estimate_over_peak": estimate / peak if peak else None,
        "peaks": watch.peaks, "tokens_trained": count(trainer).tokens_trained, "kernels": watch.kernels,
    }  # fmt: skip
    if size.compile:
        found["seconds_to_compile"] = watch.seconds[0] - seconds
    return found


@contextmanager
def timed(thing: Any, name: str, spent: list[float]) -> Iterator[None]:
    """Within it the seconds of every call of a method go to `spent`."""
    method = getattr(thing, name)

    def watched(*args: Any, **kwargs: Any) -> Any:
        started = now()
        try:
            return method(*args, **kwargs)
        finally:
            spent.append(now() - started)

    setattr(thing, name, watched)
    try:
        yield
    finally:
        delattr(thing, name)


def grpo(folder: Path, base: Path, dials: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
    """Steps of GRPO as `prepare` makes its trainer, and the same samples from the library alone."""
    target = make_target(folder / "text", "sampled", dials, dials["shape"]["vocab_size"])
    found = grpo_steps(folder, base, target, dials, case)
    gc.collect()  # the trainer has gone
    alone = sampled_alone(base, target, dials)
    return found | {
        "seconds_library_alone": alone,
        "sampling_over_library": found["seconds_sampling"] / statistics.median(alone),
    }


def grpo_steps(folder: Path, base: Path, target: Any, dials: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
    """Where the time of a step goes; the first one warms up."""
    from retain_core.training.finite import refuse_what_is_not_finite
    from retain_core.training.size import TrainingSize
    from retain_core.training.train import prepare

    size = TrainingSize(**case, dtype="auto" if cuda() else "bf16")
    updates = 1 + dials["timed"]
    trainer, _ = prepare(arm(base, target, "grpo", updates, dials["sequences"], size), base, folder)
    refuse_what_is_not_finite(trainer)
    watch = Watch(trainer, profiled=False)
    spent: dict[str, list[float]] = {}
    with (
        timed(trainer, "_generate_single_turn", spent.setdefault("sampling", [])),
        timed(trainer, "_get_per_token_logps_and_entropies", spent.setdefault("log_probabilities", [])),
    ):
        trainer.train()
    parts = size.parts(dials["sequences"])
    scored = spent["log_probabilities"]
    split = {
        "sampling": statistics.median(spent["sampling"][1:]),
        "log_probabilities": statistics.median(sum(scored[i : i + parts]) for i in range(parts, len(scored), parts)),
    }
    seconds = statistics.median(watch.seconds[1:])
    log = trainer.state.log_history
    return {
        "size": size.model_dump(), "samples": dials["sequences"], "new_tokens": dials["sampled"],
        "mean_length": [entry["completions/mean_length"] for entry in log if "completions/mean_length" in entry],
        "seconds_per_update": seconds, **{f"seconds_{name}": value for name, value in split.items()},
        "seconds_update": seconds - sum(split.values()), "seconds": watch.seconds, "spent": spent,
        "peak_bytes": max(watch.peaks[1:], default=0),
    }  # fmt: skip


def sampled_alone(base: Path, target: Any, dials: dict[str, Any]) -> list[float]:
    """Seconds of transformers' own `generate` in bf16 for as many samples to as many prompts; the first time warms up."""
    from transformers import AutoModelForCausalLM

    from retain_core.training.encode import encode_prompts, read_tokenizer

    tokenizer = read_tokenizer(base)
    prompts = [row["prompt"] for _, row in target.rows("train")[: dials["sequences"] // 8] for _ in range(8)]
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).to("cuda" if cuda() else "cpu").eval()
    batch = tokenizer.pad({"input_ids": encode_prompts(tokenizer, prompts)}, padding_side="left", return_tensors="pt")
    spent = []
    with torch.no_grad():
        for _ in range(1 + dials["timed"]):
            started = now()
            model.generate(
                **batch.to(model.device), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                max_new_tokens=dials["sampled"], pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
            )  # fmt: skip
            spent.append(now() - started)
    return spent[1:]


def asked_model(base: Path, dtype: str) -> Any:
    """The model that lm-eval asks in retain, in that precision."""
    from retain_core.evaluation.divergence import load_model
    from retain_core.evaluation.harness import RecordingLM

    model, tokenizer = load_model(base)
    return RecordingLM(model.to(getattr(torch, dtype)), tokenizer)


def evaluation(lm: Any, dials: dict[str, Any], kind: str, dtype: str, batch: int) -> dict[str, Any]:
    """Items a second of one kind of request."""
    from lm_eval.api.instance import Instance

    lm.batch_size_per_gpu = batch
    rng, words = random.Random("items"), pieces(dials["shape"]["vocab_size"])[1]

    def requests() -> list[Any]:
        if kind == "generate":
            options = {"until": ["<end>"], "do_sample": False, "max_gen_toks": dials["generated"]}
            asked: list[tuple[Any, ...]] = [(text(rng, words, dials["asked"]), options) for _ in range(batch)]
            return [Instance("generate_until", {}, entry, 0) for entry in asked]
        asked = [(text(rng, words, dials["read"] - 8), " " + text(rng, words, 8)) for _ in range(4 * batch)]
        return [Instance("loglikelihood", {}, entry, 0) for entry in asked]

    answer = lm.generate_until if kind == "generate" else lm.loglikelihood
    answer(requests()[:batch], disable_tqdm=True)
    if cuda():
        torch.cuda.reset_peak_memory_stats()
    asked = requests()
    started = now()
    answer(asked, disable_tqdm=True)
    seconds = now() - started
    peak = torch.cuda.max_memory_allocated() if cuda() else 0
    return {
        "kind": kind, "dtype": dtype, "batch": batch, "items": len(asked), "seconds": seconds,
        "items_per_second": len(asked) / seconds, "peak_bytes": peak,
        "tokens": {"generate": f"{dials['asked']} read, {dials['generated']} written"}.get(kind, f"{dials['read']} read"),
    }  # fmt: skip


def passes(base: Path, dials: dict[str, Any], kind: str, dtype: Any) -> dict[str, Any]:
    """Peak memory of one kind of pass with the base beside the checkpoint, no pass smaller than a study's, and the estimate."""
    from lm_eval.api.instance import Instance

    from retain_core.cards import shape_of
    from retain_core.evaluation.divergence import kl_along, load_model
    from retain_core.evaluation.harness import RecordingLM
    from retain_core.evaluation.size import EvaluationSize
    from retain_core.training.memory import evaluation_peak

    size = EvaluationSize(dtype=dtype, batch_tokens=dials["pass"]).fitted_to(base)
    (checkpoint, tokenizer), (untouched, _) = load_model(base, dtype), load_model(base, dtype)
    lm = RecordingLM(checkpoint, tokenizer, at_once=size.batch_tokens, softmax="float32")
    longest = dials["answered"] + dials["generated"]
    rows = 1 + (size.batch_tokens or 8 * longest) // longest
    rng, words = random.Random("passes"), pieces(dials["shape"]["vocab_size"])[1]
    prompts = [text(rng, words, dials["answered"] - 8) for _ in range(rows)]
    if cuda():
        torch.cuda.reset_peak_memory_stats()
    started = now()
    if kind == "generate":
        options = {"until": ["<end>"], "do_sample": False, "max_gen_toks": dials["generated"]}
        lm.generate_until([Instance("generate_until", {}, (prompt, options), 0) for prompt in prompts], disable_tqdm=True)
    elif kind == "log-likelihood":
        asked = [Instance("loglikelihood", {}, (prompt, " " + text(rng, words, 8)), 0) for prompt in prompts]
        lm.loglikelihood(asked, disable_tqdm=True)
    else:
        answers = [[rng.randrange(8, 500) for _ in range(dials["generated"])] for _ in prompts]
        kl_along(untouched, checkpoint, tokenizer, prompts, answers, size.batch_tokens)
    peak = torch.cuda.max_memory_allocated() if cuda() else 0
    return {
        "kind": kind, "dtype": dtype, "batch_tokens": size.batch_tokens, "rows": rows, "seconds": now() - started,
        "peak_bytes": peak, "estimated_bytes": evaluation_peak(shape_of(base), size, longest),
    }  # fmt: skip


def resume(folder: Path, dials: dict[str, Any], method: str, twice: bool) -> dict[str, Any]:
    """One arm of a small model: killed with SIGKILL and gone on with, beside one that nobody killed.

    `twice` trains that once more: what two equal trainings differ by on this machine is no fault of going on.
    """
    from safetensors.torch import load_file

    from retain_core.training.size import TrainingSize

    base = make_base(folder / f"small-{method}", dials["small"])
    lengths = {**dials, "asked": 16, "answered": 48, "sampled": 32}
    target = make_target(folder / "text", f"small-{method}", lengths, dials["small"]["vocab_size"])
    spec = arm(base, target, method, RESUMED_UPDATES, 16, TrainingSize(micro_batch=8))
    file = folder / f"{method}.json"
    file.write_text(spec.model_dump_json(), encoding="utf-8")
    names = ("killed", "whole", *(["again"] if twice else []))
    out = {name: folder / f"{method}-{name}" for name in names}
    running = {name: begun(file, base, place) for name, place in out.items()}
    states, process = out["killed"] / "state", running.pop("killed")
    while process.poll() is None and not any(int(p.name) >= KILLED_AFTER for p in states.glob("*")):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    killed = process.wait() == -signal.SIGKILL
    left = sorted(int(p.name) for p in states.glob("*"))
    running["killed"] = begun(file, base, out["killed"])
    said = {name: child.communicate() for name, child in running.items()}
    for name, child in running.items():
        if child.returncode:
            raise RuntimeError(f"{name}: {said[name][1][-1500:]}")
    weights = {name: load_file(place / "weights" / str(RESUMED_UPDATES) / "model.safetensors") for name, place in out.items()}
    start = load_file(base / "model.safetensors")

    def apart(a: str, b: str) -> dict[str, Any]:
        gaps = [(weights[a][k].float() - weights[b][k].float()).abs().max().item() for k in weights[a]]
        same = all(torch.equal(weights[a][k], weights[b][k]) for k in weights[a])
        return {"bit_for_bit": same, "largest_difference": max(gaps)}

    moved = max((weights["whole"][k].float() - start[k].float()).abs().max().item() for k in start)
    return {
        "method": method, "killed": killed, "went_on_after_update": left, "updates": RESUMED_UPDATES,
        "killed_and_whole": apart("killed", "whole"), "largest_movement": moved,
        **({"two_whole_ones": apart("again", "whole")} if twice else {}),
    }  # fmt: skip


def begun(spec: Path, base: Path, out: Path) -> subprocess.Popen[str]:
    """A process that trains an arm and writes a state after every update."""
    command = [sys.executable, "-m", "benchmarks.accelerator", "--child", str(spec), str(base), str(out)]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def child(spec: str, base: str, out: str) -> None:
    """Train in this process."""
    from retain_core.arms import ArmSpec
    from retain_core.training.train import train

    torch.set_num_threads(1)
    train(ArmSpec.model_validate_json(Path(spec).read_text(encoding="utf-8")), Path(base), Path(out), every=0)


def run(results: Results, parts: list[str], dials: dict[str, Any], folder: Path) -> None:
    """Measure the parts that are asked for."""
    measure, tiny = results.measure, dials is TINY
    base: Path | None = None
    if {"sft", "grpo", "evaluation", "passes"} & set(parts):
        base = make_base(folder / "base", dials["shape"])
    if "rate" in parts:
        measure("rate", "bf16", 0, partial(rate, dials["matrix"]))
    found = results.found["part"].get("rate", {}).get("bf16", {}).get("flops_per_second")

    def imitate(cases: Sequence[dict[str, Any]]) -> None:
        for case in cases if base and "sft" in parts else ():
            measure("sft", _name(case), 25, partial(sft, folder, base, dials, found, dict(case)))

    def ask(dtype: str) -> None:
        if not base or "evaluation" not in parts:
            return
        lm = asked_model(base, dtype)
        for kind in ("generate", "log-likelihood"):
            for batch in dials["batches"]:
                name = f"{kind}, {dtype}, batch {batch}"
                measure("evaluation", name, 10, partial(evaluation, lm, dials, kind, dtype, batch))

    cases = TINY_CASES if tiny else SFT_CASES
    imitate(cases[:3])
    if base and "grpo" in parts:
        size = {"micro_batch": 4 if tiny else 16}
        measure("grpo", _name(size), 60, partial(grpo, folder, base, dials, size))
    for kind in ("generate", "log-likelihood", "kl") if base and "passes" in parts else ():
        measure("passes", f"{kind}, bfloat16", 20, partial(passes, base, dials, kind, "bfloat16"))
    if "resume" in parts:
        for method in ("sft", "grpo"):
            measure("resume", method, 40, partial(resume, folder, dials, method, not tiny))
    ask("bfloat16")
    imitate(cases[3:])
    ask("float32")


def _name(case: dict[str, Any]) -> str:
    on = [name for name in ("compile", "activation_checkpointing", "uneven") if case.get(name)]
    return ", ".join([f"micro_batch {case['micro_batch']}", *on])


def main() -> None:
    """Measure, and say where the results lie."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("accelerator.json"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=420, help="no measurement begins that would hardly end within it")
    parser.add_argument("--only", nargs="+", default=[], help="measure what has one of these texts in its name: uneven")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        child(*chosen.child)
        return
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    folder = Path(tempfile.mkdtemp(prefix="retain-accelerator-"))
    results = Results(chosen.out.absolute(), chosen.seconds, chosen.only)
    try:
        run(results, chosen.parts, TINY if chosen.tiny else FULL, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(chosen.out)


if __name__ == "__main__":
    main()
