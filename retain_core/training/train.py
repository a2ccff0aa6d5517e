"""Training one arm with TRL, from its spec to checkpoints on disk and a record of what was spent."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from retain_core.arms import ArmSpec
from retain_core.evaluation.benchmarks import MAX_LENGTH
from retain_core.training import configs
from retain_core.training.target import MAX_NEW_TOKENS, CountdownTarget, Problem


@dataclass
class TrainingRecord:
    """What an arm did: counts, seconds, the curve, and the distance travelled at each checkpoint."""

    updates: int
    sequences: int
    unique_prompts: int
    tokens_trained: int
    tokens_generated: int
    style_distance: float | None = None
    """The base's loss on the first training text, in nats per token; None where the policy writes the text."""
    seconds: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)
    distances: dict[int, tuple[float, float | None]] = field(default_factory=dict)


def train(spec: ArmSpec, base: Path, out: Path) -> TrainingRecord:
    """Train an arm; the weights of update N go to `out/step-N` as safetensors with the tokenizer.

    Raises RetainError when the method has nothing to train on.
    """
    import torch
    from transformers import AutoTokenizer, set_seed

    assert spec.seed is not None
    assert spec.learning_rate is not None
    set_seed(spec.seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    target = CountdownTarget(spec.world)
    common = {
        "out": out / "trainer", "learning_rate": spec.learning_rate, "seed": spec.seed, "updates": spec.updates,
        "batch": spec.sequences_per_update, "precise": not torch.cuda.is_available(),
    }  # fmt: skip
    build = {"sft": _expert_sft, "self_sft": _own_sft, "iterative_sft": _own_sft, "reinforce": _policy, "grpo": _policy}
    trainer, count = build[spec.config["algorithm"]](spec, base, tokenizer, target, common)

    from retain_core.training.trainers import Recorder

    def save(model: Any, step: int) -> None:
        model.save_pretrained(out / f"step-{step}")
        tokenizer.save_pretrained(out / f"step-{step}")

    recorder = Recorder(trainer.model, list(spec.steps), save)
    trainer.add_callback(recorder)
    started = time.perf_counter()
    trainer.train()
    record: TrainingRecord = count(trainer)
    record.seconds = time.perf_counter() - started
    record.curve, record.distances = recorder.curve, recorder.distances
    return record


def _expert_sft(spec: ArmSpec, base: Path, tokenizer: Any, target: CountdownTarget, common: dict[str, Any]) -> Any:
    from datasets import Dataset
    from trl import SFTTrainer

    from retain_core.training.encode import IGNORED, encode_exchanges, loss_per_token

    sequences = spec.updates * spec.sequences_per_update
    exchanges = target.expert(spec.config, seed=spec.seed or 0, count=sequences)
    rows = encode_exchanges(tokenizer, exchanges)
    trainer = SFTTrainer(
        model=str(base), args=configs.sft_config(max_length=MAX_LENGTH, **common), processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
    )  # fmt: skip
    trained = sum(label != IGNORED for row in rows for label in row["labels"])
    unique = len({prompt for prompt, _ in exchanges})
    style = loss_per_token(trainer.model, rows, tokenizer.pad_token_id)
    return trainer, lambda _: TrainingRecord(spec.updates, sequences, unique, trained, 0, style)


def _own_sft(spec: ArmSpec, base: Path, tokenizer: Any, target: CountdownTarget, common: dict[str, Any]) -> Any:
    from datasets import Dataset

    from retain_core.training.trainers import SelfSamplingSFTTrainer

    rounds = spec.config.get("rounds", 1)
    refreshes = {round(i * spec.updates / rounds) for i in range(rounds)}
    longest_round = -(-spec.updates // rounds)
    sequences = spec.updates * spec.sequences_per_update
    placeholder = {"input_ids": [tokenizer.eos_token_id], "labels": [tokenizer.eos_token_id]}
    trainer = SelfSamplingSFTTrainer(
        model=str(base), args=configs.sft_config(max_length=MAX_LENGTH, **common), processing_class=tokenizer,
        train_dataset=Dataset.from_list([placeholder] * sequences), problems=target.problems(spec.seed or 0),
        refreshes=refreshes,
        samples_per_refresh=longest_round * spec.sequences_per_update * spec.config["oversample"],
        temperature=spec.config["temperature"], max_new_tokens=MAX_NEW_TOKENS, sampling_seed=spec.seed or 0,
    )  # fmt: skip

    def count(done: SelfSamplingSFTTrainer) -> TrainingRecord:
        unique = len(done.prompts_trained)
        return TrainingRecord(spec.updates, sequences, unique, done.tokens_trained, done.tokens_generated, done.style_distance)

    return trainer, count


def _policy(spec: ArmSpec, base: Path, tokenizer: Any, target: CountdownTarget, common: dict[str, Any]) -> Any:
    from datasets import Dataset
    from trl import GRPOTrainer

    from retain_core.training.encode import user_turn
    from retain_core.training.rewards import Reward
    from retain_core.training.trainers import ReinforceTrainer

    prompts = spec.updates * spec.sequences_per_update // spec.config["group_size"]
    problems: list[Problem] = list(islice(target.problems(spec.seed or 0), prompts))
    reward = Reward(spec.config["reward"], spec.seed or 0, tokenizer.eos_token_id, {p.prompt: p for p in problems})
    trainer_class = ReinforceTrainer if spec.config["algorithm"] == "reinforce" else GRPOTrainer
    trainer = trainer_class(
        model=str(base), args=configs.grpo_config(spec.config, MAX_NEW_TOKENS, **common), processing_class=tokenizer,
        reward_funcs=reward, train_dataset=Dataset.from_list([{"prompt": user_turn(p.prompt)} for p in problems]),
    )  # fmt: skip
    sequences = spec.updates * spec.sequences_per_update
    unique = len({p.prompt for p in problems})
    return trainer, lambda _: TrainingRecord(spec.updates, sequences, unique, reward.tokens, reward.tokens)
