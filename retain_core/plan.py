"""From a study file to everything that must exist, and what of it the store already has.

Planning reads manifests and checks every byte behind them; it runs nothing and needs no server.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retain_core.arms import ArmSpec, BaseRef, Checkpoint, arm_name, weights_key
from retain_core.canonical import digest
from retain_core.errors import InputError
from retain_core.evaluation.divergence import DivergenceSettings
from retain_core.evaluation.evaluate import EvaluationPlan, Plan, checkpoint_plans, own_items, plans_of
from retain_core.evaluation.floor import nuisances, usual
from retain_core.evaluation.size import AS_THE_LAB, EvaluationSize
from retain_core.judge.benchmark import JudgedBenchmark
from retain_core.judge.judging import judge_folder
from retain_core.lab.base import base_key
from retain_core.lab.dataset import dataset_inputs
from retain_core.lab.spec import LabSpec, lab_spec
from retain_core.methods import Method
from retain_core.model_files import model_fingerprint, model_folder, template_hash
from retain_core.overlap import overlap_inputs
from retain_core.store import Artifact, Store, key_of
from retain_core.study import Study
from retain_core.support import support_key
from retain_core.training.size import TrainingSize

BASE_THREADS = 2
"""Threads for training a lab base: fixed, because the thread count is part of what decides its bits."""


@dataclass
class PlannedArm:
    """One arm with what the store has of it."""

    spec: ArmSpec
    record: Artifact | None
    """The finished training, None while it has to be trained (or is external)."""
    evaluations: dict[Checkpoint, list[tuple[Plan, Artifact | None]]]
    """Everything that is computed of each checkpoint, blends included."""
    to_train: bool
    """It was not trained yet, or weights that are still needed are gone; False for an external model."""

    @property
    def done(self) -> bool:
        """Nothing of this arm is left to do."""
        return not self.to_train and self.missing_evaluations == 0

    @property
    def evaluated(self) -> list[Checkpoint]:
        """The checkpoints that are evaluated on everything; a half-evaluated one is shown nowhere."""
        return [checkpoint for checkpoint, pairs in self.evaluations.items() if all(found for _, found in pairs)]

    @property
    def missing_evaluations(self) -> int:
        """Evaluations still to be done."""
        return sum(found is None for plans in self.evaluations.values() for _, found in plans)


@dataclass
class StudyPlan:
    """A study, spelled out."""

    study: Study
    base: BaseRef
    world: LabSpec
    dataset_key: str
    dataset: Artifact | None
    base_weights: Artifact | None
    base_evaluations: list[tuple[EvaluationPlan, Artifact | None]]
    floor: dict[str, list[tuple[EvaluationPlan, Artifact | None]]]
    """Nuisance -> the base evaluated again under it."""
    own_items: dict[str, Artifact | None]
    """Benchmark -> its items, of those that are the user's own."""
    base_samples: Artifact | None
    support: Artifact | None
    support_key: str
    evaluation: EvaluationSize = AS_THE_LAB
    """Precision and batches of all that is evaluated, the base's shape considered."""
    arms: list[PlannedArm] = field(default_factory=list)
    overlap: Artifact | None = None
    """How much of what it trains on it is evaluated on."""

    @property
    def done(self) -> bool:
        """Everything is there and verified: nothing to train, nothing to evaluate."""
        return self.base_done and self.floor_done and all(arm.done for arm in self.arms)

    @property
    def base_done(self) -> bool:
        """The base is there, evaluated, sampled, and its support measured."""
        measured = self.support is not None and self.base_samples is not None
        return self.base_ready and measured and all(found for _, found in self.base_evaluations)

    @property
    def floor_done(self) -> bool:
        """The noise floor is measured."""
        return all(found for pairs in self.floor.values() for _, found in pairs)

    @property
    def divergence_settings(self) -> DivergenceSettings:
        """What the KL of every checkpoint to this base depends on."""
        retention = tuple(r.benchmark for r in self.study.retention)
        threads = self.study.execution.threads_per_arm
        return DivergenceSettings(
            self.base.fingerprint, self.dataset_key, self.study.target, retention, threads, self.base.chat_template,
            own_items(self.study.benchmarks()), self.study.benchmarks()[0].longest, self.evaluation,
            self.study.divergence_prompts,
        )  # fmt: skip

    @property
    def items_ready(self) -> bool:
        """All items are there."""
        return self.dataset is not None and all(self.own_items.values())

    @property
    def base_ready(self) -> bool:
        """The base's weights and the items exist."""
        return self.items_ready and (self.base_weights is not None or self.base.lab is None)

    @property
    def base_path(self) -> Path:
        """Where the base's weights lie."""
        return self.base_weights.path if self.base_weights else Path(self.base.model)


