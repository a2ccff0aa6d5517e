"""Several bases: the same study on bases that were drawn anew, the base as a random level (measurement: section 2).

Studies belong together when their files say the same but for the name and the seed of the base. With one base,
every figure is conditional on it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any, NamedTuple

import duckdb

from retain_core.analysis.contrasts import DEFAULT_MARGIN
from retain_core.canonical import digest
from retain_core.cross import Family, family_of
from retain_core.own.study import Own
from retain_core.stats.crossed import Interval, over_bases, refused
from retain_core.stats.verdict import verdict

_CONTRASTS = """
SELECT study, a, b, "at", CASE WHEN "at" = 'last' AND NOT "primary" THEN learning_rate_a END AS rate, "primary", diff, verdict
FROM contrasts WHERE diff IS NOT NULL OR "primary" ORDER BY ALL
"""
_CELLS = """
SELECT i.study, i.method, CAST(NULL AS VARCHAR), i.quantity, i.learning_rate, false, i.estimate, CAST(NULL AS VARCHAR)
FROM intervals i WHERE i.quantity IN ('gain', 'gain_exact', 'drop', 'drop_far', 'bwt', 'bwt_exact') ORDER BY ALL
"""


class OverBases(NamedTuple):
    """One row of `over_bases`. `quantity` is `contrast` or what `intervals` has; `b` and `at` are of contrasts only."""

    family: str
    named: Family
    studies: list[str]
    a: str
    b: str | None
    at: str | None
    quantity: str
    learning_rate: float | None
    primary: bool
    interval: Interval
    word: str | None


def figures_over_bases(con: duckdb.DuckDBPyConnection) -> list[OverBases]:
    """Every contrast, gain and drop that all studies of a family have."""
    families: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for study, text in con.execute("SELECT study, spec FROM studies WHERE is_current ORDER BY study").fetchall():
        spec = json.loads(text)
        families[_family(spec)][study] = spec
    named: dict[tuple[Any, ...], dict[str, tuple[float | None, str | None]]] = defaultdict(dict)
    for query, is_contrast in ((_CONTRASTS, True), (_CELLS, False)):
        for study, a, b, what, rate, primary, value, word in con.execute(query).fetchall():
            key = (a, b, what if is_contrast else None, "contrast" if is_contrast else what, rate, primary)
            named[key][study] = (value, word)
    found = []
    for family, of_family in families.items():
        specs = _one_a_base(of_family)
        studies = sorted(specs)
        margin = (specs[studies[0]].get("primary") or {}).get("margin", DEFAULT_MARGIN)
        predict = (specs[studies[0]].get("primary") or {}).get("predict", ">")
        for (a, b, at, quantity, rate, primary), values in named.items():
            if not all(study in values for study in studies):
                continue
            words = [values[study][1] for study in studies]
            figures = [x for x, _ in (values[study] for study in studies) if x is not None]
            unread = next((str(word) for x, word in (values[study] for study in studies) if x is None), None)
            interval = refused(float("nan"), unread, len(studies), len(studies)) if unread else over_bases(figures)
            word = _word(interval, words, predict, margin) if primary else None
            found.append(
                OverBases(family, family_of(specs[studies[0]]), studies, a, b, at, quantity, rate, primary, interval, word)
            )
    return found


def _one_a_base(specs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """One study for each seed of the base: the same base under two names is still one draw."""
    drawn: dict[int, str] = {}
    for study, spec in sorted(specs.items()):
        drawn.setdefault((spec.get("base") or {}).get("seed") or 0, study)
    return {study: specs[study] for study in drawn.values()}


def _family(spec: dict[str, Any]) -> str:
    base = {k: v for k, v in (spec.get("base") or {}).items() if k != "seed"}
    own = {"own": Own.model_validate(spec["own"]).content()} if "own" in spec else {}
    return digest({**spec, "study": None, "base": base, "data": None, **own}, 16)


def _word(interval: Interval, words: list[str | None], predict: Any, margin: float) -> str | None:
    """The verdict over bases; with one base its own. Withheld or not read on one base is so over all."""
    for unread in ("withheld", "not reached", "too noisy"):
        if unread in words:
            return unread
    if len(words) == 1:
        return words[0]
    narrow = interval.at(0.90)
    return verdict(
        controls_passed=True, matching="reached", interval_95=(interval.low, interval.high),
        interval_90=(narrow.low, narrow.high), predict=predict, margin=margin,
    )  # fmt: skip
