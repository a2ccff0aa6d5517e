"""Training one arm with TRL, from its spec to checkpoints on disk and a record of what was spent."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retain_core.arms import ArmSpec
from retain_core.errors import RetainError
from retain_core.settings import RESUME_SECONDS
from retain_core.store import Store
from retain_core.training.target import target_of

if TYPE_CHECKING:
    from retain_core.store import Artifact
    from retain_core.training.record import TrainingRecord

log = logging.getLogger(__name__)


def train(
    spec: ArmSpec, base: Path, out: Store | Path, traces: Artifact | None = None, every: float = RESUME_SECONDS
) -> TrainingRecord:
    """Train an arm; the weights of update N are the artifact `weights/N` in `out`, safetensors with the tokenizer.

    Each stage of a sequence of targets is trained as an arm of its own would be, from the weights where the one before
    stopped. `traces` is what an arm with `expert: traces` imitates. Where the same training was killed before, it goes on
    from what it left in `out`, to the same bits; `every` is the seconds from one state to go on from to the next. Raises
    RetainError when the method has nothing to train on, and when a loss or a gradient is no finite number.
    """
    from retain_core.training import ranks
    from retain_core.training.adapters import plain_state, save_plain
    from retain_core.training.held import frozen_base
    from retain_core.training.record import Recorder, TrainingRecord, together
    from retain_core.training.resume import Unfinished

    out = Store(out) if isinstance(out, Path) else out
    unfinished = Unfinished(out, spec.key, every)
    if done := unfinished.record(spec.steps):
        return done

    def save(model: Any, tokenizer: Any, step: int) -> None:
        state = plain_state(model)

        def write(folder: Path) -> None:
            save_plain(model, folder, state)
            tokenizer.save_pretrained(folder)

        if ranks.is_main():
            unfinished.save_weights(step, write)
        ranks.from_main(lambda: None)  # the next stage starts from what was written

    left = unfinished.state(spec.steps)
    recorder: Recorder | None = None
    records = [TrainingRecord(**record) for record in left["records"]] if left else []
    firsts = range(0, spec.all_updates, spec.updates)
    for before, stage in list(zip(firsts, spec.stages(), strict=True))[len(records) :]:
        start = unfinished.weights(before) if before else base
        trainer, count = unfinished.prepared(before, partial(prepare, stage, start, out.root, traces))
        recorder = recorder or Recorder(frozen_base(base) if before else trainer.model, spec.steps, save)
        recorder.before = before
        trainer.add_callback(recorder)
        seconds = unfinished.train(
            trainer, before, recorder, left and left["training"], records=[asdict(record) for record in records]
        )
        left = None
        if missing := {before + step for step in stage.steps} - set(recorder.distances):
            raise RetainError(
                f"the trainer ended before update {max(missing)}: a method makes exactly the updates of the budget"
            )
        records.append(count(trainer))
        records[-1].seconds = seconds
        del trainer, count
        gc.collect()  # the next stage loads a model and an optimizer of its own
    assert recorder is not None
    record = together(records)
    record.curve, record.distances = recorder.curve, recorder.distances
    unfinished.save_record(record)
    log.info("trained %d updates in %.1f s", record.updates, record.seconds)
    return record


def prepare(spec: ArmSpec, base: Path, out: Path, traces: Artifact | None = None) -> Any:
    """(trainer, what it counted when it is done) of an arm, ready to train."""
    import torch
    from transformers import set_seed

    from retain_core.own.method import build_trainer
    from retain_core.training.encode import read_tokenizer
    from retain_core.training.imitation.expert import expert_trainer
    from retain_core.training.imitation.own import own_answers_trainer
    from retain_core.training.policy.build import policy_trainer
    from retain_core.training.preference import preference_trainer

    assert spec.seed is not None
    assert spec.learning_rate is not None
    set_seed(spec.seed)
    tokenizer = read_tokenizer(base)
    target = target_of(spec, tokenizer)
    common: Any = {
        "out": out / "trainer", "learning_rate": spec.learning_rate, "seed": spec.seed, "updates": spec.updates,
        "batch": spec.sequences_per_update, "precise": not torch.cuda.is_available(),
        "optimizer": spec.config["optimizer"], "size": spec.size,
    }  # fmt: skip
    if spec.trainer is not None:
        return build_trainer(spec.trainer, spec, base, tokenizer, target, common)
    build: dict[str, Callable[..., Any]] = {
        "sft": partial(expert_trainer, traces=traces), "self_sft": own_answers_trainer, "iterative_sft": own_answers_trainer,
        "dpo": preference_trainer, "simpo": preference_trainer,
        "reinforce": policy_trainer, "rloo": policy_trainer, "grpo": policy_trainer, "dr_grpo": policy_trainer,
        "ppo": policy_trainer,
    }  # fmt: skip
    return build[spec.config["algorithm"]](spec, base, tokenizer, target, common)
