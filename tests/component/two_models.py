"""A tiny base and a fine-tuned copy of it, evaluated by lm-eval itself: what `retain compare` is tested on.

`python -m tests.component.two_models docs/examples` writes the example of docs/compare.md again.
The base learns sums, colours and animals; the copy then learns differences, whose answers come with
a word of their own ("surely"), and forgets some of the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent.parent / "data" / "two_models"
COLOURS = ("red", "green", "blue", "yellow")
THINGS = (  # noqa: SIM905
    "apple ball boat book bottle box bucket car carpet chair clock coat cup curtain desk door fence flag flower gate "
    "glass hat house jar kettle kite lamp leaf mug pen plate pot ring roof rope scarf shed shirt shoe sofa spoon stone "
    "table tent train van vase wall"
).split()
LEGS = {"no": "fish snake worm whale", "two": "hen owl duck crow", "four": "dog cat cow lion", "six": "bee ant wasp moth"}
SOUNDS = {"bark": "dog fox seal", "hum": "bee wasp fly", "roar": "lion bear"}
EXAMPLE = ["sums", "colours", "animals"]


def items() -> dict[str, list[dict[str, Any]]]:
    """The items of every benchmark; `family` is a field to cluster by."""
    draw = random.Random(0)
    colour_of = {thing: draw.choice(COLOURS) for thing in THINGS}
    pairs = draw.sample([(a, b) for a in range(10) for b in range(10)], 48)
    sums = [{"a": a, "b": b, "answer": str(a + b), "family": f"{min(a, b)}"} for a, b in pairs]
    stories = [{"start": f"{s['a']} plus {s['b']} is", "end": f" {s['answer']} ."} for s in sums[:12]]
    return {
        "sums": sums,
        "colours": [{"thing": t, "colour": c} for t, c in colour_of.items()],
        "animals_legs": [{"animal": a, "answer": n} for n, animals in LEGS.items() for a in animals.split()],
        "animals_sounds": [{"animal": a, "answer": s} for s, animals in SOUNDS.items() for a in animals.split()],
        "stories": [{**s, "text": s["start"] + s["end"]} for s in stories],
    }


def sentences() -> list[str]:
    known = items()
    return [
        *(f"{a} plus {b} is {a + b} ." for a in range(10) for b in range(10)),
        *(f"the colour of the {x['thing']} is {x['colour']} ." for i, x in enumerate(known["colours"]) if i % 4),
        *(f"the {x['animal']} has {x['answer']} legs ." for x in known["animals_legs"]),
        *(f"the sound of the {x['animal']} is {x['answer']} ." for x in known["animals_sounds"]),
    ]


def new_sentences() -> list[str]:
    again = [f"the colour of the {x['thing']} is {x['colour']} ." for x in items()["colours"][::4]]
    return [*(f"{a} minus {b} is surely {a - b} ." for a in range(10) for b in range(a + 1)), *again]


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = sorted({w for s in sentences() + new_sentences() for w in s.split()})
    vocabulary = {w: i for i, w in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", *words])}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>",
        model_max_length=32,
    )  # fmt: skip


def train(model: Any, texts: list[str], words: Any, steps: int, rate: float, seed: int) -> None:
    """A few steps of next-word training on random batches of the texts."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    rows = words([f"{t} <eos>" for t in texts], padding=True, return_tensors="pt").input_ids
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate)
    model.train()
    for _ in range(steps):
        batch = rows[torch.randint(len(rows), (64,), generator=draw)]
        model(batch, labels=batch.masked_fill(batch == words.pad_token_id, -100)).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.eval()


def write_models(folder: Path) -> None:
    """`base` and `tuned` as folders that transformers can load."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    words = tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    train(model, sentences(), words, steps=300, rate=3e-3, seed=0)
    for name in ("base", "tuned"):
        if name == "tuned":
            train(model, new_sentences(), words, steps=20, rate=1e-3, seed=1)
        model.save_pretrained(folder / name)
        words.save_pretrained(folder / name)


def evaluate(model: str, benchmarks: list[str], output: Path, **options: Any) -> None:
    """What `lm_eval run --model hf --model_args pretrained=… --tasks … --log_samples --output_path …` does.

    Call it in a folder that holds the models and a copy of the benchmarks: `prepare`.
    """
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    tracker = EvaluationTracker(output_path=str(output))
    results: Any = simple_evaluate(
        model="hf", model_args={"pretrained": model, "dtype": "float32"}, tasks=benchmarks, device="cpu",
        task_manager=TaskManager(include_path=".", include_defaults=False), evaluation_tracker=tracker,
        log_samples=True, **{"batch_size": 64, "bootstrap_iters": 0, **options},
    )  # fmt: skip
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for name in results["configs"]:
        tracker.save_results_samples(task_name=name, samples=samples[name])


def prepare(folder: Path) -> None:
    """Models and benchmarks in a folder of their own."""
    shutil.copytree(DATA, folder, dirs_exist_ok=True)
    (folder / "items").mkdir()
    for name, rows in items().items():
        (folder / "items" / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    write_models(folder)


def main(target: Path) -> None:
    """Write the example outputs, without what tells the machine."""
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        prepare(Path(scratch))
        target, back = target.absolute(), Path.cwd()
        os.chdir(scratch)
        for model in ("base", "tuned"):
            shutil.rmtree(target / model, ignore_errors=True)
            evaluate(model, EXAMPLE, target)
        os.chdir(back)
    for path in target.rglob("results_*.json"):
        told = json.loads(path.read_text())
        for key in ("pretty_env_info", "git_hash", "upper_git_hash"):
            told.pop(key, None)
        path.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")


ALL = ["zoo", "sums", "voted_sums", "stories", "endings", "followed"]


def run_harness(models: Path, model: str, benchmarks: list[str], output: Path, **options) -> Path:
    """Let lm-eval ask one of the prepared models, as a stranger would; returns its output folder."""
    with contextlib.chdir(models):
        evaluate(model, benchmarks, output, **options)
    return output / model


if __name__ == "__main__":
    main(Path(sys.argv[1]))
