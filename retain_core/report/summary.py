"""The closing lines of a run: what came out, where to look, what to try next."""

from __future__ import annotations

from typing import Any

from retain_core.arms import rate_text
from retain_core.report.build import interval, points
from retain_core.report.results import Results, read_results
from retain_core.settings import Settings
from retain_core.warehouse.query import open_warehouse, render


def closing_lines(config: Settings, study: str) -> str:
    """Method -> gain and drop with their intervals, the verdict, the places, and three commands."""
    with open_warehouse(config.warehouse) as con:
        results = read_results(con, study)
    return "\n".join([_table(results), *_state(results), "", *_places(config, study)])


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
    head = f"{results.study}: what teaching {results.spec['target']} gained and cost, in points, last checkpoints"
    table = render(columns, rows, "table").rsplit("\n", 1)[0]
    return f"{head}\n\n{table}\n"


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
    mlflow = config.mlflow_uri or f"mlflow ui --backend-store-uri {config.mlflow_tracking_uri}"
    return [
        f"report     {config.reports / study / 'index.html'}",
        f"warehouse  {config.warehouse}",
        f"MLflow     {mlflow}",
        "",
        "try next:",
        '  retain sql "FROM method_summary"',
        f"  retain sql \"FROM flips WHERE study = '{study}' AND direction = 'lost' LIMIT 10\"",
        "  retain plan studies/lab.yaml",
    ]
