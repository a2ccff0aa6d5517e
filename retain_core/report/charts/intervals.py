"""Rows of intervals: drop at matched gain, and on every benchmark."""

from __future__ import annotations

from typing import Any

from retain_core.report.charts.encoding import line, mark
from retain_core.report.forest import in_points, interval_rows, placed
from retain_core.report.palette import rate_label
from retain_core.report.parts import Chart, Row
from retain_core.report.results import Results
from retain_core.report.words import counted

MOST_ROWS = 90
"""More intervals than this in one chart are unreadable: those of the largest drops are shown, and it says so."""


def matched(results: Results, datasets: dict[str, list[Row]]) -> Chart | None:
    """Drop where methods have gained the same."""
    if not any(m["drop"] is not None for m in results.matched):
        return None
    said = (results.spec.get("primary") or {}).get("at_gain")
    found: list[Row] = []
    for gain in sorted({m["gain"] for m in results.matched}):
        rows = [m for m in results.matched if m["gain"] == gain]
        if not any(m["drop"] is not None for m in rows):
            continue
        declared = " (declared)" if said is not None and abs(gain - said) < 1e-9 else ""
        found.append({"label": f"gain {100 * gain:g}{declared}", "header": True})
        found += [
            {
                "label": m["method"] + ("" if m["learning_rate"] is None else f"  {rate_label(m['learning_rate'])}"),
                "method": m["method"], "rate": rate_label(m["learning_rate"]), "drop": in_points(m["drop"]),
                "low": in_points(m["ci_low"]), "high": in_points(m["ci_high"]), "gain": in_points(gain),
                "right": "" if m["drop"] is not None else m["verdict"],
            }
            for m in rows
        ]  # fmt: skip
    datasets["matched"] = placed(found)
    n = sum(row.get("drop") is not None for row in found)
    seeds = max((m["seeds"] or 0) for m in results.matched)
    return Chart(
        "matched_gain", "What each method had lost when it had gained as much as the others",
        rows_of_study(results, datasets["matched"], "matched", "drop at equal gain", 105),
        f"{n} drops at equal gain with 95 % intervals, in rows grouped by the gain.",
        f"{counted(n, 'drop')} at equal gain, up to {counted(seeds, 'seed')} each; lines: 95 % intervals",
    )  # fmt: skip


def forest(results: Results, datasets: dict[str, list[Row]]) -> Chart | None:
    """Paired drop of every method on every retention benchmark, near ones first."""
    rows = [row for row in results.per_benchmark if row["drop"] is not None]
    if not rows:
        return None
    shown = rows
    if len(rows) > MOST_ROWS:
        benchmarks = {row["benchmark"] for row in rows}
        each = max(1, MOST_ROWS // len(benchmarks))
        largest: list[Row] = []
        for benchmark in benchmarks:
            largest += sorted((r for r in rows if r["benchmark"] == benchmark), key=lambda r: -abs(r["drop"]))[:each]
        shown = [row for row in rows if any(row is kept for kept in largest)]
    found: list[Row] = []
    for benchmark in dict.fromkeys(row["benchmark"] for row in shown):
        inside = [row for row in shown if row["benchmark"] == benchmark]
        nearness = f" ({'near' if inside[0]['near'] else 'far'})" if results.near else ""
        found.append({"label": benchmark + nearness, "header": True, "right": f"of {inside[0]['n']:,}: lost, gained"})
        found += [
            {
                "label": row["method"] + ("" if row["learning_rate"] is None else f"  {rate_label(row['learning_rate'])}"),
                "method": row["method"], "rate": rate_label(row["learning_rate"]), "benchmark": benchmark,
                "drop": in_points(row["drop"]), "low": in_points(row["low"]), "high": in_points(row["high"]),
                "right": "" if row["lost"] is None else f"{row['lost']}, {row['gained']}",
            }
            for row in inside
        ]  # fmt: skip
    datasets["benchmarks"] = placed(found)
    cut = f" of {len(rows)}, the largest of each benchmark; the table has all" if len(shown) < len(rows) else ""
    seeds = max(row["seeds"] for row in rows)
    return Chart(
        "benchmarks", "Drop of every method on every benchmark",
        rows_of_study(results, datasets["benchmarks"], "benchmarks", "drop", 120),
        f"{len(shown)} paired drops with 95 % intervals, in rows grouped by benchmark.",
        f"{counted(len(shown), 'paired drop')}{cut}, {counted(seeds, 'seed')} each; lines: 95 % intervals; right: questions "
        "lost and gained, all seeds together",
    )  # fmt: skip


def rows_of_study(results: Results, rows: list[Row], data: str, title: str, room: int) -> dict[str, Any]:
    """A forest in the colours and shapes of the study."""
    group = {"field": "benchmark", "title": "benchmark"} if data == "benchmarks" else {"field": "gain", "title": "gain"}
    return interval_rows(
        rows, data, title, room=room, encoding=mark(results), lines=line(results),
        about=[{"field": "method", "title": "method"}, {"field": "rate", "title": "learning rate"}, group],
        after=[{"field": "right", "title": "lost, gained"}] if data == "benchmarks" else [],
    )  # fmt: skip
