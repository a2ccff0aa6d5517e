"""Reading what lm-eval writes with `--log_samples --output_path`.

<model>/results_<date>.json                 scores, settings, versions and groups of one run
<model>/samples_<benchmark>_<date>.jsonl    a line per document and filter: prompt, answers, scores

Checked against files of lm-eval 0.4.13. Light: neither lm-eval nor torch is imported, nothing is unpickled.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from retain_core.errors import InputError
from retain_core.imported.harness_settings import settings_of

PREFERRED = (
    "acc", "exact_match", "pass@1", "pass_at_1", "prompt_level_strict_acc", "em", "f1", "acc_norm", "score", "perplexity",
    "word_perplexity", "byte_perplexity", "bits_per_byte",
)  # fmt: skip
"""The primary metric of a benchmark is the first of these that it has, with the first filter of the results;
without any of them the first metric of the results."""

_LOG_LIKELIHOODS = ("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte")
"""Here a sample holds a log-likelihood, or one with a count of words or bytes; the exponential comes after the mean."""
_NOT_A_MEAN = ("median", "f1", "matthews_corrcoef", "bleu", "chrf", "chrf++", "ter", "brier_score", "bypass")
"""Aggregations over all items at once: no item has a score of its own."""
_HIGHER = dict.fromkeys(PREFERRED[:9], True) | dict.fromkeys(("acc_bytes", "acc_mutual_info", "likelihood"), True)
_LOWER = dict.fromkeys(("nats_per_token", "wer", "cer", "ter", "brier_score", "mse", "mae"), False)
_NO_MEAN = "not a mean of item scores"
_UNCLEAR = "nothing says whether higher is better; keep results_*.json beside the samples"
_DIRECTION = _HIGHER | _LOWER
"""Whether higher is better, for files whose results are not beside them."""
_ROW = {
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash", "prompt_hash",
    "target_hash",
}  # fmt: skip
_DATE = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?"
_SAMPLES = re.compile(rf"samples_(?P<name>.+)_(?P<date>{_DATE})\.jsonl")


@dataclass(frozen=True)
class Metric:
    """One number of a benchmark, by its full harness key such as `exact_match,strict-match`."""

    key: str
    higher_is_better: bool
    """As lm-eval says. Item scores are always turned so that higher is better."""
    form: Literal["score", "negated", "log-likelihood"] = "score"
    """How the item scores come from what lm-eval wrote: as they are, negated because lower is better, or the
    log-likelihood in nats (per word or byte) behind a perplexity."""
    reported: float | None = None
    """What the results JSON says, as it says it; None without one."""
    by_parts: bool | None = False
    """Group: whether subtasks count equally (False: items do; None: the scores cannot tell)."""


@dataclass(frozen=True)
class Item:
    """One document with its answer and a score per metric key."""

    doc_id: int
    part: str
    """The subtask of a group; the benchmark itself elsewhere."""
    doc_hash: str | None
    prompt_hash: str | None
    target_hash: str | None
    prompt: str
    target: str
    response: str
    """What the model said; for multiple choice the likeliest choice; empty for plain likelihoods."""
    extracted: Mapping[str, str]
    """What each metric was computed on: the filtered answer, or the choice that counts; by metric key."""
    scores: Mapping[str, float]
    """Higher is better. lm-eval scores a document once, whatever the number of `repeats`."""
    weights: Mapping[str, float]
    """Words, bytes or instructions behind a score, where the benchmark's score is a mean over those."""
    choices: int = 0
    repeats: int = 1
    cluster: str | None = None
    place: str = ""
    """File and line, for messages."""


