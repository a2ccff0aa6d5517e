"""The warehouse at scale: the views on millions of sample rows, pandas over JSONL beside them, and the loader.

The rows are made up by SQL inside the warehouse's own tables; the comparisons are computed from them by the
loader's own code. Two threads. A warm time is that of a query on a connection that has asked it before, a cold
one that of opening the file and asking; in both the answer is fetched into Python. The operating system keeps
the file in memory where it fits.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from benchmarks.pairs import Row, compare
from retain_core.evaluation.answers import ANSWERS, SCORES
from retain_core.store import Artifact
from retain_core.warehouse.compare import store_comparisons
from retain_core.warehouse.contents import Contents, Evaluated
from retain_core.warehouse.load import connect, load_contents

DEFAULT_ROWS = (1_000_000, 10_000_000)
ITEMS = 10_000
"""Items of a benchmark."""
BENCHMARKS = ("target", "near", "far", "farther")
"""The first is the target, the second near it; the last two have clusters of five items."""
STUDY_CHECKPOINTS = 250
"""Checkpoints of one study, its base among them."""
ARM_CHECKPOINTS = 4
THREADS = 2
GOALS = {1_000_000: "0.1 s", 10_000_000: "0.5 s", 100_000_000: "4 s"}
FLIPS_GOAL = "0.1 s"
PANDAS_ROWS = 10_000_000
"""Above this pandas is not asked: it would need most of an hour."""
LOADED_EVALUATIONS = 400
_CHUNK = 200


@dataclass(frozen=True)
class Timing:
    """Seconds that a view took, over repetitions, beside its goal."""

    name: str
    rows: int
    warm: list[float]
    cold: list[float]
    goal: str

    def text(self) -> str:
        """The row as Markdown."""
        cells = " | ".join(f"{value:.3g} s" for times in (self.warm, self.cold) for value in _quantiles(times))
        return f"| {self.name} | {self.rows:.0e} | {cells} | {self.goal} |"


HEAD = "| view | sample rows | warm p50 | warm p95 | cold p50 | cold p95 | goal |\n|---|---|---|---|---|---|---|"


def warehouse(pairs: int, folder: Path, sizes: Sequence[int]) -> tuple[list[Row], list[str]]:
    """Pairs with pandas where it still runs, and the lines of a second table: the views against their goals, the loader."""
    compared: list[Row] = []
    timings: list[Timing] = []
    notes = [loading(folder / "loading")]
    for rows in sizes:
        place = folder / f"rows-{rows}"
        place.mkdir()
        path = place / "warehouse.duckdb"
        seconds = make(path, rows)
        size = path.stat().st_size / 1e9
        notes.append(f"{rows:.0e} sample rows: a file of {size:.2f} GB; scores, comparisons and flips in {seconds:.1f} s")
        timings += views(path, rows)
        if rows <= PANDAS_ROWS:
            compared.append(beside_pandas(path, place / "jsonl", rows, pairs))
        shutil.rmtree(place)
    return compared, ["", HEAD, *(timing.text() for timing in timings), "", *notes]


def make(path: Path, rows: int) -> float:
    """Fill a warehouse with that many sample rows. Returns the seconds that the comparisons took."""
    checkpoints = rows // (ITEMS * len(BENCHMARKS))
    con = connect(path)
    con.execute(f"SET threads TO {THREADS}")
    _make_names(con, checkpoints)
    for first in range(1, checkpoints * len(BENCHMARKS) + 1, _CHUNK):
        _make_answers(con, first, first + _CHUNK)
    con.execute("CHECKPOINT")
    con.execute("SET threads TO 1")  # as the loader does
    started = time.perf_counter()
    for (study,) in con.execute("SELECT study FROM studies ORDER BY study").fetchall():
        store_comparisons(con, study)
    seconds = time.perf_counter() - started
    con.close()
    return seconds


def _make_names(con: duckdb.DuckDBPyConnection, checkpoints: int) -> None:
    """Studies, arms, checkpoints, items and the names of evaluations and divergences."""
    con.execute("CREATE TEMP TABLE b AS SELECT unnest(?) AS benchmark, unnest(range(4)) AS number", [list(BENCHMARKS)])
    con.execute(f"""
        CREATE TEMP TABLE c AS
        WITH x AS (SELECT i AS number, i // {STUDY_CHECKPOINTS} AS s, i % {STUDY_CHECKPOINTS} AS k
                   FROM range({checkpoints}) r(i)),
             y AS (SELECT *, 'study' || s AS study, (k + {ARM_CHECKPOINTS - 1}) // {ARM_CHECKPOINTS} AS a,
                          CASE k WHEN 0 THEN 0 ELSE 10 << ((k - 1) % {ARM_CHECKPOINTS}) END AS step FROM x)
        SELECT *, study || '/base' AS base, CASE k WHEN 0 THEN base ELSE study || '/m' || a % 8 || '-s' || a // 8 END AS arm,
               CASE k WHEN 0 THEN base ELSE arm || '@' || step END AS checkpoint FROM y""")
    con.execute("INSERT INTO metrics VALUES (1, 'acc')")
    con.execute("""INSERT INTO studies BY NAME SELECT DISTINCT study, 1 AS revision, '{"methods": []}' AS spec,
        study AS spec_hash, true AS is_current, [8] AS looks FROM c ORDER BY study""")
    con.execute("""INSERT INTO study_benchmarks BY NAME SELECT study, benchmark, 'acc' AS metric,
        CASE b.number WHEN 0 THEN 'target' ELSE 'retention' END AS role, b.number = 1 AS near
        FROM (SELECT DISTINCT study FROM c), b ORDER BY study, b.number""")
    con.execute("""INSERT INTO arms BY NAME SELECT DISTINCT arm, study, base, 'target' AS target,
        CASE a WHEN 0 THEN 'base' ELSE 'm' || a % 8 END AS method, CASE a WHEN 0 THEN 'base' ELSE 'method' END AS role,
        CASE a WHEN 0 THEN NULL ELSE 1e-4 END AS learning_rate, CASE a WHEN 0 THEN NULL ELSE a // 8 END AS seed,
        'done' AS status, 1000 AS tokens_trained, 10.0 AS seconds FROM c ORDER BY study, arm""")
    con.execute("""INSERT INTO checkpoints BY NAME SELECT checkpoint, arm, study, step, false AS kept,
        step * 0.01 AS weight_distance, step * 0.02 AS path_length FROM c ORDER BY number""")
    con.execute(f"""INSERT INTO items BY NAME SELECT benchmark, (hash(benchmark, i) >> 1)::BIGINT AS item, i AS doc_id,
        (hash(i) >> 1)::BIGINT AS prompt_hash, CASE WHEN number > 1 THEN 'cluster' || i // 5 END AS cluster,
        CASE WHEN hash(i, 'split') % 2 = 0 THEN 'select' ELSE 'report' END AS split,
        'what does ' || benchmark || ' ask under ' || i || ' ?' AS prompt, 'the answer is ' || hash(i) % 1000 AS target
        FROM b, range({ITEMS}) r(i) ORDER BY number, i""")
    con.execute(f"""INSERT INTO stored_evaluations BY NAME SELECT c.number * 4 + b.number + 1 AS evaluation_id,
        md5(evaluation_id::VARCHAR) AS artifact, md5(artifact) AS seal, benchmark, '{{}}' AS settings,
        benchmark AS settings_hash, {ITEMS} AS n FROM c, b ORDER BY ALL""")
    con.execute("""INSERT INTO named_evaluations BY NAME SELECT checkpoint || '/' || benchmark AS evaluation, study, checkpoint,
        c.number * 4 + b.number + 1 AS evaluation_id, evaluation_id - c.k * 4 AS base_evaluation_id
        FROM c, b ORDER BY evaluation_id""")
    con.execute("""INSERT INTO stored_divergences BY NAME SELECT number AS divergence_id, md5(checkpoint) AS artifact,
        md5(study) AS seal FROM c WHERE k > 0 ORDER BY number""")
    con.execute("""INSERT INTO named_divergences BY NAME SELECT study, checkpoint, number AS divergence_id FROM c WHERE k > 0
        ORDER BY number""")
    con.execute("""INSERT INTO divergence_items BY NAME SELECT number AS divergence_id, prompts, direction,
        (hash(i) >> 1)::BIGINT AS item, (hash(number, i, direction) % 1000) / 1e4 AS nats, 5 AS tokens
        FROM c, (SELECT unnest(['retention', 'target']) AS prompts), (SELECT unnest(['forward', 'reverse']) AS direction),
             range(200) r(i) WHERE k > 0 ORDER BY ALL""")


def _make_answers(con: duckdb.DuckDBPyConnection, first: int, end: int) -> None:
    """Answers and scores of some evaluations: six in ten right, each checkpoint with flips of its own, most of them lost."""
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE a AS
        WITH x AS (SELECT e.evaluation_id, i.item, i.target, e.evaluation_id = e.base_evaluation_id AS is_base,
                          hash(i.item, e.study) % 10 < 6 AS base_right, hash(i.item, e.evaluation_id) % 1000 AS draw
                   FROM named_evaluations e JOIN stored_evaluations s USING (evaluation_id) JOIN items i USING (benchmark)
                   WHERE e.evaluation_id >= {first} AND e.evaluation_id < {end})
        SELECT evaluation_id, item, target,
               CASE WHEN is_base OR draw >= CASE WHEN base_right THEN 50 + evaluation_id % 100 ELSE 40 END
               THEN base_right ELSE NOT base_right END AS correct,
               draw FROM x ORDER BY evaluation_id, item""")
    con.execute("INSERT INTO sample_scores SELECT evaluation_id, 1, item, 0, correct::DOUBLE FROM a")
    con.execute("""INSERT INTO answers BY NAME SELECT evaluation_id, item, 0 AS repeat, true AS parsed, 'stop' AS finish_reason,
        5 AS n_tokens, CASE WHEN correct THEN target ELSE 'the answer is not ' || draw END AS response FROM a""")


