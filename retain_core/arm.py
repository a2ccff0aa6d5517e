"""Running one arm in this process: train, evaluate every checkpoint, publish.

No Prefect is needed:

    python -m retain_core.arm SPEC.json

An arm of several processes starts them, or is one of them where `accelerate launch` or `torchrun` did (`retain_core.launch`).
The main one does all that is said here; the others train with it, and end when training is done.

Owns two artifacts beside the evaluations: `weights` (one checkpoint as transformers saves it) and
`arm` (curve.parquet and what was spent; its presence means that training is done and every trained checkpoint was
evaluated). Blends of the last weights with the base's come after it and are never kept: they can be made again. Of
an arm that was stopped stay its finished evaluations, the traces that it imitates, and what its training needs to go on
(`retain_core.training.resume`); that is removed when the arm is done.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from retain_core.arms import ArmSpec, Checkpoint, weights_key
from retain_core.devices import reserved
from retain_core.evaluation.evaluate import Evaluator, Plan, checkpoint_plans
from retain_core.evaluation.floor import usual
from retain_core.launch import launch, launched, telling
from retain_core.provenance import git_sha, hardware
from retain_core.remote import open_store, store_at
from retain_core.settings import RESUME_SECONDS, settings
from retain_core.store import Store
from retain_core.training.interpolate import interpolate

Missing = dict[Checkpoint, list[Plan]]
"""What is still to be computed of each checkpoint."""


def run_arm(spec: ArmSpec, store: Store, every: float = RESUME_SECONDS) -> None:
    """Train the arm and evaluate its checkpoints; what the store already has is not done again.

    The same inputs give the same weights, so an evaluation that is missing while its weights are
    gone is made good by training again. `every` is the seconds from one state to resume from to the next. While another
    process runs the same arm, or others have all accelerators, this one waits.
    """
    import torch

    torch.set_num_threads(spec.threads)
    with store.leased(f"arm-{spec.key}"), contextlib.nullcontext() if launched() else reserved():
        missing: Missing = {
            c: [plan for plan in checkpoint_plans(spec, c) if store.find(plan.kind, plan.key) is None] for c in spec.checkpoints
        }
        base = store.get("base", spec.base.fingerprint).path if spec.base.lab else Path(spec.base.model)
        evaluator = Evaluator(store, store.get("dataset", spec.dataset_key), base, usual(spec.evaluation), spec.generation)
        if not spec.trained:
            evaluator.evaluate(Path(spec.config["model"]), missing[spec.checkpoints[0]])
            return
        (store.root / ".drafts").mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f"arm-{spec.key[:8]}-", dir=store.root / ".drafts"))
        try:
            if not (store.find("arm", spec.key) and _evaluate_kept(spec, store, evaluator, missing, base, work)):
                _train_and_evaluate(spec, store, evaluator, missing, base, work, every)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _evaluate_kept(spec: ArmSpec, store: Store, evaluator: Evaluator, missing: Missing, base: Path, work: Path) -> bool:
    """Make good missing evaluations from weights that are still there; False when some are not."""
    from retain_core.training import ranks

    wanted = spec.steps_needed(c for c, plans in missing.items() if plans)
    found = {step: store.find("weights", weights_key(spec, step)) for step in wanted}
    weights = {step: artifact.path for step, artifact in found.items() if artifact}
    if weights.keys() != wanted:
        return False
    ranks.dismiss()
    _evaluate(evaluator, missing, weights, base, work)
    return True


def _evaluate(evaluator: Evaluator, missing: Missing, weights: dict[int, Path], base: Path, work: Path) -> None:
    """Evaluate what is missing from the weights of the trained steps; a blend lies in `work` as long as it is asked."""
    for checkpoint, plans in missing.items():
        if not plans:
            continue
        trained = weights[checkpoint.step]
        if checkpoint.alpha is None:
            evaluator.evaluate(trained, plans)
            continue
        interpolate(base, trained, checkpoint.alpha, work / "blend")
        evaluator.evaluate(work / "blend", plans)
        shutil.rmtree(work / "blend")


def _train_and_evaluate(
    spec: ArmSpec,
    store: Store,
    evaluator: Evaluator,
    missing: Missing,
    base: Path,
    work: Path,
    every: float = RESUME_SECONDS,
) -> None:
    from retain_core.training import ranks
    from retain_core.training.checks import first_prompt
    from retain_core.training.traces import make_traces
    from retain_core.training.train import train

    traces = make_traces(spec, base, store, every) if spec.config.get("traces_of") else None
    unfinished = store.unfinished("arm", spec.key)
    record = ranks.together(train, spec, base, unfinished, traces, every)
    ranks.dismiss()
    weights = {step: unfinished.path("weights", str(step)) for step in spec.steps}
    _evaluate(evaluator, {c: plans for c, plans in missing.items() if c.alpha is None}, weights, base, work)
    for step in spec.kept_steps():
        identity = spec.checkpoint_identity(step)
        with store.create("weights", weights_key(spec, step), identity) as draft:
            shutil.copytree(weights[step], draft.path, dirs_exist_ok=True)
    with store.create("arm", spec.key, spec.inputs()) as draft:
        _write_curve(draft.path / "curve.parquet", record.curve)
        draft.meta.update(
            updates=record.updates, sequences=record.sequences, unique_prompts=record.unique_prompts,
            tokens_trained=record.tokens_trained, tokens_generated=record.tokens_generated, seconds=record.seconds,
            style_distance=record.style_distance, git_sha=git_sha(), hardware=hardware(spec.threads),
            first_prompt=first_prompt(spec, base),
            distances={str(step): list(pair) for step, pair in record.distances.items()},
        )  # fmt: skip
    _evaluate(evaluator, {c: plans for c, plans in missing.items() if c.alpha is not None}, weights, base, work)
    unfinished.remove()


def _write_curve(path: Path, curve: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("step", pa.int32()), ("name", pa.string()), ("value", pa.float64())])
    pq.write_table(pa.Table.from_pylist(curve, schema=schema), path, compression="zstd")


def main(spec_file: str, root: str | None = None) -> None:
    """Run the arm of a file, or this process's part of it; `root` is the store's address unless the settings say it."""
    spec = ArmSpec.model_validate_json(Path(spec_file).read_text(encoding="utf-8"))
    store = store_at(root) if root else open_store(settings())
    if not launched():
        launch(spec, store.address) if spec.processes > 1 else run_arm(spec, store, settings().resume_seconds)
        return
    import torch

    from retain_core.training import ranks

    with telling():
        ranks.join(spec.processes)
        if ranks.is_main():
            run_arm(spec, store, settings().resume_seconds)
        else:
            torch.set_num_threads(spec.threads)
            ranks.serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
