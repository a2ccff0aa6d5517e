"""What a kill costs: a training killed half-way and gone on with, against one that nobody killed, in seconds of training.

python -m benchmarks.resume SPEC.json BASE OUT    the process that is killed: says when training begins and how long it took
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.pairs import Row, compare
from retain_core.arms import ArmSpec
from retain_core.plan import plan_study
from retain_core.store import Store
from retain_core.study import Study

ROOT = Path(__file__).parent.parent
INTERVAL = 1.0
"""Seconds between two states."""
STUDY = {
    "study": "resume", "base": "lab/smoke", "target": "countdown", "retention": ["addition"], "controls": [], "seeds": [0],
    "methods": [{"label": "grpo", "algorithm": "grpo", "reward": "random", "kl": 0.1}], "learning_rates": [1e-3],
    "budget": {"updates": 100, "sequences_per_update": 32}, "checkpoints": 1,
}  # fmt: skip


def resume(pairs: int, folder: Path) -> Row:
    """Pairs of GRPO trainings of 100 updates on the smallest base."""
    from retain_core.lab.base import train_base
    from retain_core.lab.spec import lab_spec

    store = Store(folder / "resume" / "artifacts")
    store.prepare()
    base = train_base(store, lab_spec("smoke"), 1)
    file = folder / "resume" / "spec.json"
    file.write_text(plan_study(Study.model_validate(STUDY), store).arms[0].spec.model_dump_json())
    homes = iter(range(10_000))
    trained = 0.0

    def whole(out: Path) -> None:
        nonlocal trained
        trained += float(_begun(file, base.path, out).communicate()[0])

    def alone() -> None:
        whole(folder / "resume" / str(next(homes)))

    def killed() -> None:
        nonlocal trained
        out = folder / "resume" / str(next(homes))
        process = _begun(file, base.path, out)
        time.sleep(half)
        process.kill()
        process.wait()
        trained += half
        whole(out)

    alone()
    half = trained / 2
    goal = f"{1.1 + INTERVAL / trained:.2f} or less (1.1 and one interval of {INTERVAL:.0f} s)"
    return compare("killed half-way and gone on with / not killed", killed, alone, goal, pairs, lambda: trained)


def _begun(spec: Path, base: Path, out: Path) -> subprocess.Popen[str]:
    """A process that has begun to train."""
    command = [sys.executable, "-m", "benchmarks.resume", str(spec), str(base), str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    if process.stdout.readline() != "begun\n":
        raise SystemExit("the training did not begin")
    return process


def main(spec: str, base: str, out: str) -> None:
    """Train in this process."""
    import torch

    import retain_core.preload  # noqa: F401
    from retain_core.training.train import train

    torch.set_num_threads(1)
    asked = ArmSpec.model_validate_json(Path(spec).read_text(encoding="utf-8"))
    print("begun", flush=True)
    started, output = time.perf_counter(), os.dup(1)
    os.dup2(2, 1)  # trainers print
    train(asked, Path(base), Path(out), every=INTERVAL)
    os.write(output, f"{time.perf_counter() - started}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
