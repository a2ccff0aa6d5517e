"""`make bench-full`: the whole demo against a plain script, once each.

The plain script does what one does without retain: every arm is trained by TRL in a process of its
own, one after another in as many lanes as the demo uses, and every checkpoint is evaluated with
lm-eval's command line. It stores no paired statistics, no report and no warehouse.

    python -m benchmarks.full [--arms N] [--home HOME]

N: run only every so many arms of the plain script and scale the time up (the last line says so).
HOME: a home in which the demo has just run cold; its wall time is read from there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from retain_core.arms import ArmSpec
from retain_core.evaluation.benchmarks import BATCH_SIZE
from retain_core.evaluation.harness import YAML_FOLDER
from retain_core.lab.base import MAX_POSITIONS
from retain_core.plan import plan_study
from retain_core.run import parallel_arms
from retain_core.store import Store
from retain_core.study_file import load_study

ROOT = Path(__file__).parent.parent
LAB = ROOT / "studies" / "lab.yaml"
_TRAIN = """
import sys, torch; torch.set_num_threads({threads})
from pathlib import Path
from retain_core.arms import ArmSpec
from retain_core.training.train import train
train(ArmSpec.model_validate_json(Path({spec!r}).read_text()), Path({base!r}), Path({out!r}))
"""


def demo(home: Path) -> None:
    """`retain run studies/lab.yaml` in a fresh home; it keeps its own wall time there."""
    environment = {**os.environ, "RETAIN_HOME": str(home)}
    subprocess.run([sys.executable, "-m", "flows.cli", "run", str(LAB)], cwd=ROOT, env=environment, check=True)


def plain_arm(spec: ArmSpec, base: Path, items: Path, folder: Path) -> float:
    """Train one arm in its own process, then lm-eval's command line for every checkpoint. Wall seconds."""
    started = time.perf_counter()
    out = folder / spec.arm.replace("/", "-")
    out.mkdir(parents=True)
    (out / "spec.json").write_text(spec.model_dump_json())
    environment = {**os.environ, "OMP_NUM_THREADS": str(spec.threads), "HF_HUB_OFFLINE": "1"}
    code = _TRAIN.format(threads=spec.threads, spec=str(out / "spec.json"), base=str(base), out=str(out))
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, capture_output=True)
    for step in spec.steps:
        command = [
            sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args",
            f"pretrained={out / 'weights' / str(step)},max_length={MAX_POSITIONS}", "--include_path", str(YAML_FOLDER),
            "--tasks", ",".join(benchmark.harness_name for benchmark in spec.benchmarks), "--metadata",
            json.dumps({"items": str(items)}), "--apply_chat_template", "--batch_size", str(BATCH_SIZE), "--device", "cpu",
            "--log_samples", "--output_path", str(out / f"eval-{step}"),
        ]  # fmt: skip
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Measure both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arms", type=int, default=1, help="measure only every so many arms of the plain script")
    parser.add_argument("--home", type=Path, help="a home in which the demo has run cold")
    chosen = parser.parse_args()
    every: int = chosen.arms
    folder = Path(tempfile.mkdtemp(prefix="retain-full-"))
    try:
        study = load_study(LAB)
        home = chosen.home or folder / "home"
        if not chosen.home:
            demo(home)
        ours = json.loads((home / "logs" / study.study / "wall_time.json").read_text())["seconds"]
        plan = plan_study(study, Store(home.absolute() / "artifacts"))
        assert plan.dataset is not None
        assert plan.base_weights is not None
        items, base = plan.dataset.file("items"), plan.base_path
        specs = [arm.spec for arm in plan.arms][::every]
        started = time.perf_counter()
        with ThreadPoolExecutor(max_workers=parallel_arms(study)) as pool:
            list(pool.map(lambda spec: plain_arm(spec, base, items, folder / "plain"), specs))
        arms = (time.perf_counter() - started) * len(plan.arms) / len(specs)
        plain = arms + plan.base_weights.meta["seconds"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    scaled = "" if every == 1 else f" (scaled up from {len(specs)} of {len(plan.arms)} arms)"
    print(f"demo {ours:.0f} s, plain script {plain:.0f} s{scaled}: ratio {ours / plain:.2f}")


if __name__ == "__main__":
    main()
