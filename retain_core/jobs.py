"""What a worker process does: one function per kind of job, each from plain data.

Studies that run at the same time may want the same, so each works under a lease: the second waits, and finds it done.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retain_core.arm import run_arm
from retain_core.arms import ArmSpec, BaseRef
from retain_core.devices import reserved
from retain_core.evaluation.benchmarks import Benchmark
from retain_core.evaluation.divergence import DivergenceSettings, sample_base
from retain_core.evaluation.evaluate import Evaluator, plans_of
from retain_core.evaluation.floor import Nuisance, nuisances, usual
from retain_core.evaluation.generation import TRANSFORMERS, Generation
from retain_core.evaluation.size import AS_THE_LAB, EvaluationSize
from retain_core.lab.base import base_key, train_base
from retain_core.lab.dataset import prepare_dataset
from retain_core.lab.spec import LabSpec
from retain_core.launch import launch
from retain_core.own.items import prepare_items
from retain_core.own.target import OwnTarget
from retain_core.remote import store_at
from retain_core.settings import settings
from retain_core.store import Store
from retain_core.support import measure_support, support_key
from retain_core.training.checks import check_base


def prepare(root: str, world: str, benchmarks: list[Benchmark]) -> None:
    """Make the items of the world, and read those of the user's own benchmarks."""
    store = store_at(root)
    with store.leased("items"):
        prepare_dataset(store, LabSpec.model_validate_json(world))
        prepare_items(store, benchmarks)


def base(root: str, spec: str, threads: int) -> None:
    """Train a lab base."""
    store, lab = store_at(root), LabSpec.model_validate_json(spec)
    with store.leased(f"base-{base_key(lab, threads)}"), reserved():
        train_base(store, lab, threads)


def base_evaluation(
    root: str,
    base_ref: str,
    weights: str,
    dataset_key: str,
    benchmarks: list[Benchmark],
    threads: int,
    divergence: dict[str, Any],
    generation: Generation = TRANSFORMERS,
    size: EvaluationSize = AS_THE_LAB,
) -> None:
    """Evaluate the base on every benchmark that is missing, sample it, and measure its support on the target."""
    store, reference = store_at(root), BaseRef.model_validate_json(base_ref)
    settings = DivergenceSettings(**{**divergence, "retention": tuple(divergence["retention"])})
    target = next(benchmark for benchmark in benchmarks if benchmark.name == settings.target)
    if reference.lab is None:
        check_base(Path(weights), target.own if isinstance(target.own, OwnTarget) else None)
    with store.leased(f"evaluation_of_base-{reference.fingerprint}"), reserved():
        _evaluate_base(store, reference, Path(weights), dataset_key, benchmarks, threads, usual(size), generation)
        sample_base(store, Path(weights), settings)
        if store.find("support", support_key(reference.fingerprint, dataset_key, target, threads, size)) is None:
            measure_support(store, Path(weights), reference.fingerprint, dataset_key, target, threads, size)


def floor(
    root: str,
    base_ref: str,
    weights: str,
    dataset_key: str,
    benchmarks: list[Benchmark],
    threads: int,
    generation: Generation = TRANSFORMERS,
    size: EvaluationSize = AS_THE_LAB,
) -> None:
    """Evaluate the base again under every nuisance."""
    store, reference = store_at(root), BaseRef.model_validate_json(base_ref)
    with store.leased(f"floor_of_base-{reference.fingerprint}"), reserved():
        for nuisance in nuisances(generation, size):
            _evaluate_base(store, reference, Path(weights), dataset_key, benchmarks, threads, nuisance, generation)


def arm(root: str, spec: str) -> None:
    """Train and evaluate one arm, in this process or in as many as its study says."""
    asked = ArmSpec.model_validate_json(spec)
    if asked.processes > 1:
        launch(asked, root)
    else:
        run_arm(asked, store_at(root), settings().resume_seconds)


def _evaluate_base(
    store: Store,
    base: BaseRef,
    weights: Path,
    dataset_key: str,
    benchmarks: list[Benchmark],
    threads: int,
    nuisance: Nuisance,
    generation: Generation,
) -> None:
    import torch

    torch.set_num_threads(threads + nuisance.more_threads)
    plans = plans_of({"base": base.fingerprint}, benchmarks, dataset_key, threads, base.chat_template, nuisance, generation)
    missing = [plan for plan in plans if store.find("evaluation", plan.key) is None]
    if missing:
        Evaluator(store, store.get("dataset", dataset_key), weights, nuisance, generation).evaluate(weights, missing)


def rehearsal_models(wanted: list[dict[str, Any]], told: str) -> None:
    """Build the small models of a rehearsal."""
    from retain_core.rehearse.model_job import job

    job(wanted, told)
