"""Where every table of a study's page comes from, asked in SQL without the code of the page, and written a second time."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from retain_core import __version__
from retain_core.arms import rate_text
from retain_core.hypotheses.ledger import POWERED
from retain_core.hypotheses.studies import questions
from retain_core.stats.power import can_see_loss, detectable_from_interval
from retain_core.warehouse.query import open_warehouse

Row = dict[str, Any]


def rows(warehouse: Path, sql: str) -> list[Row]:
    with open_warehouse(warehouse) as con:
        found = con.execute(sql)
        names = [d[0] for d in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def signed(value: float | None) -> str:
    return "-" if value is None else f"{round(value * 100, 1) + 0.0:+.1f}"


def three(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def or_empty(form: Callable[[Any], str]) -> Callable[[Any], str]:
    return lambda value: "" if value is None else form(value)


WRITTEN: dict[str, Callable[..., str]] = {
    "text": or_empty(str), "long": or_empty(str), "method": or_empty(str), "code": or_empty(str), "rate": or_empty(rate_text),
    "points": signed, "each": lambda values: ", ".join(map(signed, values)), "number": three,
    "percent": or_empty(lambda v: f"{v * 100:.1f}"),
    "interval": lambda low, high: "" if low is None else f"[{signed(low)}, {signed(high)}]",
    "numbers": lambda low, high: "" if low is None else f"[{three(low)}, {three(high)}]",
    "count": or_empty(lambda v: f"{v:,}"), "p": or_empty(lambda p: "< 0.0001" if p < 0.0001 else f"{p:.4f}"),
    "score": or_empty(lambda v: f"{v:.4f}"), "tiny_points": or_empty(lambda v: f"{v * 100:.4f}"),
    "yes": or_empty(lambda v: "yes" if v else "no"), "passed": lambda v: "not run" if v is None else "yes" if v else "no",
}  # fmt: skip
"""How the page must write a value."""
LAST = "(arm, step) IN (SELECT arm, max(step) FROM checkpoints WHERE alpha IS NULL GROUP BY arm)"
_TOLD = ("backend", "dtype", "decoding", "batch_size", "chat_template", "threads")
RELATIONS = {
    "methods": "FROM method_summary WHERE role = 'method'",
    "seeds": "FROM method_summary WHERE role = 'method'",
    "primary_benchmarks": "FROM contrast_benchmarks",
    "matched_gain": "FROM matched_gain",
    "contrasts": 'FROM contrasts WHERE NOT "primary"',
    "sequences": "FROM sequence_summary WHERE metric = 'primary'",
    "kl_law": "FROM kl_law",
    "controls": "FROM controls",
    "noise_floor": "SELECT * REPLACE (coalesce(flips, 'not counted') AS flips) FROM noise_floor",
    "base": """SELECT s.*, role, near FROM scores s JOIN study_benchmarks b USING (study, benchmark)
        WHERE arm = study || '/base'""",
    "power": """SELECT s.*, choices, coalesce((spec->'primary'->>'margin')::DOUBLE, 0.02) AS margin
        FROM scores s JOIN study_benchmarks b USING (study, benchmark, metric) JOIN studies USING (study)
        WHERE arm = study || '/base' AND role = 'retention' AND is_current""",
    "audits": f"""SELECT method, learning_rate, avg(unparsed) AS unparsed, avg(cut) AS cut, avg(empty) AS empty,
            avg(mean_tokens) AS mean_tokens, avg(strict) FILTER (lenient IS NOT NULL) AS strict, avg(lenient) AS lenient,
            sum(spill * lost) / nullif(sum(lost) FILTER (spill IS NOT NULL), 0) AS spill,
            avg(harmful_compliance) AS harmful_compliance, avg(over_refusal) AS over_refusal
        FROM (SELECT a.*, step FROM audits a JOIN checkpoints USING (study, arm, checkpoint) WHERE {LAST})
        JOIN arms USING (study, arm) JOIN study_benchmarks b USING (study, benchmark)
        WHERE arms.role <> 'control' AND b.role = 'retention' GROUP BY ALL""",
    "per_benchmark": f"""SELECT f.* EXCLUDE (low, high), coalesce(i.low, f.low) AS low, coalesce(i.high, f.high) AS high FROM (
            SELECT benchmark, any_value(f.near) AS near, method, learning_rate, any_value(n) AS n, count(*) AS seeds,
                   any_value(base_score) AS base_score, avg(score) AS score, avg("drop") AS "drop", sum(lost)::BIGINT AS lost,
                   sum(gained)::BIGINT AS gained, if(count(*) = 1, max(ci_low), NULL) AS low,
                   if(count(*) = 1, max(ci_high), NULL) AS high
            FROM forgetting f JOIN arms USING (study, arm, method, learning_rate) JOIN study_benchmarks b
            USING (study, benchmark, metric) WHERE arms.role = 'method' AND {LAST} GROUP BY benchmark, method, learning_rate) f
        LEFT JOIN intervals i ON i.method = f.method AND i.learning_rate = f.learning_rate
            AND i.quantity = 'drop/' || f.benchmark""",
    "settings": """WITH dials AS (
            SELECT DISTINCT method, key, trim(value::VARCHAR, '"') AS said
            FROM arms, json_each(config) dial WHERE role = 'method'
        ), differ AS (
            SELECT key FROM dials GROUP BY key
            HAVING count(DISTINCT said) > 1 OR count(DISTINCT method) < (SELECT count(DISTINCT method) FROM dials)
        )
        PIVOT (SELECT method, key, said FROM dials JOIN differ USING (key) ORDER BY said) ON key
        USING coalesce(string_agg(said, ' / '), '') GROUP BY method""",
    "ledger": """SELECT study, diff, ci_low AS low, ci_high AS high, verdict, stderr, level, coalesce(reason, '') AS note
        FROM contrasts WHERE "primary" """,
    "provenance": f"""WITH done AS (FROM arms WHERE status = 'done' AND method <> 'base'),
        said AS (SELECT settings::JSON AS s FROM evaluations),
        told AS (
            SELECT place, replace(key, '_', ' ') || ' ' || string_agg(DISTINCT s->>key, ', ' ORDER BY s->>key) AS text
            FROM said, (SELECT unnest({list(_TOLD)}) AS key, generate_subscripts({list(_TOLD)}, 1) AS place)
            WHERE s->>key IS NOT NULL GROUP BY place, key),
        versions AS (SELECT DISTINCT v.key || ' ' || (v.value->>'$') AS version FROM said, json_each(s->'versions') v),
        commits AS (SELECT string_agg(DISTINCT git_sha, ', ' ORDER BY git_sha) AS text, count(DISTINCT git_sha) AS n FROM done),
        current AS (SELECT *, spec->'budget' AS budget FROM studies WHERE is_current)
        SELECT 'declared' AS what, declared_at || ' UTC, revision ' || revision AS said FROM current
        UNION ALL SELECT 'spec hash', spec_hash FROM current
        UNION ALL SELECT 'code that trained', coalesce(if(n = 1, 'commit ', 'commits ') || text, 'unknown') FROM commits
        UNION ALL SELECT 'code of this page', 'retain {__version__}'
        UNION ALL SELECT 'packages of the evaluations', coalesce(string_agg(version, ', ' ORDER BY version), 'not recorded')
            FROM versions
        UNION ALL SELECT 'evaluated with', coalesce(string_agg(text, '; ' ORDER BY place), 'not recorded') FROM told
        UNION ALL SELECT 'platform', coalesce(string_agg(DISTINCT s->>'platform', ', '), 'not recorded') FROM said
        UNION ALL SELECT 'trained on', coalesce(string_agg(DISTINCT hardware, ', ' ORDER BY hardware), 'not recorded') FROM done
        UNION ALL SELECT 'page written on',
            '{platform.system()} {platform.machine()}, Python {platform.python_version()}'
        UNION ALL SELECT if(spec->>'then' IS NULL OR spec->>'then' = '[]', 'budget per arm', 'budget per target'),
            (budget->>'updates') || ' updates of ' || (budget->>'sequences_per_update') || ' sequences' FROM current
        UNION ALL SELECT 'arms', (SELECT count(*) FROM done) || ' of ' || count(*) || ' arms done' FROM arms
            WHERE method <> 'base'
        UNION ALL SELECT 'cost', format('{{:,.0f}}', coalesce(sum(seconds), 0)) || ' s of training in all, ' ||
            format('{{:,}}', coalesce(sum(tokens_trained), 0)::BIGINT) || ' tokens trained on, ' ||
            format('{{:,}}', coalesce(sum(tokens_generated), 0)::BIGINT) || ' tokens generated' FROM done
        UNION ALL SELECT 'seeds', array_to_string((spec->'seeds')::INTEGER[], ', ') FROM current""",
}
"""Table -> its rows."""
WHOLE = ("settings", "provenance")
"""Tables that must show every column of theirs; the others show a choice."""
ASKED = {question.study["study"]: question for question in questions()}
DERIVED: dict[tuple[str, str], Callable[[Row], Any]] = {
    ("power", "view"): lambda row: can_see_loss(
        row["score"], 1 / row["choices"] if row["choices"] else 0.0, row["n"], row["clusters"], row["margin"]
    ),
    ("ledger", "number"): lambda row: ASKED[row["study"]].number,
    ("ledger", "asks"): lambda row: ASKED[row["study"]].asks,
    ("ledger", "state"): lambda row: "underpowered" if _detectable(row) > POWERED else "run",
}
"""What no relation holds: computed from a row by functions that have tests of their own."""
PLANTED = (
    'UPDATE comparisons SET "drop" = "drop" + 0.0321, score = score - 0.0321',
    "UPDATE contrasts SET diff = diff + 0.111, ci_low = ci_low + 0.111, ci_high = ci_high + 0.111",
    "UPDATE contrast_benchmarks SET diff = diff + 0.0567",
    'UPDATE matched SET "drop" = "drop" + 0.05',
    "UPDATE kl_law SET r2 = r2 / 2",
    "UPDATE evaluation_scores SET score = 0.7 * score + 0.1 * (evaluation_id % 3)",
    "UPDATE answers SET parsed = false WHERE (item + evaluation_id) % 3 = 0",
    """UPDATE arms SET config = json_merge_patch(config, '{"planted": ' || length(method) || '}')""",
    "UPDATE arms SET seconds = coalesce(seconds, 0) + 1000",
)
"""Changes after which every table says something else."""


def _detectable(row: Row) -> float:
    return detectable_from_interval((row["high"] - row["low"]) / 2, row["stderr"], alpha=1 - row["level"])


def shown(page: Page) -> dict[str, Row]:
    """Every table of the page by its name: `columns`, each with its keys and its kind, and `cells`."""
    tables = page.eval_on_selector_all("table", """tables => tables.map(t => ({
        name: t.id.slice(6),
        columns: [...t.querySelectorAll("th")].map(h => [h.dataset.keys.split(","), h.dataset.kind]),
        cells: [...t.querySelectorAll("tbody tr")].map(r => [...r.cells].map(c => c.textContent)),
    }))""")  # fmt: skip
    return {table["name"]: table for table in tables}


def known(warehouse: Path, name: str, columns: list[tuple[list[str], str]]) -> list[list[str]]:
    """The cells that a table must have, by SQL. Raises KeyError for a table of which nobody has said where it comes from."""
    found = rows(warehouse, RELATIONS[name])
    if name in WHOLE:
        assert found[0].keys() == {key for keys, _ in columns for key in keys}, name
    for row in found:
        row |= {key: derive(row) for (table, key), derive in DERIVED.items() if table == name}
    return [[WRITTEN[kind](*(row[key] for key in keys)) for keys, kind in columns] for row in found]


def check_tables(page: Page, warehouse: Path) -> dict[str, list[list[str]]]:
    """Every cell of every table is what SQL says. Returns the cells of each."""
    tables = shown(page)
    for name, table in tables.items():
        assert sorted(table["cells"]) == sorted(known(warehouse, name, table["columns"])), name
    return {name: table["cells"] for name, table in tables.items()}
