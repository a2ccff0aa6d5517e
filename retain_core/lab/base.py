"""The lab's base model: a small Llama-shaped model trained from scratch on the world's mixture.

Owns the `base` artifact:

    model.safetensors, config.json, tokenizer.json, ...   a folder that transformers loads
    meta: seconds, final loss
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retain_core.arms import computed_by
from retain_core.devices import cores
from retain_core.lab.dataset import LAB_VERSION
from retain_core.lab.spec import LabSpec
from retain_core.lab.vocabulary import build_tokenizer
from retain_core.lab.world import World
from retain_core.store import Artifact, Store, key_of
from retain_core.training.encode import IGNORED, padded
from retain_core.training.size import compile_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback

BASE_VERSION = 1
"""Raised when equal dials would train to other weights."""
MAX_POSITIONS = 64
WIDTHS = 16
"""On an accelerator, where layers are compiled, widths of batches are multiples of this, so that few shapes occur."""
LOADERS = 8
"""Processes that draw the mixture for an accelerator, which would wait for a single one. Every index has its own draw."""


def base_inputs(spec: LabSpec, threads: int) -> dict[str, Any]:
    """What the base's weights depend on."""
    return {
        "base": spec.dials(), "threads": threads, "lab_version": LAB_VERSION,
        "base_version": BASE_VERSION, **computed_by("torch", "transformers"),
    }  # fmt: skip


def base_key(spec: LabSpec, threads: int) -> str:
    """The key of a lab base; also its fingerprint in the keys of everything trained from it."""
    return key_of(base_inputs(spec, threads))


def build_model(spec: LabSpec, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """The untrained model, its weights drawn from the spec's seed."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(spec.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=spec.hidden, intermediate_size=4 * spec.hidden,
            num_hidden_layers=spec.layers, num_attention_heads=spec.heads, num_key_value_heads=spec.heads,
            max_position_embeddings=MAX_POSITIONS, tie_word_embeddings=True, pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
        )
    )  # fmt: skip


def train_base(store: Store, spec: LabSpec, threads: int) -> Artifact:
    """Train the base with transformers' Trainer, or return it when the store has it."""
    key = base_key(spec, threads)
    found = store.find("base", key)
    if found:
        return found
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with store.create("base", key, base_inputs(spec, threads)) as draft:
            draft.meta.update(_train(spec, draft.path))
    finally:
        torch.set_num_threads(before)
    return store.get("base", key)


def _train(spec: LabSpec, out: Path) -> dict[str, Any]:
    import torch
    from transformers import Trainer, TrainingArguments

    world = World(spec)
    tokenizer = build_tokenizer(world.entities)
    model = build_model(spec, tokenizer)
    precise = not torch.cuda.is_available()
    if not precise:
        compile_layers(model)
    arguments = TrainingArguments(
        output_dir=str(out / "trainer"), max_steps=spec.updates, per_device_train_batch_size=spec.batch,
        learning_rate=spec.learning_rate, lr_scheduler_type="cosine", warmup_steps=spec.updates // 10,
        optim="adamw_torch", adam_beta1=0.9, adam_beta2=0.95, weight_decay=0.01, max_grad_norm=1.0, seed=spec.seed,
        bf16=not precise, use_cpu=precise, save_strategy="no", logging_strategy="no", report_to="none",
        disable_tqdm=True, dataloader_num_workers=0 if precise else min(LOADERS, cores() // 2), dataloader_pin_memory=False,
        remove_unused_columns=False,
    )  # fmt: skip
    started = time.perf_counter()
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=_Mixture(world, tokenizer, spec.updates * spec.batch),
        data_collator=_Collator(tokenizer, 1 if precise else WIDTHS),
        callbacks=[_telling()],
    )
    result = trainer.train()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return {"seconds": time.perf_counter() - started, "loss": result.training_loss}


def _telling() -> TrainerCallback:
    """Says every twentieth of the way how far it is: `update 150 of 3000`, which `retain_core.run` reads from the log."""
    from transformers import TrainerCallback

    class Telling(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            sys.stdout.write(f"update 0 of {state.max_steps}\n")

        def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            if state.global_step % max(1, state.max_steps // 20) == 0 or state.global_step == state.max_steps:
                sys.stdout.write(f"update {state.global_step} of {state.max_steps}\n")
                sys.stdout.flush()

    return Telling()


class _Mixture:
    """The training mixture as a map-style data set: every index is an exchange of its own draw."""

    def __init__(self, world: World, tokenizer: PreTrainedTokenizerFast, size: int) -> None:
        self._world, self._size = world, size
        self._words = tokenizer.get_vocab()

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        prompt, answer = self._world.sample(random.Random(f"mixture {self._world.spec.seed} {index}"))
        # Word by word what the chat template renders (a test holds the two equal); ten times faster.
        asked = [self._words[w] for w in ("<|user|>", *prompt.split(), "<|assistant|>")]
        answered = [self._words[w] for w in (*answer.split(), "<|end|>")]
        return {"input_ids": asked + answered, "labels": [IGNORED] * len(asked) + answered}


class _Collator:
    """Pads a batch on the right, to a multiple of some number of tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, multiple: int) -> None:
        self._pad, self._multiple = tokenizer.pad_token_id, multiple

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, Any]:
        ids, labels, mask = padded(rows, self._pad, self._multiple)
        return {"input_ids": ids, "labels": labels, "attention_mask": mask}
