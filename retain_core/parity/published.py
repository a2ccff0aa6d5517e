"""The R2 that RL's Razor prints for its toy, from the package's stored table of published figures."""

from __future__ import annotations

from typing import NamedTuple

from retain_core.published import load_published

SOURCE = "2509.04259"
TARGET = "parity_mnist"
QUANTITIES = {
    "forward KL": "r2_forward_kl",
    "reverse KL": "r2_reverse_kl",
    "total variation": "r2_total_variation",
    "weight L1": "r2_weight_l1",
}
"""The stored name of each predictor that was printed; the others were not."""


class Figure(NamedTuple):
    """One printed R2 and the note beside it."""

    value: float
    note: str


def published_r2() -> dict[str, Figure]:
    """The printed figure of each predictor that has one."""
    import duckdb

    with duckdb.connect() as con:
        load_published(con)
        query = "SELECT quantity, value, note FROM published_results WHERE source = ? AND target = ?"
        stored = {quantity: Figure(value, note) for quantity, value, note in con.execute(query, [SOURCE, TARGET]).fetchall()}
    return {name: stored[quantity] for name, quantity in QUANTITIES.items()}
