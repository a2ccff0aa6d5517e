"""What a study says of itself outside its page, in Prefect's UI: the table of methods, and the summary in Markdown.

Neither holds the environment or a token; an address is shown without the user, password and query that it may carry.
"""

from __future__ import annotations

from typing import Any

from retain_core.arms import rate_text
from retain_core.redact import public_address
from retain_core.report.results import Results, read_results
from retain_core.report.words import interval, points
from retain_core.settings import Settings
from retain_core.warehouse.query import open_warehouse, render


def read_summary(config: Settings, study: str) -> tuple[list[dict[str, Any]], str]:
    """A study's rows of the table of methods, and its summary. Raises InputError when the warehouse does not have it."""
    with open_warehouse(config.warehouse) as con:
        results = read_results(con, study)
    return method_rows(results), summary_markdown(results, config)


def method_rows(results: Results) -> list[dict[str, Any]]:
    """Every method and learning rate at its last checkpoint, in points, with 95 % intervals."""
    return [
        {
            "method": m["method"],
            "learning rate": "" if m["learning_rate"] is None else rate_text(m["learning_rate"]),
            "seeds": m["seeds"],
            "gain": points(m["gain"]),
            "gain, 95 %": interval(m["gain_low"], m["gain_high"]),
            "drop": points(m["drop"]),
            "drop, 95 %": interval(m["drop_low"], m["drop_high"]),
        }
        for m in results.methods
    ]


def summary_markdown(results: Results, config: Settings) -> str:
    """Verdict, controls, what is missing, and where to look, in Markdown."""
    page = config.reports / results.study / "index.html"
    server = public_address(config.mlflow_uri)
    mlflow = f"[{server}]({server})" if server else f"`{config.mlflow_place}`"
    parts = [
        f"# {results.study}: {results.primary['verdict'] if results.primary else 'no contrast was declared'}",
        *([_contrast(results.primary)] if results.primary else []),
        *(["## Controls", _controls(results.controls)] if results.controls else []),
        *(["## Missing", _missing(results.unfinished)] if results.unfinished else []),
        "## Where to look",
        f'* report: `{page}`\n* MLflow: {mlflow}\n* warehouse: `{config.warehouse}`, `retain sql "FROM method_summary"`',
    ]
    return "\n\n".join(parts) + "\n"


def _contrast(p: dict[str, Any]) -> str:
    figure = "no figure" if p["diff"] is None else f"**{points(p['diff'])}** points {interval(p['ci_low'], p['ci_high'])}"
    notes = [
        *([p["reason"]] if p["reason"] else []),
        *([] if p["robust"] is None else ["robust" if p["robust"] else "not robust"]),
        *([] if p["declared_before"] else ["declared after training, so exploratory"]),
    ]
    declared = f"drop of `{p['a']}` - drop of `{p['b']}` at {p['at']}: {figure}"
    return "; ".join([declared, *notes]) + "."


def _controls(controls: list[dict[str, Any]]) -> str:
    words = {None: "not run", True: "passed", False: "**FAILED**"}
    rows = [(c["control"], points(c["gain"]), points(c["drop"]), words[c["passed"]], c["expectation"]) for c in controls]
    return render(["control", "gain", "drop", "", "what must happen"], rows, "markdown")


def _missing(arms: list[dict[str, Any]]) -> str:
    return render(["arm", "why"], [(arm["arm"], arm["error"] or arm["status"]) for arm in arms], "markdown")
