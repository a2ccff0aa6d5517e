"""Evaluations made elsewhere, kept in the home and loaded into the warehouse like any other.

Owns `artifacts/imported/<study>.json`: the target, and every model with its evaluations by key. The answers
are `evaluation` artifacts, so the warehouse can be rebuilt from them. A study of this kind trains nothing; its
base is the model imported as `<study>/base`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from retain_core.canonical import canonical_json, digest, hash64
from retain_core.errors import InputError
from retain_core.evaluation.answers import Answer, write_answers
from retain_core.imported.samples import Benchmark, Item, count, few, read_run, refuse_foreign_results, shares
from retain_core.revisions import read_record, revisions_of
from retain_core.store import Artifact, Store, key_of
from retain_core.warehouse.contents import Contents, Evaluated

BASE = "base"
UNKNOWN = {"settings": "unknown: no results JSON beside the samples"}


@dataclass(frozen=True)
class ImportedModel:
    """One model of an imported study."""

    label: str
    source: str
    model: str | None
    imported_at: str
    evaluations: dict[str, str]
    """Benchmark -> key of its evaluation artifact."""


@dataclass(frozen=True)
class ImportedStudy:
    """All models that were imported under one study name."""

    study: str
    target: str | None
    models: list[ImportedModel]

    def model(self, label: str) -> ImportedModel | None:
        """The model of that label."""
        return next((m for m in self.models if m.label == label), None)


def import_run(store: Store, path: Path, address: str, target: str | None, cluster: str | None) -> ImportedStudy:
    """Keep what lm-eval wrote at `path` as the model `<study>/<label>`; importing again replaces it.

    Raises InputError for an address that is taken or malformed, and for answers that cannot be compared
    with those that the study has; nothing is kept then.
    """
    name, label = _split(address)
    if revisions_of(store, name):
        raise InputError(f"{name} is a study that was run here; choose another name to import under")
    known = read_imported(store, name) or ImportedStudy(name, None, [])
    if target is not None and known.target not in (None, target):
        raise InputError(f"{name} has the target {known.target}; it cannot get {target} too")
    run = read_run(path, cluster)
    if short := [b.name for b in run.benchmarks if len(b.items) < 2]:
        raise InputError(f"{path}: {few(short)} has a single item, which no interval can be computed from")
    found = {b.name: _answers(b) for b in run.benchmarks}
    others = [m for m in known.models if m.label != label]
    chosen = target or known.target
    for where, names in [(str(path), list(found)), *((f"{name}/{m.label}", list(m.evaluations)) for m in others)]:
        if chosen is not None and chosen not in names:
            raise InputError(f"the target {chosen} is not among the benchmarks of {where}: {few(names)}")
    if not answered_by_all([set(found), *(set(m.evaluations) for m in others)]):
        raise InputError(f"{path} has no benchmark in common with the other models of {name}: {few(found)}")
    for other in others:
        _refuse_unlike(store, run.benchmarks, found, other, cluster)
    keys = {b.name: _keep(store, b, found[b.name], cluster) for b in run.benchmarks}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    model = ImportedModel(label, str(path), run.model, now, keys)
    study = ImportedStudy(name, chosen, [*others, model])
    store.write_note("imported", name, json.dumps(asdict(study), indent=1))
    return study


def read_imported(store: Store, name: str) -> ImportedStudy | None:
    """An imported study; None when there is none of that name."""
    path = store.note("imported", name)
    if not path.is_file():
        return None
    return read_record(path, TypeAdapter(ImportedStudy))


def imported_studies(store: Store) -> list[str]:
    """Names of all imported studies of this home."""
    return store.notes("imported")


def answered_by_all(models: Sequence[set[str]]) -> set[str]:
    """The benchmarks that every model answered; means over other sets of benchmarks could not be compared."""
    return set.intersection(*models)


def imported_contents(store: Store, study: ImportedStudy) -> Contents:
    """What an imported study puts into the warehouse. A benchmark that not every model answered stands beside, as probes do."""
    base = f"{study.study}/{BASE}"
    checkpoints: list[list[Any]] = []
    arms: list[list[Any]] = []
    evaluations: list[Evaluated] = []
    benchmarks: dict[str, Artifact] = {}
    for model in study.models:
        arm = f"{study.study}/{model.label}"
        name = base if model.label == BASE else f"{arm}@0"
        role = "base" if model.label == BASE else "method"
        config = canonical_json({"source": model.source, "model": model.model})
        arms.append(
            [
                arm, study.study, base, study.target, model.label, "none" if role == "base" else "external", role, config,
                *[None] * 6, "done", None, *[None] * 9, None, None, model.imported_at, None,
            ]
        )  # fmt: skip
        checkpoints.append([name, arm, study.study, 0, None, None, False, None, None])
        for benchmark, key in model.evaluations.items():
            artifact = store.get("evaluation", key)
            benchmarks.setdefault(benchmark, artifact)
            evaluations.append(Evaluated(name, benchmark, artifact.meta["settings"], artifact))
    shared = answered_by_all([set(m.evaluations) for m in study.models])
    rows = [
        [
            study.study,
            name,
            a.meta["metric"],
            _role(name, a, study.target, shared),
            False,
            a.meta["choices"],
            int(name == study.target) or None,
        ]
        for name, a in benchmarks.items()
    ]
    first = min((m.imported_at for m in study.models), default="")
    base_model = study.model(BASE)
    spec = {
        "study": study.study, "base": {"model": (base_model.model if base_model else None) or "imported"},
        "target": study.target, "retention": [{"benchmark": r[1], "near": False} for r in rows if r[3] == "retention"],
        "methods": [{"label": m.label} for m in study.models if m.label != BASE], "controls": [], "seeds": [],
    }  # fmt: skip
    studies = [[study.study, 1, canonical_json(spec), digest(spec, 16), None, first, first, True, [1]]]
    tables = {"studies": studies, "study_benchmarks": rows, "arms": arms, "checkpoints": checkpoints}
    return Contents(study.study, tables, evaluations)


def _split(address: str) -> tuple[str, str]:
    name, _, label = address.partition("/")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", label):
        raise InputError(f"{address!r} is no address of a model; say STUDY/base for the base and STUDY/<label> for any other")
    return name, label


def _role(name: str, artifact: Artifact, target: str | None, shared: set[str]) -> str:
    if name == target:
        return "target"
    return "probe" if artifact.meta["loss"] or name not in shared else "retention"


def _answers(benchmark: Benchmark) -> list[Answer]:
    """Every item with all its scores; items that do not count equally are scaled, so that means are the harness's."""
    scores: dict[str, list[float]] = {}
    for key in _metrics(benchmark):
        refuse_foreign_results(benchmark, key)
        weights = [share * len(benchmark.items) for share in shares(benchmark, key, bool(benchmark.metrics[key].by_parts))]
        equal = max(weights) - min(weights) < 1e-9
        values = benchmark.item_scores(key)
        scores[key] = values if equal else [v * w for v, w in zip(values, weights, strict=True)]
    return [
        Answer(
            doc_id=item.doc_id, prompt=item.prompt, target=item.target, cluster=item.cluster, response=item.response,
            scores={key: values[i] for key, values in scores.items()}, item=_identity(benchmark.name, item),
        )
        for i, item in enumerate(benchmark.items)
    ]  # fmt: skip