@dataclass(frozen=True)
class Benchmark:
    """All answers of one model to one benchmark (a lm-eval group is one benchmark)."""

    name: str
    metrics: Mapping[str, Metric]
    items: tuple[Item, ...]
    settings: Mapping[str, Any] | None
    """Everything known that can change a score without changing the model; None without a results JSON."""
    left_out: Mapping[str, str]
    """Metric keys that cannot be compared item by item, with the reason."""
    source: str

    @property
    def parts(self) -> tuple[str, ...]:
        """Subtasks in the order of the items."""
        return tuple(dict.fromkeys(item.part for item in self.items))

    @property
    def metric(self) -> str:
        """Key of the primary metric. Raises InputError when none can be compared."""
        for name in PREFERRED:
            for key in self.metrics:
                if key.split(",")[0] == name:
                    return key
        if not self.metrics:
            reasons = "; ".join(f"{key}: {why}" for key, why in self.left_out.items()) or "it has no metric"
            raise InputError(f"{self.source}: {self.name} has no metric that can be compared ({reasons})")
        return next(iter(self.metrics))

    def item_scores(self, key: str) -> list[float]:
        """The score of every item, in order. Raises InputError with file and line for one that is missing or NaN."""
        if key not in self.metrics:
            why = f" ({self.left_out[key]})" if key in self.left_out else ""
            raise InputError(
                f"{self.source}: {self.name} has no metric {key}{why}; it has {', '.join(self.metrics) or 'none to compare'}"
            )
        for item in self.items:
            if key not in item.scores:
                raise InputError(f"{item.place}: the metric {key} is missing")
            if not math.isfinite(item.scores[key]):
                raise InputError(f"{item.place}: {key} is {item.scores[key]}, not a number that can be compared")
        return [item.scores[key] for item in self.items]


@dataclass(frozen=True)
class Run:
    """One model with the benchmarks it was asked."""

    source: str
    model: str | None
    benchmarks: tuple[Benchmark, ...]
    named: bool = True
    """False when a file's name does not say which benchmark it is."""
    versions: Mapping[str, str] | None = None
    """Versions that are told, not compared."""
    cached: bool = False
    """lm-eval's response cache was on; it does not know the model."""


@dataclass(frozen=True)
class _Part:
    name: str
    items: tuple[Item, ...]
    metrics: dict[str, Metric]
    left_out: dict[str, str]


def read_run(path: Path, cluster: str | None = None) -> Run:
    """The run that a path names: an output folder of lm-eval, one results_*.json, or one sample file.

    `cluster` is a field of the documents that says which items are alike. Raises InputError, a sentence that
    names file and line, for anything that is not what lm-eval writes.
    """
    if path.is_dir():
        return _read_files(path, _files_of(path), cluster)
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    if path.suffix == ".json":
        dated = re.search(_DATE, path.name)
        date = dated.group() if dated else ""
        files = sorted(
            f for f in path.parent.glob("samples_*.jsonl") if (m := _SAMPLES.fullmatch(f.name)) and m["date"] == date
        )
        if not files:
            raise InputError(
                f"{path}: there is no samples_*_{date or '<date>'}.jsonl beside it; run lm_eval with --log_samples"
            )
        return _read_files(path, [(f, path) for f in files], cluster)
    return _read_files(path, [(path, _results_beside(path))], cluster, named=_SAMPLES.fullmatch(path.name) is not None)


def _files_of(folder: Path) -> list[tuple[Path, Path | None]]:
    """The sample files of the one model below a folder, each with its results. A choice is left to the user."""
    found = sorted(f for f in folder.rglob("samples_*.jsonl") if _SAMPLES.fullmatch(f.name))
    if not found:
        raise InputError(
            f"{folder}: no samples_<benchmark>_<date>.jsonl below it; run lm_eval with --log_samples --output_path {folder}"
        )
    homes = sorted({f.parent for f in found})
    if len(homes) > 1:
        raise InputError(f"{folder} holds the results of {len(homes)} models; name one of {few(homes)}")
    by_name: dict[str, list[Path]] = defaultdict(list)
    for file in found:
        by_name[_name_of(file)].append(file)
    for name, files in by_name.items():
        if len(files) > 1:
            ways = [_results_beside(file) or file for file in reversed(files)]
            raise InputError(f"{folder} holds {len(files)} runs of {name}; name one (newest first): {few(ways)}")
    return [(file, _results_beside(file)) for file in found]


def _name_of(file: Path) -> str:
    matched = _SAMPLES.fullmatch(file.name)
    return matched["name"] if matched else file.stem


