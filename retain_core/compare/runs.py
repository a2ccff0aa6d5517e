"""What the second of two models lost against the first, from the answers alone: paired, item by item.

Definitions and intervals: measurement sections 1, 2, 5 and 7. One checkpoint each, so nothing here speaks for
another training seed.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from retain_core.compare.settings import Setting
from retain_core.errors import InputError
from retain_core.imported.harness_settings import NOT_GIVEN
from retain_core.imported.samples import Benchmark, Item, Run, count, few, refuse_foreign_results, shares
from retain_core.stats import paired
from retain_core.stats.chance import chance_corrected_drop
from retain_core.stats.multiple import holm

Role = Literal["mean", "target", "beside"]
"""`mean`: part of the mean drop. `target`: what the second model was trained for. `beside`: a loss, or another scale."""
DETECTABLE = 2.8
"""A true drop of this many standard errors is found 4 times in 5 at the 5 % level: 1.96 + 0.84."""


@dataclass(frozen=True)
class Row:
    """One benchmark. Scores and drops are fractions, or nats for likelihoods; None where there is no such number."""

    benchmark: str
    metric: str
    role: Role
    unit: str
    """`fraction`, `nats`, or `score` for any other scale."""
    n: int
    clusters: int | None
    score_a: float
    score_b: float
    drop: float
    """score_a - score_b, paired; lm-eval's own aggregation over subtasks, words or instructions."""
    ci_low: float | None
    ci_high: float | None
    lost: int | None
    gained: int | None
    p_value: float | None
    p_holm: float | None
    """Adjusted over the benchmarks of the mean; None for the others."""
    detectable: float | None
    """Smallest true drop that items like these would show 4 times in 5; None without any difference."""
    choices: int | None
    drop_chance_corrected: float | None
    """drop k / (k - 1) where every item has the same k choices (measurement 5)."""
    stderr: float | None
    df: float

    @property
    def beyond_chance(self) -> bool:
        """Whether the benchmark changed: adjusted p under 5 % and an interval that leaves out 0."""
        low, high = self.ci_low, self.ci_high
        sure = low is not None and high is not None and not low <= 0 <= high
        return sure and self.p_holm is not None and self.p_holm < 0.05


@dataclass(frozen=True)
class Mean:
    """Unweighted mean drop over the benchmarks of role `mean`, which are taken as given."""

    benchmarks: int
    drop: float
    ci_low: float | None
    ci_high: float | None
    stderr: float | None
    df: float


@dataclass(frozen=True)
class Flip:
    """An item that one of the two has right and the other wrong."""

    benchmark: str
    item: Item
    """As the first model answered it."""
    after: Item
    metric: str
    lost: bool
    """Whether it is the second that has it wrong."""


@dataclass(frozen=True)
class Comparison:
    """All benchmarks that two runs share."""

    a: Run
    b: Run
    rows: tuple[Row, ...]
    mean: Mean | None
    changed: tuple[Flip, ...]
    notes: tuple[str, ...]
    settings: tuple[Setting, ...] = ()
    """How two arms of the home were trained differently; nothing is known of files."""
    origin: tuple[Setting, ...] = ()
    """Where both come from."""

    @property
    def lost(self) -> tuple[Flip, ...]:
        """What the second lost."""
        return tuple(flip for flip in self.changed if flip.lost)


def compare_runs(
    a: Run, b: Run, metrics: Mapping[str, str] | None = None, roles: Mapping[str, Role] | None = None
) -> Comparison:
    """Compare two runs on every benchmark that both have.

    `metrics` names another metric for some benchmarks, as a full key or a name that is clear; `roles` overrides
    the role of some. Raises InputError for unlike settings, items that do not pair, and scores that are missing.
    """
    pairs, notes = _pairs(a, b)
    for name in metrics or {}:
        if name not in {x.name for x, _ in pairs}:
            raise InputError(f"--metric: there is no benchmark {name}; both have {', '.join(x.name for x, _ in pairs)}")
    notes += _refuse_unlike(pairs)
    rows, changed = [], []
    for x, y in pairs:
        named = (metrics or {}).get(x.name)
        if named is None and not x.metrics and len(pairs) > 1:
            notes.append(f"{x.name} is left out: {few(f'{k} ({why})' for k, why in x.left_out.items())}")
            continue
        key = _metric_key(x, named)
        matched = match_items(x, y)
        row, flips = _row(x, y, key, matched, (roles or {}).get(x.name))
        for side in (x, y):
            refuse_foreign_results(side, key)
        rows.append(row)
        changed += flips
    tested = [row.p_value if row.role == "mean" and row.p_value is not None else math.nan for row in rows]
    rows = [replace(row, p_holm=_number(p)) for row, p in zip(rows, holm(tested), strict=True)]
    mean = mean_drop(rows) if sum(row.role == "mean" for row in rows) > 1 else None
    return Comparison(a, b, tuple(rows), mean, tuple(changed), (*notes, *_remarks(a, b, pairs, rows)))