def _metrics(benchmark: Benchmark) -> list[str]:
    """The primary metric first."""
    return [benchmark.metric, *(key for key in benchmark.metrics if key != benchmark.metric)]


def _identity(benchmark: str, item: Item) -> int:
    """Documents made elsewhere may repeat a question: the place in the benchmark tells them apart.

    The cluster belongs to it because an item has one cluster, whichever study asks.
    """
    cluster = "" if item.cluster is None else f"\n{item.cluster}"
    return hash64(f"{benchmark}\n{item.part}\n{item.doc_id}\n{item.prompt}\n{item.target}{cluster}")


def _settings(benchmark: Benchmark, cluster: str | None) -> dict[str, Any]:
    """What must agree between the models of a study, as it is stored."""
    told: dict[str, Any] = dict(benchmark.settings if benchmark.settings is not None else UNKNOWN)
    if any(item.cluster is not None for item in benchmark.items):
        told["cluster"] = cluster
    plain: dict[str, Any] = json.loads(canonical_json(told))
    return plain


def _keep(store: Store, benchmark: Benchmark, answers: list[Answer], cluster: str | None) -> str:
    metric, choices = benchmark.metric, {item.choices for item in benchmark.items}
    content = digest([[a.item, a.response, a.scores] for a in answers])
    inputs = {"imported": benchmark.name, "answers": content, "settings": _settings(benchmark, cluster)}
    key = key_of(inputs)
    if store.find("evaluation", key):
        return key
    with store.create("evaluation", key, inputs) as draft:
        write_answers(draft.path, benchmark.name, answers)
        draft.meta.update(
            benchmark=benchmark.name, settings=inputs["settings"], settings_hash=digest(inputs["settings"], 16),
            n=len(answers), metric=metric, loss=benchmark.metrics[metric].form == "log-likelihood",
            choices=choices.pop() if len(choices) == 1 and max(choices) > 1 else None,
        )  # fmt: skip
    return key


def _refuse_unlike(
    store: Store,
    benchmarks: tuple[Benchmark, ...],
    found: dict[str, list[Answer]],
    other: ImportedModel,
    cluster: str | None,
) -> None:
    """Same settings and same items as another model of the study, on every benchmark that both have."""
    import pyarrow.parquet as pq

    from retain_core.evaluation.answers import ANSWERS

    for benchmark in benchmarks:
        if benchmark.name not in other.evaluations:
            continue
        artifact = store.get("evaluation", other.evaluations[benchmark.name])
        ours = {**_settings(benchmark, cluster), "metric": benchmark.metric}
        theirs = {**artifact.meta["settings"], "metric": artifact.meta["metric"]}
        unlike = [
            f"{key} ({theirs.get(key)} against {ours.get(key)})"
            for key in sorted(ours | theirs)
            if ours.get(key) != theirs.get(key)
        ]
        if unlike:
            raise InputError(f"{benchmark.name}: evaluated under other settings than {other.label}: {', '.join(unlike)}")
        items = set(pq.read_table(artifact.file(ANSWERS), columns=["item"])["item"].to_pylist())
        strange = [a.doc_id for a in found[benchmark.name] if a.item not in items]
        if strange or len(found[benchmark.name]) != len(items):
            raise InputError(
                f"{benchmark.name}: not the items that {other.label} answered ({len(found[benchmark.name])} against "
                f"{count(len(items), 'item', 'items')}{'; unknown there: doc_id ' + few(strange) if strange else ''})"
            )