def views(path: Path, rows: int) -> list[Timing]:
    """The views at one size. `flips` asks for another checkpoint every time."""
    with duckdb.connect(str(path), read_only=True) as con:
        found = con.execute("SELECT checkpoint FROM checkpoints WHERE step > 0 ORDER BY hash(checkpoint) LIMIT 50").fetchall()
    checkpoints = [checkpoint for (checkpoint,) in found]
    goal = GOALS.get(rows, "none")
    every = iter(range(1_000_000))
    return [
        _timing("forgetting", path, rows, lambda: "SELECT * FROM forgetting", goal),
        _timing("gain_drop", path, rows, lambda: "SELECT * FROM gain_drop", goal),
        _timing(
            "flips of one checkpoint", path, rows,
            lambda: f"SELECT * FROM flips WHERE checkpoint = '{checkpoints[next(every) % len(checkpoints)]}'", FLIPS_GOAL,
        ),
    ]  # fmt: skip


def _timing(name: str, path: Path, rows: int, sql: Callable[[], str], goal: str) -> Timing:
    def ask(con: duckdb.DuckDBPyConnection) -> None:
        con.execute(sql()).fetchall()

    def opened() -> duckdb.DuckDBPyConnection:
        return duckdb.connect(str(path), read_only=True, config={"threads": THREADS})

    def cold() -> None:
        with opened() as con:
            ask(con)

    with opened() as con:
        ask(con)
        warm = _repeat(lambda: ask(con))
    return Timing(name, rows, warm, _repeat(cold), goal)


