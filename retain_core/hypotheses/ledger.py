"""What came out of every hypothesis study in this home, and of which there is nothing yet."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from retain_core.arms import rate_text
from retain_core.hypotheses.beside import beside
from retain_core.hypotheses.studies import Question, questions
from retain_core.remote import open_store
from retain_core.settings import Settings
from retain_core.stats.law import KL
from retain_core.stats.power import detectable_from_interval
from retain_core.store import Store
from retain_core.warehouse.query import Format, open_warehouse, render

POWERED = 0.05
"""A study must be able to detect so large a contrast with 80 % power, or its verdict says little."""
KL_MOVED = 0.1
"""A KL penalty was tested where the measured KL is smaller by at least this share, in every seed."""
CLIPPED = 0.01
"""Clipping was tested where it acted on at least this share of the tokens."""


@dataclass(frozen=True)
class Entry:
    """One line of the ledger."""

    question: Question
    state: str
    """run, underpowered, no figure, not tested, incomplete, not run."""
    verdict: str | None = None
    """The study's word, None where there is none to give."""
    robust: bool | None = None
    rates: tuple[float | None, float | None] = (None, None)
    diff: float | None = None
    low: float | None = None
    high: float | None = None
    detectable: float | None = None
    """Smallest contrast that is found with 80 % power, as a fraction."""
    seeds: int = 0
    seconds: float | None = None
    """Wall time of the last run that computed something."""
    note: str = ""


def ledger_text(config: Settings, form: Format) -> str:
    """The ledger in one of the formats."""
    entries = ledger(config)
    columns = [
        "nr", "study", "contrast", "lr", "drop a - b", "95 % interval", "verdict", "robust", "detectable", "state", "seeds",
        "seconds", "note",
    ]  # fmt: skip
    table = render(columns, [_row(entry) for entry in entries], form)
    if form in ("json", "csv"):
        return table
    powered = sum(entry.state == "run" and entry.detectable is not None for entry in entries)
    told = sum(entry.state not in ("not run", "incomplete") for entry in entries)
    return (
        f"{table}\n\n{told} of {len(entries)} questions have been run here; {powered} of them can detect "
        f"{100 * POWERED:g} points or fewer. Contrasts and what is detectable are points of drop, each conditional on its base."
    )


def ledger(config: Settings) -> list[Entry]:
    """One entry a question, in their order."""
    if not config.warehouse.is_file():
        return [Entry(question, "not run") for question in questions()]
    store = open_store(config, read_only=True)
    with open_warehouse(config.warehouse) as con:
        return [entry(con, store, config.home, question) for question in questions()]


def _row(entry: Entry) -> tuple[Any, ...]:
    study, primary = entry.question.study, entry.question.study["primary"]
    a, b = primary["contrast"]
    at = "last" if primary.get("at") == "last" else f"gain {primary['at_gain']:g}"
    rates = " / ".join(rate_text(rate) for rate in entry.rates if rate is not None)
    law = entry.question.judged_by == "kl_law"
    contrast = "drop by forward KL, a method left out" if law else f"{a} - {b} at {at}"
    return (
        entry.question.number, study["study"], contrast, rates, _points(entry.diff),
        "" if entry.low is None else f"[{_points(entry.low)}, {_points(entry.high)}]", entry.verdict or "",
        "" if entry.robust is None else "yes" if entry.robust else "no",
        "" if entry.detectable is None else f"{100 * entry.detectable:.1f}", entry.state, entry.seeds or "",
        "" if entry.seconds is None else f"{entry.seconds:.0f}", entry.note,
    )  # fmt: skip


def _points(value: float | None) -> str:
    return "" if value is None else f"{100 * value:+.1f}"


