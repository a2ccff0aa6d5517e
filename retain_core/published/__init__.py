"""Figures from papers, to set beside one's own: `results.csv`, and the relations of `published.sql` over it.

One row is one printed number, in the unit it was printed in. `source` is an arXiv id (a title where there is none),
`status` says how it was read: `paper` (the paper's own text; 2510.18874 through close notes on its third version) or
`secondary` (someone's note about the study). Nothing that can be derived is typed in; the views derive it.
"""

from __future__ import annotations

from importlib.resources import as_file, files

import duckdb


def load_published(con: duckdb.DuckDBPyConnection) -> None:
    """Create `published_results`, fill it from the package's data, and create the views over it."""
    folder = files("retain_core.published")
    con.execute(folder.joinpath("published.sql").read_text(encoding="utf-8"))
    with as_file(folder.joinpath("results.csv")) as path:
        con.execute(
            "INSERT INTO published_results BY NAME SELECT * FROM read_csv(?, header = true, all_varchar = true)", [str(path)]
        )
