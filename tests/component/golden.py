"""Golden trajectories: what each method does on a tiny model, update by update.

    python -m tests.component.golden            show what changed beside the stored trajectories
    python -m tests.component.golden --write    store them anew, in tests/data/golden/<method>.json

A change of a trajectory is a change of the method: refresh it only with a reason, and raise TRAINING_VERSION in
retain_core/arms.py, so that stored arms are trained again. Another release of torch, transformers or trl may change
one too; the file says what made it. The model is too small to solve anything: rewards are a coin, and where a method
keeps right answers, one answer in four counts as right by its letters (`by_content`). After some updates its KL to the
base and its gain are there too, as retain measures them.
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.conftest import ROOT

FOLDER = ROOT / "tests" / "data" / "golden"
KEPT = ("loss", "grad_norm", "kl", "reward", "entropy", "clip_share", "value_loss")
UPDATES, SEQUENCES = 4, 16
MEASURED = (2, UPDATES)
"""After which updates the forward KL to the base and the gain are measured."""
ITEMS = 40
"""On how many held-out items of the target."""
RELATIVE, ABSOLUTE = 2e-3, 2e-4
"""What another processor may change by rounding: sums of float32 in another order, through four updates."""

ON_POLICY: dict[str, dict[str, Any]] = {
    "reinforce": {"algorithm": "reinforce", "reward": "random"},
    "reinforce_baseline": {"algorithm": "reinforce", "reward": "random", "advantage": "mean"},
    "reinforce_kl_retention": {"algorithm": "reinforce", "reward": "random", "kl": 0.5, "kl_prompts": "retention"},
    "rloo": {"algorithm": "rloo", "reward": "random", "kl": 0.1, "kl_estimator": "k2"},
    "grpo": {"algorithm": "grpo", "reward": "random", "kl": 0.1},
    "grpo_stale": {"algorithm": "grpo", "reward": "random", "staleness": 4},
    "dr_grpo": {"algorithm": "dr_grpo", "reward": "random", "mask_truncated": True},
    "ppo": {"algorithm": "ppo", "reward": "random", "kl": 0.1, "epochs": 2, "minibatches": 2},
}
OFFLINE: dict[str, dict[str, Any]] = {
    "sft": {"algorithm": "sft", "solution": "canonical"},
    "sft_in_style": {"algorithm": "sft", "expert": "in_style"},
    "sft_kl": {"algorithm": "sft", "kl": 1.0},
    "sft_kl_retention": {"algorithm": "sft", "kl": 1.0, "kl_prompts": "retention"},
    "sft_replay": {"algorithm": "sft", "expert": "in_style", "replay": 0.25, "prompts": "frozen"},
    "sft_replay_own": {"algorithm": "sft", "expert": "in_style", "replay": 0.25, "replay_source": "own"},
    "sft_useful_share": {"algorithm": "sft", "useful_share": 0.25},
    "sft_lora": {"algorithm": "sft", "lora_rank": 2},
    "sft_sgd": {"algorithm": "sft", "optimizer": "sgd"},
    "dft": {"algorithm": "sft", "loss": "dft"},
    "lowest_kl": {"algorithm": "sft", "expert": "lowest_kl"},
    "only_solvable": {"algorithm": "sft", "only_solvable": True},
    "traces": {"algorithm": "sft", "expert": "traces", "traces_of": "grpo"},
    "self_sft": {"algorithm": "self_sft"},
    "self_sft_small": {"algorithm": "self_sft", "pool": "small"},
    "iterative_sft": {"algorithm": "iterative_sft", "staleness": 2},
    "dpo": {"algorithm": "dpo"},
    "simpo": {"algorithm": "simpo"},
}
METHODS = ON_POLICY | OFFLINE
"""Label -> the method as a study would write it."""


def by_content(answer: str) -> bool:
    """A verdict that anyone can recompute: one answer in four is right."""
    return sum(map(ord, answer)) % 4 == 0


def base_model(folder: Path) -> Path:
    """The tiny model that every trajectory starts from: 40 updates, so that little rounding adds up."""
    from retain_core.lab.base import train_base
    from retain_core.lab.spec import lab_spec
    from retain_core.store import Store

    return train_base(Store(folder), lab_spec("smoke", updates=40), threads=1).path


def arm_spec(label: str, dials: dict[str, Any], updates: int = UPDATES, learning_rate: float = 1e-3, **more: Any) -> Any:
    """An arm of that method in the smoke world."""
    from retain_core.arms import ArmSpec, BaseRef
    from retain_core.lab.spec import lab_spec
    from retain_core.methods import Method

    spec = ArmSpec(
        arm=f"t/{label}", study="t", method=label, role="method", config=Method(label=label, **dials).config(),
        base=BaseRef(model="lab/smoke", fingerprint="smoke"), world=lab_spec("smoke"), dataset_key="", target="countdown",
        learning_rate=learning_rate, seed=0, updates=updates, sequences_per_update=SEQUENCES, steps=(updates,),
        retention=(), benchmarks=(), keep="none", threads=1,
    )  # fmt: skip
    return spec.model_copy(update=more)


@functools.cache
def ruler_of(base: Path) -> Ruler:
    """The ruler of a base; what the base says is the same for every method."""
    return Ruler(base)


class Ruler:
    """Measures a checkpoint on held-out items of the target, with what measures the checkpoints of a study."""

    def __init__(self, base: Path) -> None:
        from transformers import set_seed

        from retain_core.evaluation.divergence import MAX_NEW_TOKENS, load_model
        from retain_core.evaluation.exact import ExactItem
        from retain_core.lab.spec import lab_spec
        from retain_core.lab.world import World
        from retain_core.training.encode import encode_exchanges, encode_prompts
        from retain_core.training.sampling import sample_ids

        self.base, self.tokenizer = load_model(base)
        items = World(lab_spec("smoke")).items("countdown")[:ITEMS]
        self.prompts = [item.prompt for item in items]
        self.items = []
        for number, (item, prompt) in enumerate(zip(items, encode_prompts(self.tokenizer, self.prompts), strict=True)):
            rows = encode_exchanges(self.tokenizer, [(item.prompt, answer) for answer in item.extra["valid"]])
            self.items.append(ExactItem(number, prompt, [row["input_ids"][len(prompt) :] for row in rows]))
        set_seed(0)
        self.answers = sample_ids(self.base, self.tokenizer, self.prompts, temperature=1.0, max_new_tokens=MAX_NEW_TOKENS)
        self.right = self._right(self.base)

    def _right(self, model: Any) -> float:
        from retain_core.evaluation.exact import exact_scores

        return sum(exact_scores(model, self.items).values()) / len(self.items)

    def measure(self, weights: Path) -> dict[str, float]:
        """Forward KL in nats per token, and the exact gain as a multiple of the base's score, which is next to nothing."""
        from retain_core.evaluation.divergence import kl_along, load_model

        model, _ = load_model(weights)
        nats, tokens = zip(*kl_along(self.base, model, self.tokenizer, self.prompts, self.answers), strict=True)
        return {
            "kl_forward": round(sum(nats) / sum(tokens), 6), "gain": round(self._right(model) / self.right - 1, 6),
        }  # fmt: skip


