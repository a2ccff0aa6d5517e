"""The data behind the charts, in points."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import numpy as np

from retain_core.report.charts.encoding import rounded
from retain_core.report.forest import in_points
from retain_core.report.palette import rate_label
from retain_core.report.parts import Row
from retain_core.report.results import Results


def checkpoints(results: Results) -> list[Row]:
    """Every checkpoint of every method, in points; `x` is the gain at which methods are compared."""
    last = {p["arm"]: p["step"] for p in results.points}
    return [
        {
            "method": p["method"], "rate": rate_label(p["learning_rate"]), "seed": p["seed"], "arm": p["arm"],
            "step": p["step"],
            "x": in_points(p[results.gain_key]), "gain": in_points(p["gain"]), "exact": in_points(p["gain_exact"]),
            "drop": in_points(p["drop"]), "far": in_points(p["drop_far"]), "kl": rounded(p["kl_forward"]),
            "last": p["step"] == last[p["arm"]],
        }
        for p in results.points
    ]  # fmt: skip


def cells(results: Results) -> list[Row]:
    """Means over seeds: a row per method, learning rate and update."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in results.points:
        groups.setdefault((row["method"], row["learning_rate"], row["step"]), []).append(row)
    return [
        {
            "method": method, "rate": rate_label(rate), "cell": f"{method} {rate_label(rate)}", "step": step,
            "seeds": len(rows),
            "gain": _mean(rows, "gain"), "drop": _mean(rows, "drop"),
        }
        for (method, rate, step), rows in groups.items()
    ]  # fmt: skip


def fronts(results: Results) -> list[Row]:
    """The best trades of every method and of the whole study, chosen on one half of the items and shown on the other."""
    chosen = [
        p for p in results.pareto if p["front"] in ("study", "method") and p["gain"] is not None and p["drop"] is not None
    ]
    return sorted(
        (
            {"method": p["method"], "rate": rate_label(p["learning_rate"]), "step": p["step"], "gain": in_points(p["gain"]),
             "drop": in_points(p["drop"]), "front": p["front"]}
            for p in chosen
        ),
        key=lambda row: row["gain"],
    )  # fmt: skip


def bands(results: Results) -> list[Row]:
    """The interval of the drop at every gain that a method reaches: of the declared pair, or of all where none is declared."""
    named = list((results.spec.get("primary") or {}).get("contrast") or results.places)
    known = (m for m in results.matched if m["ci_low"] is not None and m["method"] in named)
    return [
        {"method": m["method"], "gain": in_points(m["gain"]), "drop": in_points(m["drop"]), "low": in_points(m["ci_low"]),
         "high": in_points(m["ci_high"])}
        for m in known
    ]  # fmt: skip


def kl_fit(results: Results) -> list[Row]:
    """The quadratic of the drop on forward KL that `kl_law` speaks of, over all checkpoints."""
    known = [
        (p["kl_forward"], 100 * p["drop"]) for p in results.points if p["kl_forward"] is not None and p["drop"] is not None
    ]
    if len(known) < 3 or not any(row["predictor"] == "kl" and row["r2"] is not None for row in results.law):
        return []
    x, y = np.array(known).T
    fit = np.polynomial.Polynomial.fit(x, y, 2)
    return [{"kl": rounded(at), "drop": rounded(fit(at))} for at in np.geomspace(0.005, 0.005 + x.max(), 60) - 0.005]


def _mean(rows: list[Row], key: str) -> float | None:
    known = [row[key] for row in rows if row[key] is not None]
    return in_points(fmean(known)) if known else None
