"""The questions whose answer changed between right and wrong: as many as a page can hold, spread evenly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb

from retain_core.report.parts import Row

MOST = 1500
"""Changed answers on a page."""
LONGEST = 400
"""Characters of one text on a page."""

_LAST = """
last AS (
    SELECT c.checkpoint, a.method, a.learning_rate, a.seed, c.step
    FROM checkpoints c JOIN arms a USING (arm)
    WHERE a.study = $1 AND a.role = 'method' AND c.alpha IS NULL
    QUALIFY c.step = max(c.step) OVER (PARTITION BY c.arm)
)"""
_COUNTS = f"""WITH {_LAST}
SELECT f.benchmark, l.method, f.direction, count(*) FROM flips f JOIN last l USING (checkpoint) WHERE f.study = $1
GROUP BY ALL ORDER BY ALL"""
_ROWS = f"""WITH {_LAST},
ranked AS (
    SELECT f.checkpoint, f.benchmark, f.item, f.direction, l.method, l.learning_rate, l.seed, l.step,
           row_number() OVER (PARTITION BY f.benchmark, l.method, f.direction ORDER BY hash(f.item), l.learning_rate,
           l.seed) AS place
    FROM flips f JOIN last l USING (checkpoint) WHERE f.study = $1
), kept AS (FROM ranked ORDER BY place, benchmark, method, direction LIMIT {MOST})
SELECT k.benchmark, k.method, k.learning_rate, k.seed, k.step, k.direction, CAST(k.item AS VARCHAR) AS item, f.prompt, f.target,
       f.base_response, f.response
FROM kept k JOIN flips f ON f.study = $1 AND f.checkpoint = k.checkpoint AND f.benchmark = k.benchmark AND f.item = k.item
ORDER BY k.benchmark, k.item, k.method, k.learning_rate, k.seed, k.direction"""
"""Round after round, one of every benchmark, method and direction, by the hash of the item: the same each time."""


@dataclass(frozen=True)
class Changed:
    """Changed answers at the last checkpoint of every arm."""

    rows: list[Row]
    total: int
    """How many there are in the warehouse."""
    cut: int
    """Texts that were cut to `LONGEST` characters."""

    @property
    def sampled(self) -> bool:
        """Whether some were left out."""
        return len(self.rows) < self.total


def read_changed(con: duckdb.DuckDBPyConnection, study: str) -> Changed:
    """The changed answers of a study's methods; controls are left out."""
    total = sum(n for *_, n in con.execute(_COUNTS, [study]).fetchall())
    found = con.execute(_ROWS, [study])
    names = [d[0] for d in found.description or []]
    cut = 0

    def text(value: Any) -> Any:
        nonlocal cut
        if isinstance(value, str) and len(value) > LONGEST:
            cut += 1
            return f"{value[:LONGEST]} … [{len(value) - LONGEST:,} more characters]"
        return value

    rows = [{name: text(value) for name, value in zip(names, row, strict=True)} for row in found.fetchall()]
    return Changed(rows, total, cut)
