"""What a study brings of its own, sealed in one go when its file is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from retain_core.judge.benchmark import JudgedBenchmark, seal_judged
from retain_core.own.benchmark import OwnBenchmark, seal_benchmark
from retain_core.own.files import Code, Sealed, locate
from retain_core.own.lengths import without_long
from retain_core.own.method import METHODS
from retain_core.own.rows import LeftOut
from retain_core.own.target import OwnTarget, seal_target
from retain_core.public.folder import STYLES, counts_lines, folder_of, read_counts
from retain_core.settings import settings
from retain_core.suite.benchmark import SuiteBenchmark, seal_suite
from retain_core.suite.catalogue import CATALOGUE

if TYPE_CHECKING:
    from retain_core.methods import Method
    from retain_core.study import Retention, Study

BenchmarkFiles = OwnBenchmark | SuiteBenchmark | JudgedBenchmark


class Own(Sealed):
    """The files and functions of a study that are not retain's, as they were when its file was read."""

    target: OwnTarget | None = None
    benchmarks: dict[str, BenchmarkFiles] = Field(default_factory=dict)
    """By the benchmark's name."""
    trainers: dict[str, Code] = Field(default_factory=dict)
    """By the method's label."""
    public: dict[str, OwnTarget] = Field(default_factory=dict)
    """Retention benchmarks that are public data, by name; a public target is `target`."""
    counts: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Public data set -> what was counted when it was converted, for people to read."""

    def left_out(self) -> list[tuple[str, str, LeftOut]]:
        """Every row that is left out: (part of the target or benchmark, file, row)."""
        found: list[tuple[str, str, LeftOut]] = []
        if self.target:
            target = self.target
            sources = {"train": target.train, "items": target.items, "retention": target.retention, **target.experts}
            found = [
                (part, str(source.path), entry)
                for part, source in sources.items()
                for entry in target.left_out.get(part, ())
                if source
            ]
        for name, public in self.public.items():
            found += [(name, str(public.items.path), entry) for entry in public.left_out.get("items", ())]
        for name, benchmark in self.benchmarks.items():
            if isinstance(benchmark, OwnBenchmark):
                found += [(name, file, entry) for file, entries in benchmark.left_out.items() for entry in entries]
            elif isinstance(benchmark, JudgedBenchmark):
                found += [(name, str(benchmark.items.path), entry) for entry in benchmark.left_out]
        return found

    def notes(self) -> list[str]:
        """What is left out, a sentence for each file."""
        rows: dict[str, list[LeftOut]] = {}
        for _, file, row in self.left_out():
            rows.setdefault(file, []).append(row)
        return [
            f"{file}: {len(gone)} bad row{'s' * (len(gone) > 1)} left out, the first is line {gone[0].line}: {gone[0].reason}"
            for file, gone in rows.items()
        ]

    def public_lines(self) -> list[str]:
        """What became of the rows of every public data set, a sentence for each."""
        return [line for counts in self.counts.values() for line in counts_lines(counts)]

    def content(self) -> dict[str, Any]:
        """What a revision of the study is told apart by: contents, not where the files lie."""
        sources = {
            name: benchmark.said() if isinstance(benchmark, JudgedBenchmark) else benchmark.content
            for name, benchmark in self.benchmarks.items()
        }
        trainers = {label: code.identity() for label, code in self.trainers.items()}
        target = self.target and {**self.target.training_identity(), **self.target.evaluation_identity()}
        public = {name: own.evaluation_identity() for name, own in self.public.items()}
        experts = {style: self.target.said(style) for style in self.target.experts} if self.target else {}
        told = {"target": target, "benchmarks": sources, "trainers": trainers}
        return told | ({"public": public} if public else {}) | ({"experts": experts} if experts else {})


def seal_study(study: Study, folder: Path, fetched: bool = True) -> Own:
    """Find and check everything that a study names. Raises InputError with one sentence.

    Where it is not `fetched` yet, public data are not looked for.
    """
    bad_rows = study.data.bad_rows
    benchmarks = {entry.benchmark: _sealed(study, entry, folder) for entry in study.retention if entry.sealed}
    trainers = {
        method.label: locate(f"method {method.label}", str(method.trainer), folder, METHODS)
        for method in study.methods
        if method.algorithm == "custom"
    }
    target = seal_target(study.target_files, folder, bad_rows, _imitated(study.methods)) if study.target_files else None
    own = Own(target=target, benchmarks=benchmarks, trainers=trainers)
    if not fetched:
        return own
    return without_long(study, _with_public(study, own) if study.public_names() else own)


def _with_public(study: Study, own: Own) -> Own:
    """The public data of a study, sealed too."""
    from retain_core.public.sealed import refuse_without_expert, seal_public

    home, data = settings().home, study.data
    folders = {name: folder_of(home, *data.wanted(name)) for name in study.public_names()}
    sealed = {name: seal_public(name, folder, data.longest_answer, study.base_name()) for name, folder in folders.items()}
    target = sealed.pop(study.target, None)
    if target:
        imitated = {str(m.expert): m.label for m in study.methods if m.algorithm == "sft" and m.expert in STYLES}
        refuse_without_expert(target, imitated)
    counts = {name: read_counts(folder) for name, folder in folders.items()}
    return own.model_copy(update={"target": target or own.target, "public": sealed, "counts": counts})


def _sealed(study: Study, entry: Retention, folder: Path) -> BenchmarkFiles:
    """A benchmark that is none of the lab."""
    if entry.benchmark in CATALOGUE:
        revision = entry.revision or study.data.revisions.get(entry.benchmark)
        return seal_suite(entry.benchmark, entry.metric, revision, entry.templates, entry.unsafe_code)
    if entry.requests is not None:
        assert entry.longest_answer is not None
        return seal_judged(folder / entry.requests, study.judge, entry.longest_answer, study.data.bad_rows)
    assert entry.yaml is not None
    return seal_benchmark(folder / entry.yaml, entry.metric, entry.choices, entry.cluster, study.data.bad_rows)


def _imitated(methods: Sequence[Method]) -> dict[str, str]:
    """Fields that every training row of a target must have -> which method needs them, and what for."""
    needed: dict[str, str] = {}
    for method in methods:
        if method.algorithm == "sft" and method.expert == "off_style":
            needed.setdefault("answer", f"{method.label} imitates")
        if method.algorithm == "sft" and method.expert == "lowest_kl":
            needed.setdefault("valid", f"{method.label} chooses from")
    return needed
