"""The closing lines of a run: what came out, where to look, what to try next."""

from __future__ import annotations

from retain_core.arms import rate_text
from retain_core.report.build import points
from retain_core.report.results import Results, read_results
from retain_core.settings import Settings
from retain_core.warehouse.query import open_warehouse, render


def closing_lines(config: Settings, study: str) -> str:
    """Method -> gain and drop with every seed's value, the places, and three commands."""
    with open_warehouse(config.warehouse) as con:
        results = read_results(con, study)
    return "\n".join([_table(results), *_state(results), "", *_places(config, study)])


def _table(results: Results) -> str:
    columns = ["method", "lr", "gain", "each seed", "drop", "each seed ", "drop far"]
    rows = [
        (
            m["method"], "" if m["learning_rate"] is None else rate_text(m["learning_rate"]),
            points(m["gain"]), ", ".join(map(points, m["gain_by_seed"])),
            points(m["drop"]), ", ".join(map(points, m["drop_by_seed"])), points(m["drop_far"]),
        )
        for m in results.methods
    ]  # fmt: skip
    head = f"{results.study}: what teaching {results.spec['target']} gained and cost, in points, last checkpoints"
    table = render(columns, rows, "table").rsplit("\n", 1)[0]
    return f"{head}\n\n{table}\n"


def _state(results: Results) -> list[str]:
    lines = []
    for c in results.controls:
        word = "not run" if c["passed"] is None else "passed" if c["passed"] else "FAILED"
        lines.append(f"control {c['control']}: {word} (gain {points(c['gain'])}, drop {points(c['drop'])})")
    lines += [f"missing: {arm['arm']}: {arm['error'] or arm['status']}" for arm in results.unfinished]
    if results.spec["base"]["model"].startswith("lab/"):
        lines.append("A laboratory result: one base, few seeds, no interval over seeds yet.")
    return lines


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
