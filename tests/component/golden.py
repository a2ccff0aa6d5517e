"""Golden trajectories: what each method does on a tiny model, update by update.

    python -m tests.component.golden            show what changed beside the stored trajectories
    python -m tests.component.golden --write    store them anew, in tests/data/golden/<method>.json

A change of a trajectory is a change of the method: refresh it only with a reason, and raise TRAINING_VERSION in
retain_core/arms.py, so that stored arms are trained again. Another release of torch, transformers or trl may change
one too; the file says what made it. Rewards are a coin, for the model is too small to solve anything.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

FOLDER = ROOT / "tests" / "data" / "golden"
KEPT = ("loss", "grad_norm", "kl", "reward", "entropy", "clip_share", "value_loss")
UPDATES, SEQUENCES = 4, 16
RELATIVE, ABSOLUTE = 2e-3, 2e-4
"""What another processor may change by rounding: sums of float32 in another order, through four updates."""

METHODS: dict[str, dict[str, Any]] = {
    "reinforce": {"algorithm": "reinforce", "reward": "random"},
    "reinforce_kl_retention": {"algorithm": "reinforce", "reward": "random", "kl": 0.5, "kl_prompts": "retention"},
    "rloo": {"algorithm": "rloo", "reward": "random", "kl": 0.1, "kl_estimator": "k2"},
    "grpo": {"algorithm": "grpo", "reward": "random", "kl": 0.1},
    "grpo_stale": {"algorithm": "grpo", "reward": "random", "staleness": 4},
    "dr_grpo": {"algorithm": "dr_grpo", "reward": "random", "mask_truncated": True},
    "ppo": {"algorithm": "ppo", "reward": "random", "kl": 0.1, "epochs": 2, "minibatches": 2},
}
"""Label -> the method as a study would write it."""


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


def trajectory(label: str, base: Path) -> list[dict[str, float]]:
    """What is kept of the curve, one entry an update."""
    import torch

    from retain_core.training.train import train

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as out:
            curve = train(arm_spec(label, METHODS[label]), base, Path(out)).curve
    finally:
        torch.set_num_threads(threads)
    return [
        {"update": update} | {p["name"]: round(p["value"], 6) for p in curve if p["step"] == update and p["name"] in KEPT}
        for update in range(1, UPDATES + 1)
    ]


def stored(label: str) -> dict[str, Any]:
    """The stored trajectory: `made_by` and `updates`."""
    return json.loads((FOLDER / f"{label}.json").read_text())


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