def entry(con: duckdb.DuckDBPyConnection, store: Store, home: Path, question: Question) -> Entry:
    """What became of one question in the home of this warehouse."""
    study = question.study["study"]
    arms = con.execute("SELECT method, status, seed FROM arms WHERE study = ? AND role <> 'base'", [study]).fetchall()
    done = sum(status == "done" for _, status, _ in arms)
    if not done:
        return Entry(question, "not run")
    seeds = len({seed for method, status, seed in arms if status == "done" and method in question.study["primary"]["contrast"]})
    seconds = _wall_time(home / "logs" / study / "wall_time.json")
    if done < len(arms):
        return Entry(question, "incomplete", seeds=seeds, seconds=seconds, note=f"{done} of {len(arms)} arms are done")
    if question.judged_by == "kl_law":
        return _by_law(con, question, seeds, seconds)
    row = con.execute(
        """SELECT verdict, robust, learning_rate_a, learning_rate_b, diff, ci_low, ci_high, stderr, level, reason,
               declared_before
        FROM contrasts WHERE study = ? AND "primary" """,
        [study],
    ).fetchone()
    if row is None:
        return Entry(question, "incomplete", seeds=seeds, seconds=seconds, note="the warehouse has no primary contrast")
    word, robust, rate_a, rate_b, diff, low, high, stderr, level, reason, before = row
    detectable = None if diff is None else detectable_from_interval((high - low) / 2, stderr, alpha=1 - level)
    state = "no figure" if detectable is None else "underpowered" if detectable > POWERED else "run"
    note = reason or ("" if before else "declared after training, so exploratory")
    if question.tested_if and (why := _untested(con, store, question)):
        state, word, note = "not tested", None, why
    if question.beside:
        points = list(zip(question.study["primary"]["contrast"], (rate_a, rate_b), strict=True))
        note = "; ".join(clause for clause in (note, beside(con, study, points, question.beside)) if clause)
    return Entry(question, state, word, robust, (rate_a, rate_b), diff, low, high, detectable, seeds, seconds, note)


def _by_law(con: duckdb.DuckDBPyConnection, question: Question, seeds: int, seconds: float | None) -> Entry:
    """Supported: KL predicts what a method lost that the fit has not seen, and better than all that is trivially known."""
    rows = con.execute(
        """SELECT predictor, r2, r2_left_out, left_out_low, left_out_high, beats_trivial, reason FROM kl_law WHERE study = ?
        ORDER BY r2_left_out DESC""",
        [question.study["study"]],
    ).fetchall()
    known = {row[0]: row for row in rows}
    if KL not in known or known[KL][2] is None:
        return Entry(question, "run", None, seeds=seeds, seconds=seconds, note=known[KL][6] if KL in known else "no law")
    _, inside, left_out, low, high, beats, _ = known[KL]
    word = "supported" if beats and low > 0 else "reversed" if high < 0 else "inconclusive"
    best = rows[0]
    note = f"R2 {inside:.2f} in sample, {left_out:.2f} [{low:.2f}, {high:.2f}] left out; best left out: {best[0]} {best[2]:.2f}"
    return Entry(question, "run", word, seeds=seeds, seconds=seconds, note=note)


def _untested(con: duckdb.DuckDBPyConnection, store: Store, question: Question) -> str:
    """Why the dial did not act, so that nothing can be said about it; empty when it did."""
    if question.tested_if == "clipped":
        share = _clip_share(con, store, question)
        return "" if share >= CLIPPED else f"clipping acted on {100 * share:.2f} % of the tokens, under {100 * CLIPPED:g} %"
    smaller = _kl_smaller(con, question)
    if all(share >= KL_MOVED for share in smaller):
        return ""
    return f"the measured KL is smaller by {100 * min(smaller):.0f} % only, under {100 * KL_MOVED:g} %"


def _kl_smaller(con: duckdb.DuckDBPyConnection, question: Question) -> list[float]:
    """By which share the KL that is penalised is smaller with the penalty; one figure a seed and learning rate."""
    a, b = question.study["primary"]["contrast"]
    found = con.execute(
        """WITH last AS (
            SELECT g.method, g.learning_rate, g.seed, max_by(g.kl_reverse, g.step) AS kl
            FROM gain_drop g WHERE g.study = ? GROUP BY ALL)
        SELECT 1 - y.kl / x.kl FROM last x JOIN last y USING (learning_rate, seed)
        WHERE x.method = ? AND y.method = ? AND x.kl > 0 ORDER BY ALL""",
        [question.study["study"], a, b],
    ).fetchall()
    return [share for (share,) in found] or [0.0]


def _clip_share(con: duckdb.DuckDBPyConnection, store: Store, question: Question) -> float:
    """Mean share of tokens that clipping acted on, over all updates of the clipped method's arms."""
    import pyarrow.parquet as pq

    arms = con.execute(
        "SELECT artifact FROM arms WHERE study = ? AND method = ? AND status = 'done'",
        [question.study["study"], question.study["primary"]["contrast"][1]],
    ).fetchall()
    shares = [
        point["value"]
        for (key,) in arms
        for point in pq.read_table(store.get("arm", key).file("curve.parquet")).to_pylist()
        if point["name"] == "clip_share"
    ]
    return sum(shares) / len(shares) if shares else 0.0


def _wall_time(record: Path) -> float | None:
    return float(json.loads(record.read_text(encoding="utf-8"))["seconds"]) if record.is_file() else None