def plan_study(study: Study, store: Store) -> StudyPlan:
    """Spell a study out and look up every piece. Raises InputError for a model that is not there."""
    threads = study.execution.threads_per_arm
    base = base_reference(study)
    world = base.lab or lab_spec("tiny")
    dataset_key = key_of(dataset_inputs(world))
    identity = {"base": base.fingerprint}
    size = evaluation_size(study, base)
    support = support_key(base.fingerprint, dataset_key, study.benchmarks()[0], threads, size)
    plan = StudyPlan(
        study=study,
        base=base,
        world=world,
        dataset_key=dataset_key,
        dataset=store.find("dataset", dataset_key),
        base_weights=store.find("base", base.fingerprint) if base.lab else None,
        base_evaluations=[
            (p, store.find("evaluation", p.key))
            for p in plans_of(
                identity, study.benchmarks(), dataset_key, threads, base.chat_template, usual(size), study.generation
            )
        ],
        floor={
            nuisance.name: [
                (p, store.find("evaluation", p.key))
                for p in plans_of(
                    identity, study.benchmarks(), dataset_key, threads, base.chat_template, nuisance, study.generation
                )
            ]
            for nuisance in nuisances(study.generation, size)
        },
        own_items={name: store.find("items", key) for name, key in own_items(study.benchmarks())},
        base_samples=None,
        support=store.find("support", support),
        support_key=support,
        evaluation=size,
    )
    plan.base_samples = store.find("base_samples", key_of(plan.divergence_settings.inputs()))
    plan.overlap = store.find("overlap", key_of(overlap_inputs(plan)))
    plan.arms = [plan_arm(spec, store) for spec in fit_to_card(arm_specs(study, base, world, dataset_key), study)]
    return plan


def plan_arm(spec: ArmSpec, store: Store) -> PlannedArm:
    """One arm with what the store has of it."""
    evaluations = {c: [(p, store.find(p.kind, p.key)) for p in checkpoint_plans(spec, c)] for c in spec.checkpoints}
    if not spec.trained:
        return PlannedArm(spec, None, evaluations, to_train=False)
    record = store.find("arm", spec.key)
    needed = spec.steps_needed(c for c, pairs in evaluations.items() if not all(found for _, found in pairs))
    at_hand = [store.find("weights", weights_key(spec, step)) for step in sorted(needed)]
    return PlannedArm(spec, record, evaluations, to_train=record is None or not all(at_hand))


def evaluation_size(study: Study, base: BaseRef) -> EvaluationSize:
    """How the study evaluates: as it says, and in passes that the shape of a base that is none of the lab allows."""
    return study.evaluation if base.lab else study.evaluation.fitted_to(Path(base.model))


def arm_specs(study: Study, base: BaseRef, world: LabSpec, dataset_key: str) -> list[ArmSpec]:
    """Every arm of the study: methods and controls x learning rates x seeds."""
    size, at_once = evaluation_size(study, base), None if base.lab else AS_THE_LAB.fitted_to(Path(base.model)).batch_tokens
    return [
        ArmSpec(
            arm=arm_name(study.study, method.label, rate, seed), study=study.study, method=method.label,
            role="control" if method.label in study.controls else "method", config=_config(study, method), base=base,
            world=world, dataset_key=dataset_key, target=study.target, learning_rate=rate, seed=seed,
            then=_then(study, method), updates=study.budget.updates,
            sequences_per_update=study.budget.sequences_per_update, steps=_steps(study, method),
            retention=tuple(r.benchmark for r in study.retention), benchmarks=tuple(study.benchmarks()),
            keep=study.keep, threads=study.execution.threads_per_arm,
            interpolate=study.interpolate if method.label in study.interpolated().values() else (),
            own_target=study.own.target, trainer=study.own.trainers.get(method.label),
            processes=1 if method.algorithm == "external" else study.execution.processes_per_arm,
            parallel=study.execution.parallel, generation=study.generation, size=_size(study, method),
            evaluation=size, divergence_prompts=study.divergence_prompts, sampled_at_once=at_once,
        )
        for method in study.all_methods()
        for rate, seed in _grid(study, method)
    ]  # fmt: skip


