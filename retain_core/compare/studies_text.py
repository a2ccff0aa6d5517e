"""Two studies as text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from retain_core.arms import rate_text
from retain_core.compare.studies import INDEPENDENT, PAIRED, SAME, MethodRow, Side, StudiesCompared
from retain_core.compare.text import aligned, gap, p_text, points
from retain_core.imported.samples import count
from retain_core.stats.crossed import THESE_SEEDS, Interval
from retain_core.warehouse.query import Format, render

COLUMNS = (
    "method", "learning_rate", "seeds_a", "seeds_b", "gain_a", "gain_a_low", "gain_a_high", "gain_b", "gain_b_low",
    "gain_b_high", "gain_diff", "gain_diff_low", "gain_diff_high", "drop_a", "drop_a_low", "drop_a_high", "drop_b",
    "drop_b_low", "drop_b_high", "diff", "ci_low", "ci_high", "df", "p_value", "p_adjusted", "pairing", "rule",
)  # fmt: skip
"""Of `--format csv` and `--format json`: fractions, as in the warehouse; differences are a - b."""


_NOT_OF_ARMS = ("seeds", "learning_rates", "retention", "evaluation")
"""Settings that decide which arms there are and what they are asked, not how one is trained."""


def studies_text(found: StudiesCompared, form: Format) -> str:
    """Two studies side by side."""
    if form in ("csv", "json"):
        return render(list(COLUMNS), [tuple(study_row(row)[c] for c in COLUMNS) for row in found.rows], form)
    blocks = [_heading(found), _settings(found, form), _table(found, form), "\n".join(reading(found))]
    if found.notes:
        blocks.append("\n".join(f"Note: {note}" for note in found.notes))
    return "\n\n".join(blocks)


def study_row(row: MethodRow) -> dict[str, float | str | None]:
    """One row as it stands in csv and json. The same arms have no intervals: nothing was compared."""
    drop, gain = row.drop, row.gain
    if row.pairing == SAME:
        drop = _without_interval(drop)
        gain = _without_interval(gain) if gain else None
    return {
        "method": row.method, "learning_rate": row.learning_rate, "seeds_a": row.a.seeds, "seeds_b": row.b.seeds,
        **_three("gain_a", row.a.gain), **_three("gain_b", row.b.gain), **_three("gain_diff", gain),
        **_three("drop_a", row.a.drop), **_three("drop_b", row.b.drop), "diff": _known(drop.estimate),
        "ci_low": _known(drop.low), "ci_high": _known(drop.high), "df": _known(drop.df), "p_value": _p(row),
        "p_adjusted": _known(row.p_adjusted), "pairing": row.pairing, "rule": drop.rule,
    }  # fmt: skip


def _without_interval(interval: Interval) -> Interval:
    return replace(interval, low=math.nan, high=math.nan, df=math.nan)


def _three(name: str, interval: Interval | None) -> dict[str, float | str | None]:
    values = (None, None, None) if interval is None else (interval.estimate, interval.low, interval.high)
    return {f"{name}{end}": _known(value) for end, value in zip(("", "_low", "_high"), values, strict=True)}


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _p(row: MethodRow) -> float | None:
    return 1.0 if row.pairing == SAME else _known(row.drop.p_value())


def _heading(found: StudiesCompared) -> str:
    sides = [f"{side}: {of.study} (base {of.spec['base']['model']}{f', target {of.target}' if of.target else ''})"
             for side, of in (("A", found.a), ("B", found.b))]  # fmt: skip
    return "\n".join(
        [*sides, "Drops at the last checkpoints, in points. Difference is drop of A - drop of B: + means that A lost more."]
    )


def _settings(found: StudiesCompared, form: Format) -> str:
    if not found.settings:
        return "No setting of the studies differs."
    cells = [[_short(text) for text in setting] for setting in found.settings]
    return f"Settings that differ:\n{gap(form)}{aligned(('setting', 'A', 'B'), cells, 3, form)}"


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 2]} …"


def _table(found: StudiesCompared, form: Format) -> str:
    names = [
        "method", "learning rate", "seeds", "gain A", "gain B", "drop A", "drop B", "difference", "95 % interval", "p",
        "p (BH)", "how",
    ]  # fmt: skip
    cells = [
        [
            row.method, "" if row.learning_rate is None else rate_text(row.learning_rate), _seeds(row), _gain(row.a),
            _gain(row.b), points(row.a.drop.estimate), points(row.b.drop.estimate), points(row.drop.estimate),
            _interval(row), p_text(_p(row)), p_text(_known(row.p_adjusted)), row.pairing,
        ]
        for row in found.rows
    ]  # fmt: skip
    return aligned(names, cells, 1, form)


def _seeds(row: MethodRow) -> str:
    return str(row.a.seeds) if row.a.seeds == row.b.seeds else f"{row.a.seeds}, {row.b.seeds}"


def _gain(side: Side) -> str:
    return "" if side.gain is None else points(side.gain.estimate)


def _interval(row: MethodRow) -> str:
    if math.isnan(row.drop.low):
        return "refused"
    return "none" if row.pairing == SAME else f"[{points(row.drop.low)}, {points(row.drop.high)}]"


def reading(found: StudiesCompared) -> list[str]:
    """What to read into the table, and what not."""
    tested = any(row.pairing != SAME for row in found.rows)
    return [*_findings(found), *(_limits(found) if tested else ())]


def headline(found: StudiesCompared) -> str:
    """The answer in one sentence."""
    tested = [row for row in found.rows if row.pairing != SAME]
    if not tested:
        return (
            "Every method that both have was trained once and is named by both: the same arms, so there is nothing to compare."
        )
    changed = [row for row in tested if row.beyond_chance]
    told = [
        f"{_label(row)} lost {100 * abs(row.drop.estimate):.1f} points {'more' if row.drop.estimate > 0 else 'less'} in A"
        for row in changed
    ]
    over = f" (Benjamini-Hochberg over {len(tested)} rows)" if len(tested) > 1 else ""
    return f"Drops differ beyond chance at the 5 % level{over}: {', '.join(told) or 'none'}."


def _findings(found: StudiesCompared) -> Iterator[str]:
    benchmarks = count(len(found.benchmarks), "retention benchmark", "retention benchmarks")
    yield f"Drop is the mean over the {benchmarks} of both: {', '.join(found.benchmarks)}."
    yield headline(found)
    how = {row.pairing for row in found.rows}
    if SAME in how and len(how) > 1:
        yield "Same arms: trained once and named by both studies, so the difference is 0 whatever the seeds do; no comparison."
    if PAIRED in how:
        yield "Paired: same base, items and settings, so the base cancels; the interval is over items and seeds."
    if INDEPENDENT in how:
        yield "Independent: each drop has its own items or base, so the two standard errors add in squares."
    if any(row.drop.rule == THESE_SEEDS and row.pairing != SAME for row in found.rows):
        yield "A method with one seed on a side has an interval over items only: it speaks for these seeds, not for others."
    for side, only in (("A", found.only_a), ("B", found.only_b)):
        if only:
            yield f"Only in {side}: {', '.join(only)}."


def _limits(found: StudiesCompared) -> Iterator[str]:
    if found.same_base:
        yield "One base stands behind both: another base would give other differences."
    else:
        yield (
            "The bases differ: a row says how one recipe fared on two bases, each drop against its own. It does not say what "
            "about the bases made the difference, and it speaks for these two bases only."
        )
    if not found.same_target:
        yield (
            "The targets differ: the two gains are on different questions, so neither a difference in gain nor a drop at equal "
            "gain can be read from this."
        )
    else:
        yield "These are not drops at equal gain: read every drop beside its gain."
    if len([setting for setting in found.settings if not setting.name.startswith(_NOT_OF_ARMS)]) > 1:
        yield "Several settings differ at once: a difference cannot be put down to one of them."
    yield "No study declared these differences before training: they are exploratory."


def _label(row: MethodRow) -> str:
    return row.method if row.learning_rate is None else f"{row.method} at {rate_text(row.learning_rate)}"
