"""What a study brings of its own, sealed in one go when its file is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from retain_core.own.benchmark import OwnBenchmark, seal_benchmark
from retain_core.own.files import Code, Sealed, locate
from retain_core.own.method import METHODS
from retain_core.own.target import OwnTarget, refuse_without, seal_target

if TYPE_CHECKING:
    from retain_core.methods import Method
    from retain_core.study import Study


class Own(Sealed):
    """The files and functions of a study that are not retain's, as they were when its file was read."""

    target: OwnTarget | None = None
    benchmarks: dict[str, OwnBenchmark] = Field(default_factory=dict)
    """By the benchmark's name."""
    trainers: dict[str, Code] = Field(default_factory=dict)
    """By the method's label."""

    def content(self) -> dict[str, Any]:
        """What a revision of the study is told apart by: contents, not where the files lie."""
        sources = {name: benchmark.yaml.content for name, benchmark in self.benchmarks.items()}
        trainers = {label: code.identity() for label, code in self.trainers.items()}
        target = self.target and {**self.target.training_identity(), **self.target.evaluation_identity()}
        return {"target": target, "benchmarks": sources, "trainers": trainers}


def seal_study(study: Study, folder: Path) -> Own:
    """Find and check everything that a study names. Raises InputError with one sentence."""
    benchmarks = {
        entry.benchmark: seal_benchmark(folder / entry.yaml, entry.metric, entry.choices, entry.cluster)
        for entry in study.retention
        if entry.yaml
    }
    trainers = {
        method.label: locate(f"method {method.label}", str(method.trainer), folder, METHODS)
        for method in study.methods
        if method.algorithm == "custom"
    }
    target = seal_target(study.target_files, folder) if study.target_files else None
    own = Own(target=target, benchmarks=benchmarks, trainers=trainers)
    if target:
        for method in study.model_copy(update={"own": own}).all_methods():
            _refuse_unfit(method, target)
    return own


def _refuse_unfit(method: Method, target: OwnTarget) -> None:
    if method.algorithm == "sft" and method.expert == "off_style":
        refuse_without(target, "answer", f"{method.label} imitates")
    if method.algorithm == "sft" and method.expert == "lowest_kl":
        refuse_without(target, "valid", f"{method.label} chooses from")