def fit_to_card(specs: list[ArmSpec], study: Study) -> list[ArmSpec]:
    """The arms with the micro-batch and the recomputing that `training.card` stands for. Raises InputError: none fits."""
    from retain_core.cards import GB, demand_of, fitted

    if study.training.card is None or (demand := demand_of(specs)) is None:
        return specs
    size = fitted(demand, study.training.card * GB, study.training)
    if size is None:
        needed, method = demand.peak(TrainingSize(micro_batch=1, activation_checkpointing=True))
        raise InputError(
            f"training.card: {method} takes {needed / GB:.0f} GB at least, and the card has {study.training.card}; "
            "train adapters (`lora_rank`) or use several cards (`execution: {processes_per_arm: 4, parallel: fsdp}`)"
        )
    chosen = {"card": None, "micro_batch": size.micro_batch, "activation_checkpointing": size.activation_checkpointing}
    return [spec.model_copy(update={"size": spec.size.model_copy(update=chosen)}) for spec in specs]


def base_reference(study: Study) -> BaseRef:
    """The base model by content."""
    lab = study.base.lab()
    if lab:
        return BaseRef(model=study.base.model, fingerprint=base_key(lab, BASE_THREADS), lab=lab)
    folder = model_folder("base", study.base.model, study.base.revision)
    if (template := template_hash(folder)) == digest("", 16):
        raise InputError(f"base: {folder} has no chat template, and prompts are put through one; add chat_template.jinja to it")
    return BaseRef(model=str(folder), fingerprint=model_fingerprint(folder), chat_template=template)


def check_models(study: Study) -> None:
    """Raises InputError for a base or an external model that is not there."""
    base_reference(study)
    for method in study.methods:
        if method.algorithm == "external":
            model_folder(f"method {method.label}", str(method.model), method.revision)
    if study.judge is not None and any(isinstance(own, JudgedBenchmark) for own in study.own.benchmarks.values()):
        judge_folder(study.judge)


def _size(study: Study, method: Method) -> TrainingSize:
    """How a method's training is fitted; one that samples nothing from its policy is the same with a server as without."""
    return study.training if method.samples_policy() else study.training.model_copy(update={"rollouts": None})


def _grid(study: Study, method: Method) -> list[tuple[float | None, int | None]]:
    if method.algorithm == "external":
        return [(None, None)]
    rates, seeds = method.learning_rates or study.learning_rates, method.seeds or study.seeds
    return [(rate, seed) for rate in rates for seed in seeds]


def _then(study: Study, method: Method) -> tuple[str, ...]:
    """The later targets of a method's arms; controls stay with the first, and nothing is trained of an external model."""
    return () if method.label in study.controls or method.algorithm == "external" else study.then


def _steps(study: Study, method: Method) -> tuple[int, ...]:
    if method.algorithm == "external":
        return (0,)
    stages = range(1 + len(_then(study, method)))
    return tuple(stage * study.budget.updates + step for stage in stages for step in study.checkpoint_steps())


def _config(study: Study, method: Method) -> dict[str, Any]:
    config = method.config()
    if method.algorithm == "custom":
        config["code"] = study.own.trainers[method.label].identity()
    if method.algorithm == "external":
        folder = model_folder(f"method {method.label}", str(method.model), method.revision)
        config.update(model=str(folder), fingerprint=model_fingerprint(folder), chat_template=template_hash(folder))
    return config