def _pairs(a: Run, b: Run) -> tuple[list[tuple[Benchmark, Benchmark]], list[str]]:
    """The benchmarks of both, in the order of the first, and what only one has."""
    if len(a.benchmarks) == len(b.benchmarks) == 1 and not (a.named and b.named):
        return [(a.benchmarks[0], b.benchmarks[0])], []
    other = {y.name: y for y in b.benchmarks}
    own = {x.name for x in a.benchmarks}
    pairs = [(x, other[x.name]) for x in a.benchmarks if x.name in other]
    if not pairs:
        raise InputError(f"no benchmark in common: {a.source} has {few(own)}; {b.source} has {few(other)}")
    notes = [f"only in A, not compared: {few(sorted(own - other.keys()))}"] if own - other.keys() else []
    notes += [f"only in B, not compared: {few(sorted(other.keys() - own))}"] if other.keys() - own else []
    return pairs, notes


def _refuse_unlike(pairs: Sequence[tuple[Benchmark, Benchmark]]) -> list[str]:
    """Raises InputError with every setting that differs and both values; returns what is unknown."""
    differing: dict[str, list[str]] = defaultdict(list)
    unknown: dict[str, list[str]] = defaultdict(list)
    for x, y in pairs:
        if x.settings is None or y.settings is None:
            sides = " and ".join(side for side, told in (("A", x.settings), ("B", y.settings)) if told is None)
            unknown[f"the settings of {sides} are unknown (no results JSON beside the samples), not known to be equal"].append(
                x.name
            )
            continue
        for key in sorted(x.settings.keys() | y.settings.keys()):
            left, right = x.settings.get(key), y.settings.get(key)
            if key in x.settings and key in y.settings:
                if left != right and str(left) != str(right):
                    differing[f"{key} ({left} against {right})"].append(x.name)
            elif key.startswith("model_args."):
                told = (left if key in x.settings else NOT_GIVEN, right if key in y.settings else NOT_GIVEN)
                differing[f"{key} ({told[0]} against {told[1]})"].append(x.name)
            else:
                unknown[f"the setting {key} is known of one side only"].append(x.name)
        unlike = [
            key for key in x.metrics.keys() & y.metrics.keys()
            if None not in (x.metrics[key].by_parts, y.metrics[key].by_parts)
            and x.metrics[key].by_parts != y.metrics[key].by_parts
        ]  # fmt: skip
        for key in unlike:
            differing[f"weight of the subtasks in {key} (by size against equal)"].append(x.name)

    def told_of(found: dict[str, list[str]]) -> list[str]:
        return [what if len(names) == len(pairs) else f"{few(names, 3)}: {what}" for what, names in found.items()]

    if differing:
        raise InputError(f"A and B were evaluated under unlike settings, nothing is compared: {'; '.join(told_of(differing))}")
    return told_of(unknown)


def _metric_key(x: Benchmark, named: str | None) -> str:
    """The metric to compare: the one asked for, or the first side's primary metric."""
    if named is None:
        return x.metric
    if named in x.metrics or named in x.left_out:
        return named
    keys = [key for key in (*x.metrics, *x.left_out) if key.split(",")[0] == named]
    if len(keys) != 1:
        raise InputError(
            f"--metric {x.name}={named}: {'say which of ' + ', '.join(keys) if keys else 'no such metric'}; "
            f"{x.name} has {', '.join(x.metrics) or 'none to compare'}"
        )
    return keys[0]


