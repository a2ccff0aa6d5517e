"""Going on with a training that was killed, to the same bits.

Owns what lies in the folder of a training that is not done, a store of its own with checksums and manifests:

    weights/<N>/   the checkpoint after update N, as transformers saves it
    state/<N>/     everything that going on after update N needs (`retain_core.training.pack`): trainable weights, optimizer,
                   scheduler, random streams, batches that were sampled and not used yet, positions in endless streams, the
                   curve; only the newest is kept
    drawn/<i>-<n>/ what stage i drew from the base before its first update, in the order in which it did
    record/all/    there when training is done: what was spent, and the curve

A state is taken between two updates, before anything of the next one was drawn. Everything that is not in it is built
anew from the arm's spec, and comes out the same: data sets and the frozen base. transformers' own way to resume
skips the batches that were trained on; its files (pickles, without the methods' own streams) are neither written nor read.
Of several processes that train together the main one writes, also what each of the others knows by itself. Where weights
or the optimizer lie in shards no state is written.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import chain, count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from transformers.trainer import TRAINER_STATE_NAME

from retain_core.store import Store
from retain_core.training import ranks
from retain_core.training.adapters import in_shards
from retain_core.training.finite import refuse_what_is_not_finite
from retain_core.training.notes import Once, noted
from retain_core.training.pack import read_tree, write_tree
from retain_core.training.record import TrainingRecord
from retain_core.training.stream import put_random_streams, random_streams

if TYPE_CHECKING:
    from retain_core.store import Artifact

MOST_SHARE = 0.02
"""Writing states takes at most this share of the time, however short the wanted interval."""
WEIGHTS, STATE, DRAWN, RECORD, ALL = "weights", "state", "drawn", "record", "all"
_LOOP = (
    "_tr_loss", "_total_loss_scalar", "_globalstep_last_logged", "_initial_global_step", "current_flos",  # transformers
    "_metrics", "_total_train_tokens", "_step", "_buffered_inputs", "_current_train_step_time",  # trl
)  # fmt: skip
"""What the training loops of transformers and TRL keep from one update to the next, beside their saved state."""
_OF_EACH = ("loop", "own", "random")
"""What of a state differs between processes that train together."""

Built = TypeVar("Built")
log = logging.getLogger(__name__)


class Kept(Protocol):
    """What follows a training from outside its trainer."""

    def resume_state(self) -> Any:
        """All that it has to know again."""

    def resume_from(self, state: Any, model: Any) -> None:
        """Take it back, beside the model as it was then."""


class Unfinished:
    """The folder of a training: what was left there, and what is put there while it goes on."""

    def __init__(self, folder: Store, key: str, every: float) -> None:
        """`key` is that of the training; `every` the seconds between two states, 0 for one after every update."""
        self._folder, self._key, self._every = folder, key, every
        self._cost = self._since = 0.0
        if ranks.is_main():
            folder.prepare()
            folder.remove_leftovers()

    def weights(self, step: int) -> Path:
        """Where the checkpoint after an update lies."""
        return self._folder.path(WEIGHTS, str(step))

    def save_weights(self, step: int, save: Callable[[Path], None]) -> None:
        """Publish a checkpoint; one that is there from before the kill has the same bits."""
        if self._found(WEIGHTS, str(step)) is None:
            with self._folder.create(WEIGHTS, str(step), self._inputs(step)) as draft:
                save(draft.path)

    def save_record(self, record: TrainingRecord) -> None:
        """Training is done: nothing is trained again, whatever happens from here."""
        if not ranks.is_main():
            return
        with self._folder.create(RECORD, ALL, self._inputs(0)) as draft:
            write_tree(draft.path, asdict(record))

    def record(self, steps: tuple[int, ...]) -> TrainingRecord | None:
        """What was spent, when training is done and every checkpoint is whole."""
        done = ranks.from_main(lambda: self._found(RECORD, ALL) is not None and self._whole(steps))
        return TrainingRecord(**read_tree(self._folder.path(RECORD, ALL))) if done else None

    def prepared(self, stage: int, prepare: Callable[[], Built]) -> Built:
        """What `prepare` gives; what it draws from the base is kept, and not drawn again after a kill."""
        with noted(self._once(stage)):
            return prepare()

    def _once(self, stage: int) -> Once:
        numbers = count()

        def once(draw: Callable[[], Any]) -> Any:
            key = f"{stage}-{next(numbers)}"
            if ranks.from_main(lambda: self._found(DRAWN, key) is not None):
                tree = read_tree(self._folder.path(DRAWN, key))
            else:
                tree = {"drawn": draw(), "random": random_streams()}
                if ranks.is_main():
                    with self._folder.create(DRAWN, key, self._inputs(0)) as draft:
                        write_tree(draft.path, tree)
            put_random_streams(tree["random"])
            return tree["drawn"]

        return once

    def state(self, steps: tuple[int, ...]) -> dict[str, Any] | None:
        """The newest state that is whole, with every checkpoint before it; None: training starts at the start."""
        key = ranks.from_main(lambda: self._newest(steps))
        if key is None:
            return None
        state = dict(read_tree(self._folder.path(STATE, key)))
        if ranks.count() > 1:
            state["training"].update(state["training"].pop("ranks")[ranks.rank()])
        return state

    def _newest(self, steps: tuple[int, ...]) -> str | None:
        for key in sorted(self._folder.keys(STATE), key=int, reverse=True):
            found = self._found(STATE, key)
            if found is not None and self._whole(tuple(step for step in steps if step <= int(key))):
                log.warning("going on after update %s", key)
                return key
        return None

    def train(self, trainer: Any, before: int, kept: Kept | None, state: dict[str, Any] | None, **more: Any) -> float:
        """Train a stage to its end and write states on the way; `more` goes into them beside the trainer's.

        `before` is the updates of the stages before, `kept` what follows the training from outside, `state` the
        `training` of an earlier state. Returns the seconds that the stage took, those before a kill included. Raises
        RetainError when a loss or a gradient is no finite number.
        """
        refuse_what_is_not_finite(trainer, before)
        earlier, started = state["seconds"] if state else 0.0, time.perf_counter()
        self._since = started

        def between() -> None:
            if trainer.state.global_step and not in_shards(trainer.model) and ranks.from_main(self._due):
                seconds = earlier + time.perf_counter() - started
                training = {"seconds": seconds, "kept": kept and kept.resume_state(), **trainer_state(trainer)}
                if ranks.count() > 1:
                    training["ranks"] = ranks.gathered({name: _on("cpu", training[name]) for name in _OF_EACH})
                if ranks.is_main():
                    self._save_state(before + trainer.state.global_step, {**more, "training": training})

        def resumed(state: dict[str, Any]) -> None:
            if kept:
                kept.resume_from(state["kept"], trainer.model)

        if ranks.count() > 1 and state is None:
            put_random_streams(ranks.main_streams())
        train_through(trainer, state, between, resumed)
        return earlier + time.perf_counter() - started

    def _due(self) -> bool:
        """Whether it is time for another state."""
        since = time.perf_counter() - self._since
        return self._every == 0 or since >= max(self._every, self._cost / MOST_SHARE)

    def _save_state(self, step: int, state: dict[str, Any]) -> None:
        """Publish the state after an update, then drop the ones before it."""
        started = time.perf_counter()
        with self._folder.create(STATE, str(step), self._inputs(step)) as draft:
            write_tree(draft.path, state)
        for key in self._folder.keys(STATE):
            if key != str(step):
                self._folder.forget(STATE, key)
        self._since = time.perf_counter()
        self._cost = self._since - started

    def _inputs(self, step: int) -> dict[str, Any]:
        return {"training": self._key, "step": step}

    def _whole(self, steps: tuple[int, ...]) -> bool:
        return all(self._found(WEIGHTS, str(step)) for step in steps)

    def _found(self, kind: str, key: str) -> Artifact | None:
        before = len(self._folder.damaged)
        found = self._folder.find(kind, key)
        for sentence in self._folder.damaged[before:]:
            log.warning("%s", sentence)
        if found is not None and found.inputs["training"] != self._key:
            self._folder.forget(kind, key)
            return None
        return found


def train_through(
    trainer: Any, state: dict[str, Any] | None, between: Callable[[], None], resumed: Callable[[dict[str, Any]], None]
) -> None:
    """Train to the end: from the start, or from where `trainer_state` made `state`; then it is emptied, for its memory.

    `between` is called before every update, when nothing of it was drawn yet; `resumed` with the state, once the trainer
    is where that was taken.
    """
    fetch = trainer.get_batch_samples

    def fetch_between(batches: Any, number: int, device: Any) -> Any:
        if not state:
            between()
            return fetch(batches, number, device)
        # In the middle of an epoch the data loader was already running. Starting it again draws from torch's stream, so it
        # is started first, and the streams are put back after.
        running = trainer.state.epoch % 1 > 0
        first = list(islice(batches, number)) if running else []
        restore(trainer, state)
        resumed(state)
        state.clear()
        return fetch(chain(first, batches), number, device)

    trainer.get_batch_samples = fetch_between
    if state is None:
        trainer.train()
        return
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, TRAINER_STATE_NAME).write_text(state["progress"], encoding="utf-8")
        trainer._load_from_checkpoint = lambda *_: None  # its weights come with the rest of the state
        trainer.train(resume_from_checkpoint=folder)


def trainer_state(trainer: Any) -> dict[str, Any]:
    """All that a trainer needs to go on from between two updates.

    Methods that keep more than transformers and TRL do have `resume_state()` and `resume_from(state)`.
    """
    model = trainer.model
    return {
        "progress": json.dumps(asdict(trainer.state), sort_keys=True),
        "weights": _trained(model),
        "training": model.training,
        "optimizer": trainer.optimizer.state_dict(),
        "scheduler": trainer.lr_scheduler.state_dict(),
        "loop": {name: _undefaulted(getattr(trainer, name)) for name in _LOOP if hasattr(trainer, name)},
        "own": trainer.resume_state() if hasattr(trainer, "resume_state") else None,
        "random": random_streams(),
    }


def restore(trainer: Any, state: dict[str, Any]) -> None:
    """Put a trainer, and the random streams of this process, where `trainer_state` found them."""
    device = trainer.accelerator.device
    with torch.no_grad():
        for name, weight in _trained(trainer.model).items():
            weight.copy_(state["weights"][name])
    trainer.model.train(state["training"])
    trainer.optimizer.load_state_dict(state["optimizer"])
    trainer.lr_scheduler.load_state_dict(state["scheduler"])
    for name, value in state["loop"].items():
        if name == "_metrics":
            for mode, metrics in value.items():
                trainer._metrics[mode].clear()
                trainer._metrics[mode].update(metrics)
        else:
            setattr(trainer, name, _on(device, value))
    if state["own"] is not None:
        trainer.resume_from(state["own"])
    put_random_streams(state["random"])


def _trained(model: Any) -> dict[str, torch.Tensor]:
    """What training changes: parameters with a gradient, and buffers that belong to the weights."""
    saved = model.state_dict().keys()
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    return trained | {name: buffer for name, buffer in model.named_buffers() if name in saved}


def _undefaulted(value: Any) -> Any:
    """Dictionaries with default factories as plain ones."""
    return {key: _undefaulted(entry) for key, entry in value.items()} if isinstance(value, dict) else value


def _on(device: Any, value: Any) -> Any:
    """The tensors of a tree on a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _on(device, entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on(device, entry) for entry in value)
    return value