def _repeat(run: Callable[[], None], times: int = 40, limit: float = 20.0) -> list[float]:
    """Seconds of each of 40 runs, fewer where 20 seconds are over."""
    spent: list[float] = []
    while len(spent) < times and sum(spent) < limit:
        started = time.perf_counter()
        run()
        spent.append(time.perf_counter() - started)
    return spent


def _quantiles(times: list[float]) -> tuple[float, float]:
    return statistics.median(times), sorted(times)[min(len(times) - 1, round(0.95 * (len(times) - 1)))]


def beside_pandas(path: Path, folder: Path, rows: int, pairs: int) -> Row:
    """drop, lost and gained of every checkpoint and benchmark: the view against pandas over JSONL. Checks that both agree."""
    files = _write_jsonl(path, folder)
    sql = """SELECT checkpoint, benchmark, "drop", lost, gained FROM compared WHERE step > 0"""
    con = duckdb.connect(str(path), read_only=True, config={"threads": THREADS})
    told = {(c, b): tuple(row) for c, b, *row in con.execute(sql).fetchall()}

    def by_pandas() -> None:
        found = _pandas(files)
        wrong = [pair for pair, row in found.items() if abs(row[0] - told[pair][0]) > 1e-12 or row[1:] != told[pair][1:]]
        if wrong or len(found) != len(told):
            raise SystemExit(f"the view and pandas differ: {wrong[:3]}")

    number = min(pairs, 3) if rows < PANDAS_ROWS else 1
    name = f"drop, lost, gained of {rows:.0e} samples: the view, computed at the load / pandas over JSONL"
    row = compare(name, lambda: con.execute(sql).fetchall(), by_pandas, "below 1", number)
    con.close()
    shutil.rmtree(folder)
    return row


def _write_jsonl(path: Path, folder: Path) -> dict[tuple[str, str, str], Path]:
    """One file an evaluation, with fewer columns than lm-eval writes. Returns (study, checkpoint, benchmark) -> file."""
    folder.mkdir()
    with duckdb.connect(str(path), read_only=True, config={"threads": THREADS}) as con:
        named = con.execute("""SELECT e.evaluation_id, e.study, e.checkpoint, s.benchmark FROM named_evaluations e
            JOIN stored_evaluations s USING (evaluation_id) ORDER BY e.evaluation_id""").fetchall()
        for number, *_ in named:
            con.execute(f"""COPY (SELECT i.doc_id, i.target, a.response, x.score AS acc
                FROM sample_scores x JOIN answers a ON a.evaluation_id = x.evaluation_id AND a.item = x.item
                JOIN stored_evaluations s ON s.evaluation_id = x.evaluation_id
                JOIN items i ON i.benchmark = s.benchmark AND i.item = x.item
                WHERE x.evaluation_id = {number} AND a.evaluation_id = {number})
                TO '{folder / f"{number}.jsonl"}' (FORMAT json)""")
    return {tuple(names): folder / f"{number}.jsonl" for number, *names in named}


