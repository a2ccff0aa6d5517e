"""The closing lines of a run: what came out, where to look, what to try next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from retain_core.arms import rate_text
from retain_core.cross import StudyFile
from retain_core.report.results import Results, read_results
from retain_core.report.words import interval, points
from retain_core.settings import Settings
from retain_core.warehouse.query import open_warehouse, render


def closing_lines(config: Settings, study: str) -> str:
    """Method -> gain and drop with their intervals, the verdict, the places, and three commands."""
    with open_warehouse(config.warehouse) as con:
        results = read_results(con, study)
    return "\n".join([_table(results), *_sequence(results), *_state(results), "", *_places(config, study)])


def crossed_lines(config: Settings, file: StudyFile) -> str:
    """Of a crossed file: every study with its verdict, the contrast over bases, what was predicted, and the places."""
    with open_warehouse(config.warehouse) as con:
        verdicts = con.execute(_VERDICTS, [[study.study for study in file.studies]]).fetchall()
        over_bases = con.execute(_OVER_BASES, [file.name]).fetchall()
        predictions = con.execute(_PREDICTIONS, [file.name]).fetchall()
    studies = [(name, arms, points(diff), interval(low, high), word) for name, arms, diff, low, high, word in verdicts]
    families = [
        (size, target, n, points(mean), interval(low, high), word) for size, target, n, mean, low, high, word in over_bases
    ]
    lines = [
        f"{file.name}: the declared contrast of every study, in points", "",
        _rows(["study", "arms done", "contrast", "95 % interval", "verdict"], studies),
        _rows(["size", "target", "bases", "mean", "95 % interval", "verdict"], families),
    ]  # fmt: skip
    if predictions:
        columns = ["predicted", "from", "to", "signs held", "tau", "95 % interval", "frozen before"]
        lines += [_rows(columns, [_prediction(row) for row in predictions]), *(f"{r[0]}: {r[-1]}" for r in predictions), ""]
    pages = [f"pages      {config.reports}/{file.name}-.../index.html", f"warehouse  {config.warehouse}"]
    return "\n".join([*lines, *pages, "", "try next:", '  retain sql "FROM predictions"', '  retain sql "FROM over_bases"'])


_VERDICTS = """
SELECT s.study,
       (SELECT count(*) FILTER (status = 'done') || '/' || count(*) FROM arms a WHERE a.study = s.study AND role <> 'base'),
       c.diff, c.ci_low, c.ci_high, coalesce(c.verdict, 'none')
FROM (SELECT unnest($1) AS study, generate_subscripts($1, 1) AS place) s
LEFT JOIN contrasts c ON c.study = s.study AND c."primary"
ORDER BY place
"""
_OVER_BASES = """
SELECT size, target, bases, estimate, ci_low, ci_high, verdict FROM over_bases WHERE name = ? AND "primary"
ORDER BY size, target
"""
_PREDICTIONS = """
SELECT target, size_from, size_to, signs_held, pairs, tau, ci_low, ci_high, frozen_before, rule FROM predictions
WHERE family = ? ORDER BY frozen_at, target
"""


def _prediction(row: tuple[Any, ...]) -> tuple[str, ...]:
    """One prediction in words: `12 of 15`, tau with two digits."""
    target, small, large, held, pairs, tau, low, high, before, _ = row
    signs = f"{pairs} pairs" if held is None else f"{held} of {pairs}"
    between = "" if low is None else f"[{low:+.2f}, {high:+.2f}]"
    return target, small, large, signs, "" if tau is None else f"{tau:+.2f}", between, "yes" if before else "NO"


def _rows(columns: list[str], rows: Sequence[tuple[Any, ...]]) -> str:
    return render(columns, list(rows), "table").rsplit("\n", 1)[0] + "\n"


def _table(results: Results) -> str:
    columns = ["method", "lr", "gain", "95 % interval", "drop", "95 % interval ", "drop far"]
    rows = [
        (
            m["method"], "" if m["learning_rate"] is None else rate_text(m["learning_rate"]),
            points(m["gain"]), interval(m["gain_low"], m["gain_high"]),
            points(m["drop"]), interval(m["drop_low"], m["drop_high"]), points(m["drop_far"]),
        )
        for m in results.methods
    ]  # fmt: skip
    head = f"{results.study}: what teaching {results.targets} gained and cost, in points, last checkpoints"
    table = render(columns, rows, "table").rsplit("\n", 1)[0]
    return f"{head}\n\n{table}\n"


def _sequence(results: Results) -> list[str]:
    """Method -> backward transfer, where there were several targets."""
    if not results.sequences:
        return []
    rows = [
        (m["method"], rate_text(m["learning_rate"]), points(m["bwt"]), interval(m["bwt_low"], m["bwt_high"]))
        for m in results.sequences
    ]
    table = render(["method", "lr", "backward transfer", "95 % interval"], rows, "table").rsplit("\n", 1)[0]
    return [f"gain is that on {results.spec['target']}, the first target; what became of the earlier targets:\n\n{table}\n"]


def _state(results: Results) -> list[str]:
    lines = [_verdict(results.primary)] if results.primary else []
    for c in results.controls:
        word = "not run" if c["passed"] is None else "passed" if c["passed"] else "FAILED"
        lines.append(f"control {c['control']}: {word} (gain {points(c['gain'])}, drop {points(c['drop'])})")
    lines += [f"missing: {arm['arm']}: {arm['error'] or arm['status']}" for arm in results.unfinished]
    if results.spec["base"]["model"].startswith("lab/"):
        lines.append("A laboratory result, conditional on this one base.")
    return lines


def _verdict(primary: dict[str, Any]) -> str:
    """The declared contrast in one sentence."""
    p = primary
    figure = "no figure" if p["diff"] is None else f"{points(p['diff'])} points {interval(p['ci_low'], p['ci_high'])}"
    reason = f" ({p['reason']})" if p["reason"] else ""
    robust = "" if p["robust"] is None else ", robust" if p["robust"] else ", not robust"
    late = "" if p["declared_before"] else "; declared after training, so exploratory"
    return f"drop of {p['a']} - drop of {p['b']} at {p['at']}: {figure}: {p['verdict']}{reason}{robust}{late}\n"


def _places(config: Settings, study: str) -> list[str]:
    return [
        f"report     {config.reports / study / 'index.html'}",
        f"warehouse  {config.warehouse}",
        f"MLflow     {config.mlflow_place}",
        "",
        "try next:",
        '  retain sql "FROM method_summary"',
        f"  retain sql \"FROM flips WHERE study = '{study}' AND direction = 'lost' LIMIT 10\"",
        "  retain plan studies/lab.yaml",
    ]