def trajectory(label: str, base: Path) -> list[dict[str, float]]:
    """What is kept of the curve, one entry an update, with KL and gain after those of `MEASURED`."""
    import torch

    from retain_core.lab.targets import Countdown
    from retain_core.store import Store
    from retain_core.training.traces import make_traces
    from retain_core.training.train import train

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with (
            tempfile.TemporaryDirectory() as name,
            patch.object(Countdown, "accepts", lambda _, key, answer: by_content(answer)),
        ):
            spec, out = arm_spec(label, METHODS[label], steps=MEASURED), Path(name)
            traces = make_traces(spec, base, Store(out / "home")) if spec.config.get("traces_of") else None
            curve = train(spec, base, out, traces).curve
            ruler = ruler_of(base)
            measured = {update: ruler.measure(out / "weights" / str(update)) for update in MEASURED}
    finally:
        torch.set_num_threads(threads)
    return [
        {"update": update}
        | {p["name"]: round(p["value"], 6) for p in curve if p["step"] == update and p["name"] in KEPT}
        | measured.get(update, {})
        for update in range(1, UPDATES + 1)
    ]


def stored(label: str) -> dict[str, Any]:
    """The stored trajectory: `made_by` and `updates`."""
    return json.loads((FOLDER / f"{label}.json").read_text())


def check(label: str, base: Path) -> None:
    """Assert that a method still does what is stored."""
    import pytest

    from retain_core.arms import computed_by

    wanted = stored(label)
    told = f"made by {wanted['made_by']}, found with {computed_by('torch', 'transformers', 'trl')}"
    found = trajectory(label, base)
    assert [set(entry) for entry in found] == [set(entry) for entry in wanted["updates"]], told
    for now, then in zip(found, wanted["updates"], strict=True):
        assert now == pytest.approx(then, rel=RELATIVE, abs=ABSOLUTE), told


def main() -> None:
    """Show or store the trajectories."""
    from retain_core.arms import computed_by

    parser = argparse.ArgumentParser(description="golden trajectories of every method")
    parser.add_argument("--write", action="store_true", help="store them anew")
    write = parser.parse_args().write
    with tempfile.TemporaryDirectory() as folder:
        base = base_model(Path(folder))
        for label in METHODS:
            found = {"made_by": computed_by("torch", "transformers", "trl"), "updates": trajectory(label, base)}
            same = (FOLDER / f"{label}.json").exists() and stored(label) == found
            print(label, "as stored" if same else json.dumps(found["updates"]))
            if write and not same:
                FOLDER.mkdir(parents=True, exist_ok=True)
                (FOLDER / f"{label}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