def _pandas(files: dict[tuple[str, str, str], Path]) -> dict[tuple[str, str], tuple[float, int, int]]:
    import pandas as pd

    bases: dict[tuple[str, str], pd.Series] = {}
    found = {}
    for (study, checkpoint, benchmark), file in files.items():
        score = pd.read_json(file, lines=True).set_index("doc_id")["acc"]
        if checkpoint == f"{study}/base":
            bases[study, benchmark] = score
            continue
        difference = bases[study, benchmark] - score
        found[checkpoint, benchmark] = float(difference.mean()), int((difference > 0).sum()), int((difference < 0).sum())
    return found


def loading(folder: Path) -> str:
    """Parquet artifacts into a new warehouse by the loader; which must then say what the first one says."""
    folder.mkdir()
    made, loaded = folder / "made.duckdb", folder / "loaded.duckdb"
    make(made, LOADED_EVALUATIONS * ITEMS)
    contents = _artifacts(made, folder / "artifacts")
    started = time.perf_counter()
    load_contents(loaded, contents)
    seconds = time.perf_counter() - started
    with duckdb.connect(str(loaded)) as con:
        con.execute(f"ATTACH '{made}' AS made (READ_ONLY)")
        there = _FIGURES.replace("compared", "made.compared")
        if con.execute(f"({_FIGURES}) EXCEPT ({there})").fetchall() or not con.execute(_FIGURES).fetchall():
            raise SystemExit("the loaded warehouse says something else than the one whose answers were loaded")
        for table in ("evaluation_scores", "comparisons", "flipped"):
            con.execute(f"DELETE FROM {table}")
        con.execute("SET threads TO 1")
        started = time.perf_counter()
        store_comparisons(con, contents.study)
        comparing = time.perf_counter() - started
    shutil.rmtree(folder)
    rows = LOADED_EVALUATIONS * ITEMS
    return (
        f"load: {rows:.0e} answers of {LOADED_EVALUATIONS} evaluations from Parquet in {seconds:.1f} s, "
        f"{rows / seconds:,.0f} rows a second; of these seconds scores, comparisons and flips {comparing:.1f} s"
    )


_FIGURES = """SELECT checkpoint, benchmark, n, clusters, lost, gained, round("drop", 12), round(ci_low, 12) FROM compared"""


def _artifacts(made: Path, folder: Path) -> Contents:
    """The evaluations of a warehouse as the artifacts from which a loader would have filled it."""
    with duckdb.connect(str(made), read_only=True, config={"threads": THREADS}) as con:
        (study,) = con.execute("SELECT study FROM studies").fetchone()
        # As probes, so that only what is stored per answer is computed, and no analysis of the study.
        tables = {
            name: [list(row) for row in con.execute(f"FROM {name}").fetchall()]
            for name in ("studies", "arms", "checkpoints", "study_benchmarks")
        }
        columns = [c for (c, *_) in con.execute("DESCRIBE study_benchmarks").fetchall()]
        for row in tables["study_benchmarks"]:
            row[columns.index("role")] = "probe"
        named = con.execute("""SELECT e.evaluation_id, e.checkpoint, s.benchmark, s.artifact, s.seal, s.settings_hash
            FROM named_evaluations e JOIN stored_evaluations s USING (evaluation_id) ORDER BY e.evaluation_id""").fetchall()
        evaluations = []
        for number, checkpoint, benchmark, key, seal, settings_hash in named:
            place = folder / key
            place.mkdir(parents=True)
            con.execute(f"""COPY (SELECT i.doc_id, a.item, a.repeat, i.prompt, i.prompt_hash, i.target, i.cluster, i.split,
                    i.kind, a.parsed, a.finish_reason, a.n_tokens, a.response
                FROM answers a JOIN items i ON i.item = a.item AND i.benchmark = '{benchmark}' WHERE a.evaluation_id = {number})
                TO '{place / ANSWERS}' (COMPRESSION zstd)""")
            con.execute(f"""COPY (SELECT item, repeat, 'acc' AS metric, score FROM sample_scores WHERE evaluation_id = {number})
                TO '{place / SCORES}' (COMPRESSION zstd)""")
            meta = {"benchmark": benchmark, "settings_hash": settings_hash, "n": ITEMS}
            artifact = Artifact("evaluation", key, place, {}, meta, "2026-01-01T00:00:00", seal)
            evaluations.append(Evaluated(checkpoint, benchmark, {}, artifact))
    return Contents(study, tables, evaluations)
