"""Two models as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import zip_longest

from retain_core.compare.runs import Comparison, Flip, Row
from retain_core.imported.samples import Item
from retain_core.warehouse.query import Format, render

COLUMNS = (
    "benchmark", "metric", "role", "unit", "n", "clusters", "score_a", "score_b", "drop", "ci_low", "ci_high", "lost", "gained",
    "p_value", "p_holm", "detectable", "choices", "drop_chance_corrected",
)  # fmt: skip
"""Of `--format csv` and `--format json`: fractions, as in the warehouse."""
LONGEST = 1000
"""Characters of a prompt or answer that `--flips` prints."""


def runs_text(comparison: Comparison, flips: int, form: Format) -> str:
    """Two models as text; `flips` is how many lost items are printed with both answers."""
    if form in ("csv", "json"):
        rows = [tuple(asdict(row)[c] for c in COLUMNS) for row in comparison.rows]
        if (mean := comparison.mean) is not None:
            told = {"benchmark": "(mean)", "role": "mean", "unit": "fraction", "drop": mean.drop, "ci_low": mean.ci_low}
            told["ci_high"] = mean.ci_high
            rows.append(tuple(told.get(c) for c in COLUMNS))
        return render(list(COLUMNS), rows, form)
    blocks = [heading(comparison), *tables(comparison, form), "\n".join(reading(comparison))]
    if comparison.notes:
        blocks.append("\n".join(f"Note: {note}" for note in comparison.notes))
    if flips:
        blocks.append(_flips(comparison, flips))
    return "\n\n".join(blocks)


def heading(found: Comparison) -> str:
    """Which two models, and what a drop is."""
    lines = [f"{side}: {run.source}" + (f" ({run.model})" if run.model and run.model not in run.source else "")
             for side, run in (("A", found.a), ("B", found.b))]  # fmt: skip
    return "\n".join([*lines, "Drop is A - B on the same items, in points: + means that B lost, - that B gained."])


def tables(found: Comparison, form: Format) -> Iterator[str]:
    """A table for each role that there is."""
    counted = [row for row in found.rows if row.role == "mean"]
    if counted:
        yield _table(counted, form)
    targets = [row for row in found.rows if row.role == "target"]
    if targets:
        yield f"The target of training, not part of the mean:\n{gap(form)}{_table(targets, form)}"
    beside = [row for row in found.rows if row.role == "beside"]
    if beside:
        yield f"Beside, each in its own unit (higher is better), never part of a mean:\n{gap(form)}{_table(beside, form)}"


def gap(form: Format) -> str:
    """What Markdown needs between a line and a table."""
    return "\n" if form == "markdown" else ""


def _table(rows: Sequence[Row], form: Format) -> str:
    names = ["benchmark", "metric", "n", "A", "B", "drop", "95 % interval", "lost", "gained", "p", "p (Holm)", "detectable"]
    if any(row.clusters is not None for row in rows):
        names.insert(3, "clusters")
    cells = [_cells(row, names) for row in rows]
    return aligned(names, cells, 2, form)


def aligned(names: Sequence[str], cells: Sequence[Sequence[str]], left: int, form: Format) -> str:
    """A table of text whose first `left` columns are flush left and whose others are flush right."""
    widths = [max(len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(names)]
    # Everything but names reads better to the right; text cells are not moved by `render`.
    heads, *padded = [
        [c if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))] for row in (names, *cells)
    ]
    text = render(heads, [tuple(row) for row in padded], form)
    return text.rsplit("\n", 1)[0] if form == "table" else text


def _cells(row: Row, names: Sequence[str]) -> list[str]:
    interval = "refused" if row.ci_low is None else f"[{_signed(row.ci_low, row)}, {_signed(row.ci_high, row)}]"
    told = {
        "benchmark": row.benchmark, "metric": row.metric, "n": str(row.n), "clusters": _whole(row.clusters),
        "A": _plain(row.score_a, row), "B": _plain(row.score_b, row), "drop": _signed(row.drop, row), "95 % interval": interval,
        "lost": _whole(row.lost), "gained": _whole(row.gained), "p": p_text(row.p_value), "p (Holm)": p_text(row.p_holm),
        "detectable": "" if row.detectable is None else _plain(row.detectable, row),
    }  # fmt: skip
    return [told[name] for name in names]


def _plain(value: float, row: Row) -> str:
    if row.unit == "fraction":
        return f"{100 * value:.1f}"
    return f"{value:.4g}" + (" nats" if row.unit == "nats" else "")


def _signed(value: float | None, row: Row) -> str:
    if value is None:
        return ""
    if row.unit == "fraction":
        return points(value)
    return f"{value:+.3g}"


def points(fraction: float) -> str:
    """A difference in points, with its sign; 0.0 without one."""
    text = f"{100 * fraction:+.1f}"
    return "0.0" if float(text) == 0 else text


def _whole(value: int | None) -> str:
    return "" if value is None else str(value)


def p_text(value: float | None) -> str:
    """A p-value, empty where there is none."""
    if value is None:
        return ""
    return "<0.0001" if value < 0.0001 else f"{value:.2g}" if value < 0.01 else f"{value:.2f}"


def reading(found: Comparison) -> list[str]:
    """What to read into the table."""
    counted = [row for row in found.rows if row.role == "mean"]
    lines = []
    if (mean := found.mean) is not None:
        interval = "no interval" if mean.ci_low is None or mean.ci_high is None else (
            f"95 % interval {points(mean.ci_low)} to {points(mean.ci_high)}")  # fmt: skip
        lines.append(f"Mean drop over these {mean.benchmarks} benchmarks: {points(mean.drop)} points ({interval}).")
    changed = [row for row in counted if row.beyond_chance]
    tested = f" (Holm over {len(counted)} benchmarks)" if len(counted) > 1 else ""
    told = [f"{row.benchmark} {'lost' if row.drop > 0 else 'gained'} {100 * abs(row.drop):.1f} points" for row in changed]
    if counted:
        lines.append(f"Changed beyond chance at the 5 % level{tested}: {', '.join(told) or 'no benchmark'}.")
    for row in counted:
        flips = (row.lost or 0) + (row.gained or 0)
        if row.lost is not None and row.gained is not None and flips >= 3 * abs(row.lost - row.gained) and flips:
            lines.append(
                f"{row.benchmark}: {flips} of {row.n} answers flipped ({row.lost} lost, {row.gained} gained), which the net "
                f"of {points(row.drop)} points hides."
            )
        if row.lost == row.gained == 0:
            lines.append(f"{row.benchmark}: 0 of {row.n} answers flipped (so at most {300 / row.n:.1f} % do, 95 % sure).")
    seen = [row for row in counted if row.detectable is not None]
    if seen:
        lines.append(
            "Detectable is the smallest true drop that a comparison like this one finds 4 times in 5: a smaller one is not "
            "excluded by a large p."
        )
    lines.append("This speaks for these two checkpoints only: training B again with another seed would give other numbers.")
    return lines


def _flips(found: Comparison, most: int) -> str:
    """Up to `most` lost items, taken in turn from the benchmarks."""
    by_benchmark: dict[str, list[Flip]] = {}
    for flip in found.lost:
        by_benchmark.setdefault(flip.benchmark, []).append(flip)
    in_turn = [flip for round_ in zip_longest(*by_benchmark.values()) for flip in round_ if flip is not None][:most]
    if not in_turn:
        return "No item was lost."
    return "\n\n".join([f"Lost items, {len(in_turn)} of {len(found.lost)}:", *(_flip(flip) for flip in in_turn)])


def _flip(flip: Flip) -> str:
    before, after = flip.item, flip.after
    lines = [f"--- {before.part}, doc_id {before.doc_id}, {flip.metric}"]
    told = (
        ("prompt", before.prompt),
        ("A", answer_of(before, flip.metric)),
        ("B", answer_of(after, flip.metric)),
        ("target", before.target),
    )
    for name, text in told:
        lines.append(f"{name + ':':8}" + cut(text, end=name == "prompt").replace("\n", "\n        "))
    return "\n".join(lines)


def answer_of(item: Item, metric: str) -> str:
    """The answer, and what the metric read from it where that is another text."""
    read = item.extracted.get(metric, item.response)
    if item.choices:
        return read
    return item.response if read in ("", item.response) else f"{item.response}   (read as {read})"


def cut(text: str, *, end: bool, most: int = LONGEST) -> str:
    """At most so many characters: the end of a prompt, the beginning of an answer."""
    if len(text) <= most:
        return text
    return f"[{len(text) - most} characters] … {text[-most:]}" if end else f"{text[:most]} … [{len(text) - most} characters]"
