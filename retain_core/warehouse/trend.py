"""What a study said each time its answers had changed: the rows of `trend`, over nights of a scheduled study.

Owns the `summary` artifact: rows.json with a row per method and learning rate, and the verdict of that time.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb

from retain_core.gate.record import decision_row, decisions_of
from retain_core.store import Artifact, Store, key_of
from retain_core.warehouse.rows import insert

ROWS = "rows.json"
_SUMMARY = """
SELECT m.base, m.method, m.learning_rate, m.gain, m."drop", m.drop_low, m.drop_high,
       (SELECT any_value(verdict) FROM contrasts c WHERE c.study = m.study AND c."primary") AS verdict
FROM method_summary m WHERE m.study = ? AND m.role = 'method' ORDER BY ALL
"""


def summaries_of(store: Store, study: str) -> list[Artifact]:
    """All summaries of a study, oldest first; of a gate's study its decisions."""
    found = [a for key in store.keys("summary") if (a := store.find("summary", key)) and a.inputs["study"] == study]
    return sorted([*found, *decisions_of(store, study)], key=lambda a: (a.created_at, a.key))


def trend_rows(summary: Artifact) -> list[list[Any]]:
    """The rows of `trend` that one summary or decision stands for."""
    if summary.kind == "decision":
        return [decision_row(summary)]
    rows = json.loads(summary.file(ROWS).read_text(encoding="utf-8"))
    return [
        [summary.inputs["study"], summary.created_at[:10], *row, None, None, None, summary.key, summary.created_at]
        for row in rows
    ]


def record_summary(store: Store, warehouse: Path, study: str, spec_hash: str, analysis: str) -> None:
    """Keep what the study says now, unless it said the same before; `analysis` identifies what it was computed from."""
    inputs = {"study": study, "spec_hash": spec_hash, "analysis": analysis}
    key = key_of(inputs)
    if store.find("summary", key):
        return
    with duckdb.connect(str(warehouse)) as con:
        rows = con.execute(_SUMMARY, [study]).fetchall()
        with store.create("summary", key, inputs) as draft:
            (draft.path / ROWS).write_text(json.dumps(rows), encoding="utf-8")
        insert(con, "trend", trend_rows(store.get("summary", key)))