def _results_beside(file: Path) -> Path | None:
    """The results JSON of the run that a sample file belongs to: the one of the same date."""
    matched = _SAMPLES.fullmatch(file.name)
    found = sorted(file.parent.glob(f"*_{matched['date']}.json")) if matched else []
    return found[0] if found else None


def _results(path: Path) -> dict[str, Any]:
    try:
        told = _decoded(path.read_bytes())
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(told, dict) or not isinstance(told.get("results"), dict):
        raise InputError(f"{path}: not a results file of lm-eval, it has no `results`")
    return told


def _read_files(source: Path, files: list[tuple[Path, Path | None]], cluster: str | None, *, named: bool = True) -> Run:
    runs: dict[Path | None, tuple[dict[str, Any], list[_Part]]] = {}
    for file, results in tqdm(files, desc=f"reading {source}", leave=False, disable=None):
        if results not in runs:
            runs[results] = (_results(results) if results else {}, [])
        told, parts = runs[results]
        parts.append(_read_part(file, _name_of(file), told, cluster))
    benchmarks = [b for told, parts in runs.values() for b in _combined(str(source), told, parts)]
    models = {str(told["model_name"]) for told, _ in runs.values() if told.get("model_name")}
    if len(models) > 1:
        raise InputError(f"{source} holds the results of {len(models)} models ({few(sorted(models))}); name one results file")
    versions = {str(told["transformers_version"]) for told, _ in runs.values() if told.get("transformers_version")}
    return Run(
        str(source), next(iter(models), None), tuple(benchmarks), named,
        {"transformers": ", ".join(sorted(versions))} if versions else {},
        any(t.get("config", {}).get("use_cache") for t, _ in runs.values()),
    )  # fmt: skip


def _read_part(file: Path, name: str, told: dict[str, Any], cluster: str | None) -> _Part:
    """One sample file: the lines of all filters joined into items."""
    rows: dict[int, dict[str, tuple[int, dict[str, Any]]]] = defaultdict(dict)
    doubled: set[int] = set()
    for line, row in _lines(file):
        one, by = rows[row["doc_id"]], str(row.get("filter", "none"))
        if by in one:
            doubled.add(row["doc_id"])
        one[by] = (line, row)
    if not rows:
        raise InputError(f"{file}: the file is empty")
    if doubled:
        raise InputError(f"{file}: {count(len(doubled), 'item is', 'items are')} there twice: doc_id {few(sorted(doubled))}")
    values, odd = _values(file, rows)
    aggregations = {m["metric"]: m.get("aggregation") for m in told.get("configs", {}).get(name, {}).get("metric_list", [])}
    reported = told.get("results", {}).get(name, {})
    metrics, left_out = {}, {}
    for key in [k for k in reported if k in values] + [k for k in values if k not in reported]:
        short = key.split(",")[0]
        metric = _metric(
            key, aggregations.get(short), told.get("higher_is_better", {}).get(name, {}).get(short), reported.get(key)
        )
        if isinstance(metric, str):
            left_out[key] = metric
        elif key in odd or not (
            _known(aggregations.get(short)) or _agrees(metric, _turned(metric) * mean(values[key].values()))
        ):
            left_out[key] = _NO_MEAN
        else:
            metrics[key] = metric
    items = []
    for doc_id, by_filter in sorted(rows.items()):
        try:
            items.append(_item(file, name, doc_id, by_filter, metrics, values, cluster))
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            line = min(line for line, _ in by_filter.values())
            raise InputError(f"{file}, line {line}: not a sample as lm-eval writes it ({error!r})") from None
    return _Part(name, tuple(items), metrics, left_out)


def _values(
    file: Path, rows: dict[int, dict[str, tuple[int, dict[str, Any]]]]
) -> tuple[dict[str, dict[int, tuple[float, float]]], set[str]]:
    """By metric key and document: value and weight as lm-eval wrote them; and the keys that hold something else."""
    values: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
    odd = set()
    for doc_id, by_filter in rows.items():
        for filter_name, (line, row) in by_filter.items():
            for metric in _metric_names(row):
                key = f"{metric},{filter_name}"
                if metric not in row:
                    raise InputError(f"{file}, line {line}: the metric {metric} is named but missing")
                value = _value(row[metric])
                if value is None:
                    odd.add(key)
                values[key][doc_id] = value or (math.nan, 1.0)
    return values, odd


