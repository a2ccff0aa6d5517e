"""The page of two studies: what differs between them, and the difference in drop and gain of every method of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from markupsafe import Markup

from retain_core.analysis.scores import StudyScores
from retain_core.arms import rate_text
from retain_core.compare.studies import PAIRED, SAME, MethodRow, StudiesCompared
from retain_core.compare.studies_text import headline, reading, study_row
from retain_core.report.forest import in_points, interval_rows, placed
from retain_core.report.parts import Chart, Chip, Column, Head, Page, Part, Row, Section, Table, Text
from retain_core.report.words import counted, listed, points
from retain_core.stats.crossed import Interval

DIFFERS, ALIKE, SAME_ARMS, UNTESTED = "differs beyond chance", "not beyond chance", "the same arms", "gain, not tested"
PLACES = {DIFFERS: 1, ALIKE: 7, SAME_ARMS: 8, UNTESTED: 0}
WORDS = (
    ("point", "one percentage point: 5 points are 5 questions in 100."),
    ("gain", "how many points more of the taught task are right than before training."),
    ("drop", "how many points less of everything else are right than before; below 0 it got better."),
    ("difference", "figure of A minus figure of B: a drop above 0 means that A lost more."),
    ("95 % interval", "the range in which the true difference lies, as far as these questions and seeds can tell."),
)
_COLUMNS = (
    Column("method", "method"), Column("learning_rate", "learning rate", "rate"), Column("seeds_a", "seeds A", "count"),
    Column("seeds_b", "seeds B", "count"), Column("drop_a", "drop A", "points"), Column("drop_b", "drop B", "points"),
    Column("diff", "difference", "points"), Column("ci_low,ci_high", "95 % interval", "interval"), Column("p_value", "p", "p"),
    Column("p_adjusted", "p (BH)", "p"), Column("pairing", "how"), Column("rule", "interval", "long"),
)  # fmt: skip
_GAINS = (
    Column("method", "method"), Column("learning_rate", "learning rate", "rate"), Column("gain_a", "gain A", "points"),
    Column("gain_a_low,gain_a_high", "95 % interval", "interval"), Column("gain_b", "gain B", "points"),
    Column("gain_b_low,gain_b_high", "95 % interval", "interval"), Column("gain_diff", "difference", "points"),
    Column("gain_diff_low,gain_diff_high", "95 % interval", "interval"),
)  # fmt: skip


def studies_page(found: StudiesCompared, ends: list[Section]) -> Page:
    """The page of two studies; `ends` are its last sections, of which what differs comes first."""
    datasets: dict[str, list[Row]] = {}
    drops = _forest(found, "drop_differences", "Difference in drop, A - B", lambda row: row.drop, datasets)
    gains = _forest(found, "gain_differences", "Difference in gain, A - B", lambda row: row.gain, datasets)
    states = {row["state"] for rows in datasets.values() for row in rows if "state" in row}
    told = [study_row(row) for row in found.rows]
    has_gain = any(row["gain_a"] is not None or row["gain_b"] is not None for row in told)
    gain_table = Table("gains", "gains and their difference", _GAINS, told)
    return Page(
        title=f"{found.a.study} - {found.b.study}", head=_head(found, drops),
        sections=[
            ends[0],
            Section("drops", "Drop of every method of both", [Table("drops", "drops and their difference", _COLUMNS, told)]),
            Section("gains", "Gain of every method of both", [p for p in (gains, gain_table if has_gain else None) if p]),
            Section("reading", "What to read from this, and what not", _lines(reading(found))),
            Section("notes", "Notes", _lines(found.notes)),
            Section("answers", "Single answers", _answers(found)),
            *ends[1:],
        ],
        colours={state: place for state, place in PLACES.items() if state in states}, rates={}, datasets=datasets, alone=True,
    )  # fmt: skip


def _lines(told: Iterable[str]) -> list[Part]:
    return [Text(Markup("{}").format(line)) for line in told]


def _head(found: StudiesCompared, chart: Chart | None) -> Head:
    tested = [row for row in found.rows if row.pairing != SAME]
    differing = sum(row.beyond_chance for row in tested)
    chips = [Chip(f"{differing} of {counted(len(tested), 'comparison')} differ beyond chance")] if tested else []
    shared = len(found.rows) - len(tested)
    chips += [Chip(f"{shared} the same arms")] if shared else []
    return Head(
        kicker="Comparison of two studies", question=f"What differs between {found.a.study} and {found.b.study}?",
        answer=Markup("{}").format(headline(found)), chips=[*chips, Chip("exploratory")], warnings=_warnings(found),
        facts=[("A", _study(found.a)), ("B", _study(found.b)), ("Compared", Markup(
            "{} of method and learning rate, at their last checkpoints; drop over {}"
        ).format(counted(len(found.rows), "pair"), listed(list(found.benchmarks))))],
        words=WORDS, chart=chart, chart_note="Left of 0 A lost less, right of 0 A lost more.",
    )  # fmt: skip


def _study(of: StudyScores) -> Markup:
    target = f", target {of.target}" if of.target else ""
    seeds = ", ".join(map(str, of.spec["seeds"]))
    return Markup("{} (base {}{}{})").format(of.study, of.spec["base"]["model"], target, f"; seeds {seeds}" if seeds else "")


def _warnings(found: StudiesCompared) -> list[str]:
    told = []
    if not found.same_base:
        told.append("The two studies have different bases: each drop is against its own.")
    if not found.same_target:
        told.append("The two studies teach different targets: their gains cannot be set against each other.")
    return told


def _forest(
    found: StudiesCompared, name: str, title: str, of: Callable[[MethodRow], Interval | None], datasets: dict[str, list[Row]]
) -> Chart | None:
    gain = name == "gain_differences"
    rows: list[Row] = []
    for row in found.rows:
        interval = of(row)
        if interval is None:
            continue
        a, b = ((side.gain if gain else side.drop) for side in (row.a, row.b))
        assert a is not None
        assert b is not None
        state = SAME_ARMS if row.pairing == SAME else UNTESTED if gain else DIFFERS if row.beyond_chance else ALIKE
        rate = "" if row.learning_rate is None else rate_text(row.learning_rate)
        rows.append({
            "label": f"{row.method}  {rate}".rstrip(), "method": row.method, "rate": rate, "state": state, "how": row.pairing,
            "drop": in_points(interval.estimate), "low": _end(interval.low, row), "high": _end(interval.high, row),
            "right": f"{points(a.estimate)}, {points(b.estimate)}",
        })  # fmt: skip
    if not rows:
        return None
    of_both = "gain" if gain else "drop"
    rows = placed([{"label": "method, learning rate", "header": True, "right": f"{of_both} A, B"}, *rows])
    datasets[name] = rows
    names = [state for state in PLACES if any(row.get("state") == state for row in rows)]
    scale = {"domain": names, "range": [f"var(--m{PLACES[state]})" for state in names]}
    how = {row.pairing for row in found.rows}
    over = "items and seeds" if how & {PAIRED} else "items and seeds of each side"
    return Chart(
        name, title,
        interval_rows(
            rows, name, f"difference in {of_both}", room=110, measured=f"difference in {of_both}",
            encoding={"color": {"field": "state", "type": "nominal", "title": None, "scale": scale}},
            about=[{"field": "method", "title": "method"}, {"field": "rate", "title": "learning rate"},
                   {"field": "state", "title": ""}, {"field": "how", "title": "how"}],
            after=[{"field": "right", "title": f"{of_both} A, B"}],
        ),
        f"{len(rows) - 1} differences in {of_both} with 95 % intervals, a row for each method and learning rate.",
        f"{counted(len(rows) - 1, 'difference')}; lines: 95 % intervals over {over}; right: the {of_both} of both",
    )  # fmt: skip


def _end(value: float, row: MethodRow) -> float | None:
    return None if row.pairing == SAME or math.isnan(value) else in_points(value)


def _answers(found: StudiesCompared) -> list[Part]:
    """How to see what two arms answered: a study has too many answers for a page of two."""
    row = next((row for row in found.rows if row.pairing != SAME), None)
    if row is None:
        return []
    cells = (next(c for c in side.methods() if (c.method, c.learning_rate) == (row.method, row.learning_rate))
             for side in (found.a, found.b))  # fmt: skip
    arms = [cell.last()[0].rpartition("@")[0] for cell in cells]
    return [Text(Markup(
        "Two studies are too many answers for one page. Two of their arms are not, question by question: "
        "<code>retain compare {} {} --page arms.html</code>"
    ).format(*arms))]  # fmt: skip
