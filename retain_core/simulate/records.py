"""Runs, gaps, figures and cells of the sweep as plain records, for JSON, and as rows, for CSV."""

from __future__ import annotations

import math
from typing import Any

from retain_core.simulate import sweep as sweeping
from retain_core.simulate.matched import Gap, Outcome, Summary, summarise
from retain_core.simulate.published import Comparison, values_of
from retain_core.stats.verdict import Prediction

Row = tuple[Any, ...]
Table = tuple[list[str], list[Row]]


def run_record(name: str, found: Outcome) -> dict[str, Any]:
    """One run: its dials, and a summary over seeds of each quantity (null: not every seed reached the gain)."""
    setting, first = found.setting, found.published
    quantities = {
        "step": first.step, "gain": first.gain, "drop": first.drop, "drop_exactly": first.drop_exactly,
        "drop_early": found.early.drop_exactly, "last_gain": found.last_gain, "last_drop": found.last_drop,
    }  # fmt: skip
    if setting.start == "two modes":
        quantities["last_old_weight"] = found.last_parameters[0]
    return {
        "run": name, "start": setting.start, "method": setting.method, "learning_rate": setting.learning_rate,
        "most_steps": setting.iterations, "stops_at_gain": setting.until,
        "slow": setting.slow if setting.start == "two modes" else None,
        "offset": setting.offset if setting.method == "reverse" else None,
        "floor": setting.floor if setting.method == "reverse" else None,
        "reached": int(values_of(found, "reached").sum()),
        **{quantity: _summary(summarise(values)) for quantity, values in quantities.items()},
    }  # fmt: skip


def gap_record(a: str, b: str, at: float, predict: Prediction, found: Gap) -> dict[str, Any]:
    """One gap between two runs."""
    return {
        "forward": a, "reverse": b, "at_gain": at, "predict": predict, "gap": _summary(found.gap), "verdict": found.verdict,
    }  # fmt: skip


def comparison_record(row: Comparison) -> dict[str, Any]:
    """One printed figure beside what is seen here."""
    figure = row.figure
    return {
        "run": figure.run, "quantity": figure.quantity, "printed": float(figure.printed), "status": figure.status,
        "printed_seeds": figure.seeds, "here": row.here, "sd": row.sd, "agrees": row.agrees, "note": figure.note,
    }  # fmt: skip


def cell_record(cell: sweeping.Cell) -> dict[str, Any]:
    """One combination of the sweep."""
    stopped_at = None if math.isnan(cell.reverse_last_gain) else cell.reverse_last_gain
    return {
        "slow": cell.slow, "beta": cell.beta, "samples": cell.sampling.samples, "reward": cell.sampling.reward,
        "seeds": cell.seeds, "forward_reached": cell.forward_reached, "reverse_reached": cell.reverse_reached,
        "reverse_last_gain": stopped_at, "forward_drop": _summary(cell.forward),
        "reverse_drop": _summary(cell.reverse), "gap": _summary(cell.gap), "verdict": cell.verdict, "both_lost": cell.saturated,
    }  # fmt: skip


def _summary(found: Summary | None) -> dict[str, float | None] | None:
    """A summary as JSON: null for what one seed cannot tell."""
    if found is None:
        return None
    return {name: None if math.isnan(value) else value for name, value in found._asdict().items() if name != "n"}


def flat(records: list[dict[str, Any]]) -> Table:
    """Records as columns: the mean of a summary under its own name, the rest of it behind."""
    parts = ("sd", "low", "high", "median")
    nested = {name for record in records for name, value in record.items() if isinstance(value, dict)}
    names = list(dict.fromkeys(name for record in records for name in record))
    columns = [c for name in names for c in ([name, *(f"{name}_{p}" for p in parts)] if name in nested else [name])]

    def row(record: dict[str, Any]) -> Row:
        values: list[Any] = []
        for name in names:
            value = record.get(name)
            values += [(value or {}).get(part) for part in ("mean", *parts)] if name in nested else [value]
        return tuple(values)

    return columns, [row(record) for record in records]
