"""The descriptions that MLflow shows at the top of a run, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from retain_core.arms import ArmSpec, rate_text
from retain_core.study import Study
from retain_core.tracking.content import Point
from retain_core.warehouse.query import render


def study_note(study: Study, con: duckdb.DuckDBPyConnection) -> str:
    """What was asked, what came out, and where in this run the rest lies."""
    retention = ", ".join(r.benchmark for r in study.retention)
    return "\n\n".join(
        text
        for text in (
            f"What did teaching **{', then '.join(study.targets())}** cost **{study.base.model}**? Every arm is a child run. "
            "`gain` is the rise of the target's score, `drop` the mean fall of the scores on what must not be lost "
            f"({retention}), both as fractions.",
            _verdict(study, con),
            _table(study.study, con),
            "**Artifacts**: `report/index.html` is the study's page, `method_summary.json` this table with its intervals, "
            "`study.json` what was declared.",
        )
        if text
    )


def arm_note(spec: ArmSpec, results: Sequence[Point]) -> str:
    """Where the arm ended, in a sentence."""
    last = {point.key: point.value for point in sorted(results, key=lambda point: point.step)}
    rate = "" if spec.learning_rate is None else f" at learning rate {rate_text(spec.learning_rate)}"
    seed = "" if spec.seed is None else f", seed {spec.seed}"
    after = f"after {spec.all_updates} updates" if spec.trained else "as it came"
    kl = f", forward KL {last['kl/forward']:.3g} nats per token" if "kl/forward" in last else ""
    return (
        f"**{spec.method}**{rate}{seed}{', a control' if spec.role == 'control' else ''}, {after}: "
        f"gain {_points(last.get('gain'))} points, drop {_points(last.get('drop'))} points{kl}."
    )


def _verdict(study: Study, con: duckdb.DuckDBPyConnection) -> str:
    sql = """SELECT a, b, "at", diff, ci_low, ci_high, verdict, reason FROM contrasts WHERE study = ? AND "primary" """
    row = con.execute(sql, [study.study]).fetchone()
    if row is None:
        return ""
    a, b, at, diff, low, high, verdict, reason = row
    figure = "" if diff is None else f" {_points(diff)} points" + ("" if low is None else f" [{_points(low)}, {_points(high)}]")
    return f"Declared: drop of {a} - drop of {b} at {at}:{figure} **{verdict}**" + (f" ({reason})." if reason else ".")


def _table(study: str, con: duckdb.DuckDBPyConnection) -> str:
    sql = """SELECT method, learning_rate, gain, gain_low, gain_high, "drop", drop_low, drop_high, seeds FROM method_summary
             WHERE study = ? ORDER BY role DESC, method, learning_rate"""
    rows = [
        (method, "" if rate is None else rate_text(rate), _interval(*gain_drop[:3]), _interval(*gain_drop[3:]), seeds)
        for method, rate, *gain_drop, seeds in con.execute(sql, [study]).fetchall()
    ]
    return render(["method", "learning rate", "gain, points", "drop, points", "seeds"], rows, "markdown") if rows else ""


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    return _points(value) + ("" if low is None or high is None else f" [{_points(low)}, {_points(high)}]")


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f}"
