"""The page of two models: what changed on each benchmark, and every answer that did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import zip_longest

from markupsafe import Markup

from retain_core.compare.runs import Comparison, Flip, Row
from retain_core.compare.text import answer_of, cut, reading
from retain_core.imported.samples import Run
from retain_core.report.changed import LONGEST, MOST
from retain_core.report.forest import in_points, interval_rows, placed
from retain_core.report.parts import Chart, Chip, Column, Head, Items, Page, Part, Section, Table, Text
from retain_core.report.parts import Row as Shown
from retain_core.report.words import counted, listed, points

CHANGED, UNCHANGED, TARGET, MEAN = "changed beyond chance", "not beyond chance", "target of training", "mean"
PLACES = {CHANGED: 1, UNCHANGED: 7, TARGET: 4, MEAN: 0}
"""What a row of the forest is -> place of its colour."""
WORDS = (
    ("point", "one percentage point: 5 points are 5 questions in 100."),
    ("drop", "score of A minus score of B on the same questions: above 0 B lost, below 0 it gained."),
    ("lost, gained", "questions that A has right and B wrong, and the other way round."),
    ("95 % interval", "the range in which the true drop lies, as far as these questions can tell."),
)
_FRACTIONS = (
    Column("benchmark", "benchmark"), Column("metric", "metric", "code"), Column("n", "n", "count"),
    Column("clusters", "clusters", "count"), Column("score_a", "A", "percent"), Column("score_b", "B", "percent"),
    Column("drop", "drop", "points"), Column("ci_low,ci_high", "95 % interval", "interval"), Column("lost", "lost", "count"),
    Column("gained", "gained", "count"), Column("p_value", "p", "p"), Column("p_holm", "p (Holm)", "p"),
    Column("detectable", "detectable", "percent"), Column("drop_chance_corrected", "drop, chance-corrected", "points"),
)  # fmt: skip
_OTHERS = (
    Column("benchmark", "benchmark"), Column("metric", "metric", "code"), Column("unit", "unit"), Column("n", "n", "count"),
    Column("score_a", "A", "number"), Column("score_b", "B", "number"), Column("drop", "drop", "number"),
    Column("ci_low,ci_high", "95 % interval", "numbers"), Column("lost", "lost", "count"), Column("gained", "gained", "count"),
    Column("p_value", "p", "p"),
)  # fmt: skip


def runs_page(found: Comparison, ends: list[Section]) -> Page:
    """The page of two models; `ends` are its last sections."""
    forest, rows = _forest(found)
    drawn = {row["state"] for row in rows if "state" in row}
    items = _items(found)
    return Page(
        title=f"{found.a.source} - {found.b.source}", head=_head(found, forest),
        sections=[
            Section("benchmarks", "Benchmark by benchmark", _tables(found)),
            Section("reading", "What to read from this", [Text(Markup("{}").format(line)) for line in reading(found)]),
            Section("notes", "Notes", [Text(Markup("{}").format(note)) for note in found.notes]),
            Section("changed", "Changed answers", _changed(found, items)),
            *ends[:1], Section("evaluation", "How both were evaluated", _evaluated(found)), *ends[1:],
        ],
        colours={state: place for state, place in PLACES.items() if state in drawn}, rates={}, datasets={"drops": rows},
        items=items, sides=("A", "B"), alone=True,
    )  # fmt: skip


def answer(found: Comparison) -> Markup:
    """What B lost, in one sentence."""
    counted_rows = [row for row in found.rows if row.role == "mean"]
    changed = [row for row in counted_rows if row.beyond_chance]
    tested = f"Holm over {len(counted_rows)} benchmarks" if len(counted_rows) > 1 else "at the 5 % level"
    told = listed([f"{row.benchmark} ({'lost' if row.drop > 0 else 'gained'} {100 * abs(row.drop):.1f})" for row in changed])
    beyond = f"Changed beyond chance ({tested}): {told if changed else 'none'}."
    if (mean := found.mean) is not None:
        about = f"on the mean of {mean.benchmarks} benchmarks"
        return Markup("{} {}").format(_lost(found, mean.drop, mean.ci_low, mean.ci_high, about), beyond)
    if counted_rows:
        row = counted_rows[0]
        return Markup("{} {}").format(_lost(found, row.drop, row.ci_low, row.ci_high, f"on {row.benchmark}"), beyond)
    return Markup("<b>{}</b> and <b>{}</b> share no benchmark that is part of a mean drop: see each below.").format(
        found.a.source, found.b.source
    )


def _lost(found: Comparison, drop: float, low: float | None, high: float | None, about: str) -> Markup:
    between = "no interval" if low is None or high is None else f"95 % interval of the drop {points(low)} to {points(high)}"
    what = "neither lost nor gained" if round(100 * drop, 1) == 0 else (
        f"{'lost' if drop > 0 else 'gained'} {100 * abs(drop):.1f} points")  # fmt: skip
    return Markup("Against <b>{}</b>, <b>{}</b> {} {} ({}).").format(found.a.source, found.b.source, what, about, between)


def _head(found: Comparison, forest: Chart | None) -> Head:
    counted_rows = [row for row in found.rows if row.role == "mean"]
    changed = sum(row.beyond_chance for row in counted_rows)
    chips = [Chip(f"{changed} of {counted(len(counted_rows), 'benchmark')} changed beyond chance")] if counted_rows else []
    return Head(
        kicker="Comparison of two models", question="What did B lose against A?", answer=answer(found),
        chips=[*chips, Chip("these two checkpoints only")], warnings=[],
        facts=[("A", _named(found.a)), ("B", _named(found.b)),
               ("Compared", Markup("{}, {}").format(counted(len(found.rows), "benchmark"),
                                                    counted(sum(row.n for row in found.rows), "question")))],
        words=WORDS, chart=forest, chart_note="Left of 0 B is better, right of 0 it is worse.",
    )  # fmt: skip


def _named(run: Run) -> Markup:
    model = run.model if run.model and run.model not in run.source else None
    return Markup("{}{}").format(run.source, f" ({model})" if model else "")


def _forest(found: Comparison) -> tuple[Chart | None, list[Shown]]:
    shown = [row for row in found.rows if row.unit == "fraction"]
    rows: list[Shown] = []
    for title, inside in (
        ("benchmarks", [row for row in shown if row.role == "mean"]),
        ("target", [row for row in shown if row.role == "target"]),
        ("beside", [row for row in shown if row.role == "beside"]),
    ):
        if inside:
            rows.append({"label": title, "header": True, "right": "lost, gained of n"})
            rows += [_drawn(row) for row in inside]
    if (mean := found.mean) is not None:
        rows.append({"label": "all together", "header": True})
        rows.append({"label": f"mean of {mean.benchmarks}", "benchmark": "mean", "state": MEAN, "drop": in_points(mean.drop),
                     "low": in_points(mean.ci_low), "high": in_points(mean.ci_high)})  # fmt: skip
    if not rows:
        return None, []
    rows = placed(rows)
    names = [state for state in PLACES if any(row.get("state") == state for row in rows)]
    scale = {"domain": names, "range": [f"var(--m{PLACES[state]})" for state in names]}
    chart = Chart(
        "drops", "Paired drop of every benchmark",
        interval_rows(
            rows, "drops", "drop A - B", room=130,
            encoding={"color": {"field": "state", "type": "nominal", "title": None, "scale": scale}},
            about=[{"field": "benchmark", "title": "benchmark"}, {"field": "state", "title": ""}],
            after=[{"field": "right", "title": "lost, gained of n"}],
        ),
        f"{len(shown)} paired drops with 95 % intervals.",
        f"{counted(len(shown), 'paired drop')}; lines: 95 % intervals; right: questions lost and gained",
    )  # fmt: skip
    return chart, rows


def _drawn(row: Row) -> Shown:
    state = TARGET if row.role == "target" else CHANGED if row.beyond_chance else UNCHANGED
    flips = "" if row.lost is None else f"{row.lost}, {row.gained} of {row.n:,}"
    return {"label": row.benchmark, "benchmark": row.benchmark, "state": state, "drop": in_points(row.drop),
            "low": in_points(row.ci_low), "high": in_points(row.ci_high), "right": flips}  # fmt: skip


def _tables(found: Comparison) -> list[Part]:
    parts: list[Part] = []
    for name, title, role in (
        ("retention", "part of the mean drop", "mean"),
        ("target", "the target of training, not part of the mean", "target"),
        ("beside", "beside, each in its own unit, never part of a mean", "beside"),
    ):
        rows = [asdict(row) for row in found.rows if row.role == role]
        columns = _FRACTIONS if all(row["unit"] == "fraction" for row in rows) else _OTHERS
        used = [column for column in columns if any(row[column.names[0]] is not None for row in rows)]
        if rows:
            parts += [*([Text(Markup("{}").format(f"{title}:".capitalize()), "soft")] if role != "mean" else [])]
            parts.append(Table(name, title, used, rows))
    return parts


def _items(found: Comparison) -> list[Shown]:
    """As many changed answers as a page can hold, taken in turn from benchmarks and directions."""
    apart: dict[tuple[str, bool], list[Flip]] = {}
    for flip in found.changed:
        apart.setdefault((flip.benchmark, flip.lost), []).append(flip)
    in_turn = [flip for round_ in zip_longest(*apart.values()) for flip in round_ if flip is not None]
    return [_item(flip) for flip in sorted(in_turn[:MOST], key=lambda flip: (not flip.lost, flip.benchmark))]


def _item(flip: Flip) -> Shown:
    before, after = flip.item, flip.after
    return {
        "benchmark": flip.benchmark, "method": "", "rate": "", "seed": None, "direction": "lost" if flip.lost else "gained",
        "item": f"{before.part} {before.doc_id}", "prompt": cut(before.prompt, end=True, most=LONGEST),
        "base_response": cut(answer_of(before, flip.metric), end=False, most=LONGEST),
        "response": cut(answer_of(after, flip.metric), end=False, most=LONGEST),
        "target": cut(before.target, end=False, most=LONGEST),
    }  # fmt: skip


def _changed(found: Comparison, items: Sequence[Shown]) -> list[Part]:
    if not items:
        return []
    all_of_them = len(items) == len(found.changed)
    some = f"all {len(items):,}" if all_of_them else f"{len(items):,} of {len(found.changed):,}, drawn evenly"
    note = f"Questions that only one of the two has right, {some}; texts over {LONGEST} characters are cut."
    return [Items(note)]


def _evaluated(found: Comparison) -> list[Part]:
    """Settings that both share, as unlike ones are refused; those of all benchmarks once."""
    names = {row.benchmark for row in found.rows}
    known = {x.name: x.settings for x in found.a.benchmarks if x.name in names and x.settings is not None}
    told: dict[tuple[str, str], list[str]] = {}
    for name, settings in known.items():
        for key, value in settings.items():
            told.setdefault((key, str(value)), []).append(name)
    rows = [
        {"setting": key, "value": value, "benchmarks": "all" if len(of) == len(known) else ", ".join(of)}
        for (key, value), of in told.items()
    ]
    columns = (Column("setting", "setting"), Column("value", "value", "long"), Column("benchmarks", "benchmarks", "long"))
    return [Table("evaluation", "settings of both", columns, rows, folded=True)] if rows else []
