"""A benchmark of the general suite as a study seals it: lm-eval's YAML files by content, and the revision of their data.

A group such as `mmlu` is one benchmark: its figure is the mean over the items of all parts, as lm-eval weights them, and the
part is the cluster of an item. With `templates` every item is asked in other words too; lm-eval's own words give the primary
metric, the others stand beside it as `acc,<template>`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

from retain_core.canonical import canonical_json, digest
from retain_core.errors import InputError, RetainError
from retain_core.own.benchmark import FEWSHOT_SEED, OwnBenchmark, load_task, read_yaml, seal_benchmark
from retain_core.own.files import Sealed, seal
from retain_core.suite.catalogue import CATALOGUE, Entry, files_of, harness_folder

PLACE_HOLDER = "acc"
"""lm-eval wants a metric of its own where retain runs the programs."""
SUITE_VERSION = 1
"""Raised when equal files would be asked or scored otherwise."""


class SuiteBenchmark(Sealed):
    """A benchmark of lm-eval with the content that its YAML files had when the study was read."""

    name: str
    parts: dict[str, OwnBenchmark]
    """lm-eval's name of each part -> its YAML file; of what is no group, the one part is itself."""
    revision: str | None
    """Of the data set, as the study pins it."""
    templates: tuple[str, ...]
    """Further prompt templates in which every item is asked."""
    metrics: tuple[str, ...]
    choices: int | None
    rehearsed: dict[str, Any] = {}
    """In a rehearsal, keys of the YAML file that are said otherwise: where its rows come from, and how much is asked."""

    @property
    def entry(self) -> Entry:
        """What the catalogue says of it."""
        return CATALOGUE[self.name]

    @property
    def content(self) -> str:
        """Hash of what is asked and how."""
        words = {name: dict(self.entry.templates[name]) for name in self.templates}
        parts = {name: part.content for name, part in self.parts.items()}
        return digest([self.name, parts, self.revision, words, self.entry.cluster, SUITE_VERSION], 64)

    @property
    def hub_data(self) -> str:
        """The data set of the hub that its items come from."""
        return str(next(iter(self.parts.values())).hub_data)

    def changes(self, template: str | None = None) -> str:
        """What is said otherwise than in lm-eval's YAML file, as JSON."""
        pinned: dict[str, Any] = {"dataset_kwargs": {"revision": self.revision}} if self.revision else {}
        scoring: dict[str, Any] = {}
        if self.entry.programs:
            metric = {"metric": PLACE_HOLDER, "aggregation": "mean", "higher_is_better": True}
            scoring = {"metric_list": [metric], "filter_list": None}
        return canonical_json({**pinned, **self.rehearsed, **scoring, **(self.entry.templates[template] if template else {})})


def seal_suite(
    name: str, metric: str | None, revision: str | None = None, templates: int = 1, unsafe_code: bool = False
) -> SuiteBenchmark:
    """Read and check lm-eval's YAML files of a benchmark. Raises InputError with one sentence."""
    entry = CATALOGUE[name]
    if entry.programs and not unsafe_code:
        raise InputError(
            f"{name} runs programs that the model writes, on this machine and as you; where that is safe, say so with "
            f"`{{benchmark: {name}, unsafe_code: true}}`"
        )
    if unsafe_code and not entry.programs:
        raise InputError(f"{name} runs no programs; leave `unsafe_code` out")
    if templates > 1 + len(entry.templates):
        has = "one prompt template" if not entry.templates else f"{1 + len(entry.templates)} prompt templates"
        raise InputError(f"{name} has {has}, not {templates}")
    files = files_of(entry)
    if not files:
        raise InputError(f"the installed lm-eval has no {entry.yaml}, which {name} is made of")
    if entry.group:
        _refuse_other_means(entry)
    if entry.programs:
        parts = {name: _sealed_programs(entry)}
        known: tuple[str, ...] = (entry.metric,)
    else:
        sealed = [seal_benchmark(file, None, entry.choices, entry.cluster) for file in files]
        parts = {name if len(files) == 1 else file.stem: part for file, part in zip(files, sealed, strict=True)}
        known = tuple(dict.fromkeys((entry.metric, *sealed[0].metrics)))
    if metric is not None and metric not in known:
        raise InputError(f"{name} has no metric {metric!r}; it has {', '.join(known)}")
    names = tuple(entry.templates)[: templates - 1]
    first = metric or known[0]
    told = (first, *(m for m in known if m != first), *(f"{entry.metric},{template}" for template in names))
    return SuiteBenchmark(
        name=name, parts=parts, revision=revision, templates=names, metrics=told, choices=entry.choices
    )  # fmt: skip


def tasks_of(own: SuiteBenchmark, template: str | None = None) -> dict[str, Any]:
    """lm-eval's task of each part, its items loaded, asked in lm-eval's words or a template's. Raises RetainError."""
    found = {}
    for name, part in own.parts.items():
        task = load_task(part.yaml.checked(), part.content, (), own.changes(template))
        _refuse_other_revision(own, task)
        task.set_fewshot_seed(FEWSHOT_SEED)
        found[name] = task
    return found


def loaded_revision(task: Any) -> str | None:
    """The commit of the hub's data set that a task's items come from; None where its builder does not say."""
    folder = _cache_folder(task)
    return folder.name if folder and re.fullmatch(r"[0-9a-f]{40}", folder.name) else None


def make_newest(task: Any) -> None:
    """See to it that what was loaded is what a process without a network finds: the newest in the cache."""
    if folder := _cache_folder(task):
        os.utime(folder)


def _cache_folder(task: Any) -> Path | None:
    """Where `datasets` keeps the items of a task; the folder is called after the commit."""
    files = next(iter(task.dataset.values())).cache_files
    return Path(files[0]["filename"]).parent if files else None


def _refuse_other_revision(own: SuiteBenchmark, task: Any) -> None:
    """Without a network the newest revision in the cache is taken, whatever was asked for."""
    found = loaded_revision(task)
    if own.revision and found and not found.startswith(own.revision):
        raise RetainError(
            f"{own.name}: the local cache of the hub has {own.hub_data} at {found[:12]}, and the study pins "
            f"{own.revision[:12]}; fetch it with `retain prefetch STUDY.yaml`"
        )


def _sealed_programs(entry: Entry) -> OwnBenchmark:
    """A benchmark that is scored by running programs: the YAML alone, since retain runs them itself."""
    path = harness_folder() / entry.yaml
    config = read_yaml(path)
    return OwnBenchmark(
        yaml=seal([path]), metrics=(entry.metric,), choices=None, cluster=None, hub_data=str(config["dataset_path"])
    )


def _refuse_other_means(entry: Entry) -> None:
    """A group whose figure is no mean over items cannot be paired item by item. Raises InputError."""
    assert entry.group is not None
    path = harness_folder() / entry.group
    listed = yaml.safe_load(path.read_text(encoding="utf-8")).get("aggregate_metric_list") or []
    if not any(one.get("metric") == entry.metric and one.get("weight_by_size", True) for one in listed):
        raise InputError(f"{path}: the figure of the group is no mean over its items, which is what retain pairs with the base")