def _metric(key: str, aggregation: Any, higher: bool | None, reported: Any) -> Metric | str:
    """What is known of a metric, or why it cannot be compared."""
    name = key.split(",")[0]
    if aggregation in _NOT_A_MEAN:
        return _NO_MEAN
    value = float(reported) if isinstance(reported, int | float) else None
    if name in _LOG_LIKELIHOODS and aggregation in (None, *_LOG_LIKELIHOODS, "weighted_perplexity"):
        return Metric(key, False, "log-likelihood", value)
    higher = _DIRECTION.get(name) if higher is None else higher
    return _UNCLEAR if higher is None else Metric(key, higher, "score" if higher else "negated", value)


def _turned(metric: Metric) -> int:
    return -1 if metric.form == "negated" else 1


def _known(aggregation: Any) -> bool:
    return aggregation in (None, "mean", "nanmean", "perplexity", "weighted_perplexity", "bits_per_byte")


def _lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and content of every line that is not blank."""
    with file.open("rb") as lines:
        for number, text in enumerate(lines, 1):
            if not text.strip():
                continue
            try:
                row = _decoded(text)
            except (ValueError, UnicodeDecodeError):
                raise InputError(f"{file}, line {number}: not a line of JSON; is the file cut off?") from None
            if not isinstance(row, dict) or not {"doc_id", "resps", "arguments"} <= row.keys():
                raise InputError(f"{file}, line {number}: not a sample of lm-eval (no doc_id, resps and arguments)")
            if not isinstance(row["doc_id"], int):
                raise InputError(f"{file}, line {number}: doc_id is {row['doc_id']!r}, not a number")
            if not _metric_names(row):
                raise InputError(f"{file}, line {number}: the sample has no metric")
            yield number, row


def _decoded(text: bytes) -> Any:
    """JSON. Half a surrogate pair, which JSON can write and no UTF-8 text can hold, becomes a question mark."""
    found = json.loads(text)
    if b"\\ud" in text or b"\\uD" in text:
        found = json.loads(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace"))
    return found


def _metric_names(row: dict[str, Any]) -> list[str]:
    """Names of the metrics of a line; older files do not list them."""
    named: list[str] = row.get("metrics") or [key for key in row if key not in _ROW]
    return named


def _value(told: Any) -> tuple[float, float] | None:
    """Mean and weight of what a sample says: a number, (log-likelihood, count), or a list of rights and wrongs."""
    if isinstance(told, int | float):
        return float(told), 1.0
    if isinstance(told, list) and told and all(isinstance(x, bool) for x in told):
        return sum(told) / len(told), float(len(told))
    if isinstance(told, list) and len(told) == 2 and isinstance(told[0], float) and isinstance(told[1], int) and told[1] > 0:
        return told[0] / told[1], float(told[1])
    return None


def mean(values: Iterable[tuple[float, float]]) -> float:
    """Weighted mean of (value, weight) pairs."""
    pairs = list(values)
    total = math.fsum(weight for _, weight in pairs)
    return math.fsum(value * weight for value, weight in pairs) / total if total else math.nan


def _agrees(metric: Metric, score: float) -> bool:
    """Whether a mean of item scores is what lm-eval reported."""
    if metric.reported is None:
        return True
    if metric.form == "negated":
        score = -score
    if metric.form == "log-likelihood":
        score = -score / math.log(2) if metric.key.startswith("bits_per_byte,") else math.exp(-score)
    return math.isclose(score, metric.reported, rel_tol=1e-6, abs_tol=1e-9)


def _item(
    file: Path, part: str, doc_id: int, by_filter: dict[str, tuple[int, dict[str, Any]]], metrics: dict[str, Metric],
    values: dict[str, dict[int, tuple[float, float]]], cluster: str | None,
) -> Item:  # fmt: skip
    line, row = next(iter(by_filter.values()))
    requests = _requests(row)
    prompt = str(requests[0][0]) if requests and requests[0] else ""
    choices = _choices(row, requests)
    scores, weights, extracted = {}, {}, {}
    for key, metric in metrics.items():
        name, _, filter_name = key.partition(",")
        if doc_id not in values[key]:
            continue
        value, weight = values[key][doc_id]
        scores[key] = _turned(metric) * value
        if weight != 1.0:
            weights[key] = weight
        extracted[key] = _extracted(by_filter[filter_name][1], choices, name)
    doc = row.get("doc")
    label = doc.get(cluster) if cluster is not None and isinstance(doc, dict) else None
    return Item(
        doc_id=doc_id, part=part, doc_hash=row.get("doc_hash"), prompt_hash=row.get("prompt_hash"),
        target_hash=row.get("target_hash"), prompt=prompt, target=_target(row, choices),
        response=_best(row["resps"], choices, "acc") if choices else _said(row, requests), extracted=extracted, scores=scores,
        weights=weights, choices=len(choices), repeats=len(row["resps"][0]) if row["resps"] else 1,
        cluster=None if label is None else str(label), place=f"{file}, line {line}",
    )  # fmt: skip


def _requests(row: dict[str, Any]) -> list[list[Any]]:
    """What the model was asked, as lists of arguments."""
    told = row["arguments"]
    if isinstance(told, dict):
        return [list(request.values()) for request in told.values()]
    return [list(request) for request in told]


def _choices(row: dict[str, Any], requests: list[list[Any]]) -> list[str]:
    """The choices of a multiple-choice item; empty for everything else."""
    if len(requests) < 2 or not all(len(r) == 2 and isinstance(r[1], str) for r in requests):
        return []
    if any(name == "acc_mutual_info" for name in _metric_names(row)):
        requests = requests[: len(requests) // 2]
    endings = [str(r[1]).strip() for r in requests]
    # Where the question differs and its ending does not (winogrande), the question is the choice.
    return endings if len(set(endings)) > 1 else [str(r[0]) for r in requests]


def _said(row: dict[str, Any], requests: list[list[Any]]) -> str:
    """The first generated answer; nothing where only a likelihood was asked."""
    generated = bool(requests) and len(requests[0]) == 2 and isinstance(requests[0][1], dict)
    return str(row["resps"][0][0]) if generated and row["resps"] and row["resps"][0] else ""


def _best(responses: list[Any], choices: list[str], metric: str) -> str:
    """The likeliest choice, per character or byte where the metric says so."""
    found = [r[0] if isinstance(r[0], list) else r for r in responses[: len(choices)]]
    likelihoods = [float(r[0]) / _length(c, metric) for r, c in zip(found, choices, strict=True)]
    return choices[max(range(len(choices)), key=likelihoods.__getitem__)]


def _length(choice: str, metric: str) -> int:
    if metric == "acc_norm":
        return len(choice) or 1
    return (len(choice.encode()) or 1) if metric == "acc_bytes" else 1


def _extracted(row: dict[str, Any], choices: list[str], metric: str) -> str:
    if choices:
        return _best(row["resps"], choices, metric)
    filtered = row.get("filtered_resps") or [""]
    return filtered[0] if isinstance(filtered[0], str) else ""


def _target(row: dict[str, Any], choices: list[str]) -> str:
    """The reference answer; lm-eval gives the number of the right choice."""
    told = str(row.get("target", ""))
    if choices and told not in choices and told.isdigit() and int(told) < len(choices):
        return choices[int(told)]
    return told


def _combined(source: str, told: dict[str, Any], parts: list[_Part]) -> list[Benchmark]:
    """Benchmarks of a run: the topmost groups that lm-eval aggregates, and every file outside them."""
    by_name = {part.name: part for part in parts}
    children: dict[str, list[str]] = told.get("group_subtasks", {})
    below = {child for group in children for child in children[group]}
    benchmarks: list[Benchmark] = []
    used: set[str] = set()

    def leaves(name: str) -> list[str]:
        return [leaf for child in children[name] for leaf in leaves(child)] if name in children else [name]

    def visit(name: str) -> None:
        if name in told.get("groups", {}):
            members = [by_name[leaf] for leaf in dict.fromkeys(leaves(name)) if leaf in by_name]
            absent = [leaf for leaf in leaves(name) if leaf not in by_name]
            if members and absent:
                raise InputError(f"{source}: the group {name} lacks the samples of {few(absent)}")
            if members:
                used.update(part.name for part in members)
                benchmarks.append(_group(source, name, told, members))
            return
        for child in children.get(name, []):
            visit(child)

    # One sample file of a group stands for itself.
    if len(parts) > 1:
        for group in children:
            if group not in below:
                visit(group)
    alone = [
        Benchmark(part.name, part.metrics, part.items, settings_of(told, [part.name], part.name), part.left_out, source)
        for part in parts
        if part.name not in used
    ]
    return alone + benchmarks


def _group(source: str, name: str, told: dict[str, Any], parts: list[_Part]) -> Benchmark:
    """A group as one benchmark. lm-eval does not store how it weights subtasks: its own score tells."""
    metrics: dict[str, Metric] = {}
    left_out: dict[str, str] = {}
    sizes = [len(part.items) for part in parts]
    for key, value in told["groups"][name].items():
        if "," not in key or "_stderr," in key or not isinstance(value, int | float):
            continue
        found = [part.metrics.get(key) for part in parts]
        known = [m.reported for m in found if m is not None and m.form != "log-likelihood" and m.reported is not None]
        first = found[0]
        if first is None or len(known) < len(parts):
            left_out[key] = "not a mean of item scores in every subtask"
            continue
        by_size = math.isclose(mean(zip(known, sizes, strict=True)), value, rel_tol=1e-9, abs_tol=1e-12)
        by_parts = math.isclose(math.fsum(known) / len(parts), value, rel_tol=1e-9, abs_tol=1e-12)
        if not (by_size or by_parts):
            left_out[key] = "the group's score is not a mean of its subtasks"
            continue
        equal = False if len(set(sizes)) == 1 else None if by_size and by_parts else by_parts
        metrics[key] = Metric(key, first.higher_is_better, first.form, float(value), equal)
    items = tuple(item for part in parts for item in part.items)
    return Benchmark(name, metrics, items, settings_of(told, [p.name for p in parts], name), left_out, source)


def shares(benchmark: Benchmark, key: str, by_parts: bool) -> list[float]:
    """How much each item counts in the benchmark's score; they sum to 1.

    Items count equally, or by their weight (words); the subtasks of a group count by their number of items, or
    equally (`by_parts`), as lm-eval's `weight_by_size` says.
    """
    sizes = Counter(item.part for item in benchmark.items)
    totals: dict[str, float] = defaultdict(float)
    for item in benchmark.items:
        totals[item.part] += item.weights.get(key, 1.0)
    n = len(benchmark.items)
    part_share = {part: 1 / len(sizes) if by_parts else size / n for part, size in sizes.items()}
    return [part_share[i.part] * i.weights.get(key, 1.0) / totals[i.part] for i in benchmark.items]


def refuse_foreign_results(benchmark: Benchmark, key: str) -> None:
    """Raises InputError when the samples do not give the score that the results JSON reports."""
    metric = benchmark.metrics[key]
    score = mean(zip(benchmark.item_scores(key), shares(benchmark, key, bool(metric.by_parts)), strict=True))
    if not _agrees(metric, score):
        raise InputError(
            f"{benchmark.source}: the samples of {benchmark.name} give {key} = {score:.6g}, its results JSON says "
            f"{metric.reported:.6g}; the files do not belong together"
        )


def few(things: Iterable[object], most: int = 5) -> str:
    """The first few of a list, and how many more there are."""
    listed = [str(x) for x in things]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def count(n: int, one: str, many: str) -> str:
    """A number with its noun."""
    return f"{n} {one if n == 1 else many}"
