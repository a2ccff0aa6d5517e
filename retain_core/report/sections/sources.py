"""Where it comes from: changed answers, settings that differ, what was recorded."""

from __future__ import annotations

from markupsafe import Markup

from retain_core.report.changed import LONGEST, Changed
from retain_core.report.parts import Column, Items, Part, Row, Text
from retain_core.report.results import Results
from retain_core.report.sections.shared import METHOD, RATE, soft, table_of


def items(results: Results, changed: Changed) -> list[Part]:
    """Both answers side by side."""
    if not changed.total:
        return []
    shown = f"{len(changed.rows):,} of {changed.total:,}" if changed.sampled else f"all {changed.total:,}"
    how = ", drawn evenly over benchmarks, methods and directions" if changed.sampled else ""
    cut = f" Texts longer than {LONGEST} characters are cut ({changed.cut:,} texts)." if changed.cut else ""
    note = (
        "Questions that were right before and wrong after training (lost), or the other way round (gained), at the last "
        f"checkpoints: {shown} on this page{how}.{cut} All of them: retain sql \"FROM flips WHERE study = '{results.study}'\""
    )
    return [Items(note)]


def published(results: Results) -> list[Part]:
    """Printed gains and drops of the same model and target beside ours."""
    columns = [
        METHOD, RATE, Column("quantity", "what"), Column("ours", "ours", "number"),
        Column("ci_low,ci_high", "95 % interval", "numbers"), Column("seeds", "seeds", "count"),
        Column("published", "published", "number"), Column("verdict", "verdict"),
        Column("source", "source"), Column("table_name", "table"),
    ]  # fmt: skip
    table = table_of("published", "Ours and theirs (points)", columns, results.reproductions, "reproductions")
    lead = (
        "The published figures come from one seed, have no interval, and average over other benchmarks: that theirs lies in "
        "our interval does not say that both measured the same (deviations: docs/method.md)."
    )
    return [soft(lead), *table] if table else []


def differing(settings: tuple[list[str], list[Row]]) -> list[Part]:
    """Only what is not the same for all methods."""
    keys, rows = settings
    if not keys or len(rows) < 2:
        return []
    columns = [METHOD, *(Column(key, key.replace("_", " "), "code") for key in keys)]
    lead = (
        "Only what is not the same for every method; learning rates and seeds are the same grid for all. Empty: the method "
        "has no such dial."
    )
    return [soft(lead), *table_of("settings", "Dials that differ between methods", columns, rows)]


def provenance(results: Results, origin: list[tuple[str, str]]) -> list[Part]:
    """What was recorded, and how to repeat it."""
    rows = [{"what": what, "said": said} for what, said in origin]
    parts: list[Part] = [
        Text(Markup("Every number is computed from stored answers, question by question, paired with the base. Ask them "
        "yourself: "
                    "<code>retain sql \"FROM forgetting WHERE study = '{}'\"</code>").format(results.study)),
        *table_of("provenance", "What made these numbers", [Column("what", "what"), Column("said", "recorded", "long")], rows),
    ]  # fmt: skip
    if results.spec.get("budget"):
        parts.append(Text(Markup(
            "To repeat it: check out the commit above, then <code>retain run study.yaml</code> with the "
            "<code>study.yaml</code> beside this page. Arms that are already there are not trained again; on the same "
            "platform with the same packages a new home gives the same numbers to the last bit."
        )))  # fmt: skip
    files = "gain_drop.svg and every other chart as SVG, every table as CSV, headline.md and headline.tex"
    return [*parts, soft(f"Beside this page: {files}.")]
