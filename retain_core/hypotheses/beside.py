"""What the ledger says beside a contrast: the two methods measured another way, in points with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import duckdb

from retain_core.arms import rate_text

Beside = Literal["distance", "backward_transfer"]

_SQL: dict[Beside, str] = {
    "distance": """SELECT weight_distance, learning_rate, "drop", ci_low, ci_high, verdict FROM matched_distance
        WHERE study = ? AND method = ? ORDER BY weight_distance DESC LIMIT 1""",
    "backward_transfer": """SELECT targets, learning_rate, bwt, bwt_low, bwt_high, NULL FROM sequence_summary
        WHERE study = ? AND method = ? AND metric = 'primary' AND learning_rate = ?""",
}
_WORDS: dict[Beside, str] = {
    "distance": "drop at a distance of {at:.2f} from the base",
    "backward_transfer": "backward transfer over {at:.0f} targets",
}


def beside(con: duckdb.DuckDBPyConnection, study: str, points: Sequence[tuple[str, float | None]], what: Beside) -> str:
    """One clause on both methods, each with the learning rate of the contrast; empty where the study has nothing of it.

    `distance`: the drop where both weight changes are equally long, each at the learning rate that loses least there.
    `backward_transfer`: score at the end of a sequence less that at the end of a target's own stage, mean over earlier targets.
    """
    said, at = [], None
    for method, chosen in points:
        asked = [study, method] if what == "distance" else [study, method, chosen]
        row = con.execute(_SQL[what], asked).fetchone()
        if row is None:
            return ""
        at, rate, value, low, high, verdict = row
        if value is None:
            said.append(f"{method} {verdict}")
            continue
        interval = "" if low is None else f" [{100 * low:+.1f}, {100 * high:+.1f}]"
        said.append(f"{method} ({rate_text(rate)}) {100 * value:+.1f}{interval}")
    return f"{_WORDS[what].format(at=at)}: {', '.join(said)}"
