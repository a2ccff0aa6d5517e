"""Running one arm in this process: train, evaluate every checkpoint, publish.

No Prefect is needed:

    python -m retain_core.arm SPEC.json

Owns two artifacts beside the evaluations: `weights` (one checkpoint as transformers saves it) and
`arm` (curve.parquet and what was spent; published last, so its presence means the arm is done). Of an
arm that was stopped stay its finished evaluations, and the traces that it imitates.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from retain_core.arms import ArmSpec, weights_key
from retain_core.evaluation.evaluate import Evaluator, Plan, checkpoint_plans
from retain_core.provenance import git_sha
from retain_core.settings import settings
from retain_core.store import Store, lock_home


def run_arm(spec: ArmSpec, store: Store) -> None:
    """Train the arm and evaluate its checkpoints; what the store already has is not done again.

    The same inputs give the same weights, so an evaluation that is missing while its weights are
    gone is made good by training again.
    """
    import torch

    torch.set_num_threads(spec.threads)
    missing = {
        step: [plan for plan in checkpoint_plans(spec, step) if store.find(plan.kind, plan.key) is None] for step in spec.steps
    }
    base = store.get("base", spec.base.fingerprint).path if spec.base.lab else Path(spec.base.model)
    evaluator = Evaluator(store, store.get("dataset", spec.dataset_key), base)
    if not spec.trained:
        evaluator.evaluate(Path(spec.config["model"]), missing[spec.steps[0]])
        return
    if store.find("arm", spec.key) and _evaluate_kept(spec, store, evaluator, missing):
        return
    (store.root / ".drafts").mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"arm-{spec.key[:8]}-", dir=store.root / ".drafts"))
    try:
        _train_and_evaluate(spec, store, evaluator, missing, base, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _evaluate_kept(spec: ArmSpec, store: Store, evaluator: Evaluator, missing: dict[int, list[Plan]]) -> bool:
    """Make good missing evaluations from weights that are still there; False when some are not."""
    wanted = {step for step, plans in missing.items() if plans} | set(spec.kept_steps())
    weights = {step: store.find("weights", weights_key(spec, step)) for step in wanted}
    if not all(weights.values()):
        return False
    for step, found in weights.items():
        if found and missing[step]:
            evaluator.evaluate(found.path, missing[step])
    return True


def _train_and_evaluate(
    spec: ArmSpec, store: Store, evaluator: Evaluator, missing: dict[int, list[Plan]], base: Path, work: Path
) -> None:
    from retain_core.training.traces import make_traces
    from retain_core.training.train import train

    traces = make_traces(spec, base, store, work / "traces") if spec.config.get("traces_of") else None
    record = train(spec, base, work, traces)
    for step in spec.steps:
        if missing[step]:
            evaluator.evaluate(work / f"step-{step}", missing[step])
    for step in spec.kept_steps():
        identity = spec.checkpoint_identity(step)
        with store.create("weights", weights_key(spec, step), identity) as draft:
            shutil.copytree(work / f"step-{step}", draft.path, dirs_exist_ok=True)
    with store.create("arm", spec.key, spec.inputs()) as draft:
        _write_curve(draft.path / "curve.parquet", record.curve)
        draft.meta.update(
            updates=record.updates, sequences=record.sequences, unique_prompts=record.unique_prompts,
            tokens_trained=record.tokens_trained, tokens_generated=record.tokens_generated, seconds=record.seconds,
            style_distance=record.style_distance, git_sha=git_sha(),
            distances={str(step): list(pair) for step, pair in record.distances.items()},
        )  # fmt: skip


def _write_curve(path: Path, curve: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("step", pa.int32()), ("name", pa.string()), ("value", pa.float64())])
    pq.write_table(pa.Table.from_pylist(curve, schema=schema), path, compression="zstd")


if __name__ == "__main__":
    with lock_home(settings().home):
        run_arm(ArmSpec.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8")), Store(settings().artifacts))