def match_items(x: Benchmark, y: Benchmark) -> list[tuple[Item, Item]]:
    """The items of both, paired by document hash (by number where there are no hashes), in the order of `x`.

    Equal documents of one benchmark are told apart by their order. Raises InputError naming the items that one
    side lacks, and those whose prompt or reference answer differs.
    """
    hashed = all(item.doc_hash is not None for item in (*x.items, *y.items))
    left, right = _keyed(x, hashed), _keyed(y, hashed)
    for here, there, source in ((left, right, y.source), (right, left, x.source)):
        missing = [item for key, item in here.items() if key not in there]
        if missing:
            raise InputError(f"{x.name}: {count(len(missing), 'item is', 'items are')} missing in {source}: {_ids(missing)}")
    matched = [(item, right[key]) for key, item in left.items()]
    for what in ("prompt", "target"):
        unlike = [p for p, q in matched if getattr(p, f"{what}_hash") != getattr(q, f"{what}_hash")]
        if unlike:
            raise InputError(
                f"{x.name}: the {what} of {count(len(unlike), 'item differs', 'items differ')} between A and B: {_ids(unlike)}"
            )
    return matched


def _keyed(benchmark: Benchmark, hashed: bool) -> dict[tuple[str, object, int], Item]:
    seen: Counter[tuple[str, object]] = Counter()
    found: dict[tuple[str, object, int], Item] = {}
    parts = benchmark.parts
    for item in benchmark.items:
        key: tuple[str, object] = (item.part if len(parts) > 1 else "", item.doc_hash if hashed else item.doc_id)
        found[(*key, seen[key])] = item
        seen[key] += 1
    return found


def _ids(items: Sequence[Item]) -> str:
    parts = {item.part for item in items}
    return "doc_id " + few(item.doc_id if len(parts) == 1 else f"{item.part}/{item.doc_id}" for item in items)


def _row(
    x: Benchmark, y: Benchmark, key: str, matched: Sequence[tuple[Item, Item]], role: Role | None
) -> tuple[Row, list[Flip]]:
    x, y = (replace(side, items=tuple(items)) for side, items in zip((x, y), zip(*matched, strict=True), strict=True))
    before, after = (np.array(side.item_scores(key)) for side in (x, y))
    metric = x.metrics[key]
    by_parts = metric.by_parts if metric.by_parts is not None else y.metrics[key].by_parts
    share = np.array(shares(x, key, bool(by_parts)))
    d = before - after
    drop = math.fsum(share * d)
    clusters = _labels(x)
    stderr, df = _error(d, share, [item.part for item in x.items], clusters)
    low, high = paired.paired_interval(drop, stderr, df)
    binary = bool(np.isin(before, (0, 1)).all() and np.isin(after, (0, 1)).all())
    lost, gained = (int((d > 0).sum()), int((d < 0).sum())) if binary else (None, None)
    alike = bool(np.allclose(share, 1 / len(share), rtol=1e-9, atol=0))
    p = paired.mcnemar_exact(lost or 0, gained or 0) if binary and alike else paired.t_p_value(drop, stderr, df)
    unit = "nats" if metric.form == "log-likelihood" else "score"
    if metric.form == "score" and all(0 <= s <= 1 for s in (*before, *after)):
        unit = "fraction"
    elif role == "mean":
        role = "beside"
    k = {item.choices for item in x.items} if key.startswith("acc") else {0}
    choices = k.pop() if len(k) == 1 else 0
    row = Row(
        benchmark=x.name, metric=key, role=role or ("mean" if unit == "fraction" else "beside"), unit=unit, n=len(d),
        clusters=None if clusters is None else len(set(clusters)), score_a=math.fsum(share * before),
        score_b=math.fsum(share * after), drop=drop, ci_low=_number(low), ci_high=_number(high), lost=lost, gained=gained,
        p_value=_number(p), p_holm=None, detectable=DETECTABLE * stderr if stderr > 0 else None, choices=choices or None,
        drop_chance_corrected=float(chance_corrected_drop(drop, choices)) if choices > 1 else None,
        stderr=_number(stderr), df=df,
    )  # fmt: skip
    changed = zip(matched, d, strict=True) if binary else ()
    return row, [Flip(x.name, p_, q, key, bool(change > 0)) for (p_, q), change in changed if change]


def _labels(benchmark: Benchmark) -> list[str] | None:
    """The cluster of every item; None where items stand alone."""
    labels = [item.cluster for item in benchmark.items]
    without = [item for item, label in zip(benchmark.items, labels, strict=True) if label is None]
    if len(without) == len(labels):
        return None
    if without:
        raise InputError(f"{benchmark.name}: {count(len(without), 'item has', 'items have')} no cluster: {_ids(without)}")
    return [str(label) for label in labels]


def _error(d: paired.Floats, share: paired.Floats, parts: Sequence[str], clusters: Sequence[str] | None) -> tuple[float, float]:
    """Standard error of sum(share * d) and its degrees of freedom; NaN where it is refused.

    The subtasks of a group are fixed strata, so only the spread within them counts (of items with unequal weight,
    by linearisation of the ratio). With clusters: cluster-robust over the same residuals.
    """
    n, names = len(d), np.array(parts)
    strata = [names == part for part in dict.fromkeys(parts)]
    if min(int(s.sum()) for s in strata) < 2:
        strata = [np.ones(n, dtype=bool)]
    residual = np.zeros(n)
    for s in strata:
        residual[s] = share[s] * (d[s] - math.fsum(share[s] * d[s]) / math.fsum(share[s]))
    if clusters is not None:
        sums: dict[str, float] = defaultdict(float)
        for label, value in zip(clusters, n * residual, strict=True):
            sums[label] += value
        groups = len(sums)
        stderr = paired.standard_error(n, float(((n * residual) ** 2).sum()), groups, sum(v * v for v in sums.values()))
        return float(stderr), float(paired.degrees_of_freedom(n, groups))
    sizes = np.array([s.sum() for s in strata], dtype=np.float64)
    squares = np.array([((m * residual[s]) ** 2).sum() for s, m in zip(strata, sizes, strict=True)])
    errors = paired.standard_error(sizes, squares, np.full(len(sizes), np.nan), np.zeros(len(sizes)))
    return _combined_error(errors, sizes - 1)


def _combined_error(errors: paired.Floats, dfs: paired.Floats) -> tuple[float, float]:
    """Error of a sum of independent parts, with Satterthwaite's degrees of freedom."""
    variances = errors**2
    total = float(variances.sum())
    df = total**2 / float((variances**2 / np.maximum(dfs, 1)).sum()) if total > 0 else float(dfs.sum())
    return math.sqrt(total), df


def mean_drop(rows: Sequence[Row]) -> Mean | None:
    """V = 1/M^2 sum V_j over fixed benchmarks (measurement 2); of one benchmark that itself, None without any."""
    counted = [row for row in rows if row.role == "mean"]
    m = len(counted)
    if not m:
        return None
    drop = math.fsum(row.drop for row in counted) / m
    errors = np.array([math.nan if row.stderr is None else row.stderr for row in counted]) / m
    stderr, df = _combined_error(errors, np.array([row.df for row in counted]))
    low, high = paired.paired_interval(drop, stderr, df)
    return Mean(m, drop, _number(low), _number(high), _number(stderr), df)


def _remarks(a: Run, b: Run, pairs: Sequence[tuple[Benchmark, Benchmark]], rows: Sequence[Row]) -> list[str]:
    """What a reader should know that is no reason to refuse."""
    notes = []
    left, right = a.versions or {}, b.versions or {}
    for name in sorted(left.keys() & right.keys()):
        if left[name] != right[name]:
            notes.append(f"{name} {left[name]} against {right[name]}: a change of version can move scores by itself")
    if a.cached or b.cached:
        notes.append("lm-eval's response cache was on; it does not know the model, so answers may be another model's")
    few_clusters = [row for row in rows if row.clusters is not None and row.clusters < paired.FEWEST_CLUSTERS]
    notes += [
        f"{row.benchmark}: {row.clusters} clusters are too few for an interval (at least {paired.FEWEST_CLUSTERS})"
        for row in few_clusters
    ]
    same = all([(i.response, i.scores) for i in x.items] == [(i.response, i.scores) for i in y.items] for x, y in pairs)
    if same and a.source != b.source:
        notes.append("every answer and every score is the same in A and B: is B the model you meant?")
    return notes


def _number(value: Any) -> float | None:
    return None if math.isnan(float(value)) else float(value)
