"""What `retain simulate --toy parity` prints."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, get_args

import numpy as np

from retain_core.errors import InputError
from retain_core.parity.law import Law
from retain_core.parity.methods import ARMS
from retain_core.parity.network import SIZES
from retain_core.parity.published import SOURCE, Figure, published_r2
from retain_core.parity.run import SEEDS, Parity, points_csv, run_parity, write_files
from retain_core.parity.training import HIGHEST
from retain_core.simulate.matched import Summary
from retain_core.stats.law import LawRow
from retain_core.warehouse.query import Format, render

NETWORK = "-".join(str(size) for size in SIZES)
Record = dict[str, Any]
Table = tuple[list[str], list[tuple[Any, ...]]]


def parity_text(seeds: int | None, seed: int, form: str) -> str:
    """Run the toy, write its two files, and say what came out, in one of the formats of `retain sql`.

    Raises InputError for an unknown format, fewer than one seed or a negative stream.
    """
    if form not in get_args(Format):
        raise InputError(f"unknown format {form!r}; known: {', '.join(get_args(Format))}")
    found = run_parity(SEEDS if seeds is None else seeds, seed)
    return found_text(found, write_files(found), form)


def found_text(found: Parity, paths: list[Path], form: str) -> str:
    """A run as text: CSV holds a row for each checkpoint, the other formats what is read off them."""
    if form == "csv":
        return points_csv(found.points)
    printed = published_r2()
    if form == "json":
        return json.dumps(_document(found, printed, paths), indent=1, allow_nan=False)
    new, old = (np.mean([getattr(b, name) for b in found.bases]) for name in ("accuracy", "old_accuracy"))
    head = (
        f"The parity toy of arXiv {SOURCE}: a network of {NETWORK} units learns the parity of digits and forgets its old job.\n"
        f"Seeds (bases): {found.seeds}, stream {found.seed}, {len(found.points)} checkpoints of {len(ARMS)} arms. Before: "
        f"parity {new:.3f}, old job {old:.3f}."
    )
    parts = [
        head,
        f"R2 of a quadratic fit of drop on each predictor, learning rates up to {HIGHEST:g} as published. Within a base: mean, "
        "and sd over\nbases; lead: that of forward KL less this one. Left out: each arm predicted by the others, all bases "
        "together, interval over whole runs.",
        _show(_law_table(found.published, printed), form),
        "With the larger learning rates too:", _show(_law_table(found.everything, {}), form),
        f"One arm against the curve of the others in forward KL (nats), learning rates up to {HIGHEST:g}. Errors in points of "
        "drop, beside the sd\nof the arm's drops; within: no further than the KL of the others.",
        _show(_left_out_table(found), form),
        "Drop of the old job, in points, where parity has gained the same (learning rate chosen on other images):",
        _show(_matched_table(found), form),
        "Drop of a minus drop of b there, in points:", _show(_contrast_table(found), form), "\n".join(_remarks(found, printed)),
        "\n".join(f"written: {path}" for path in paths),
    ]  # fmt: skip
    return "\n\n".join(parts)


def _document(found: Parity, printed: dict[str, Figure], paths: list[Path]) -> Record:
    return {
        "simulation": "parity", "source": f"arXiv {SOURCE}", "seeds": found.seeds, "seed": found.seed,
        "network": list(SIZES), "learning_rates": list(found.setting.learning_rates), "published_up_to": HIGHEST,
        "checkpoints": list(found.setting.checkpoints), "points": len(found.points),
        "bases": [base._asdict() for base in found.bases],
        "law": [_law_record(law, printed.get(law.predictor)) for law in found.published],
        "law_all_learning_rates": [_law_record(law, None) for law in found.everything],
        "left_out_arms": [{name: _or_null(value) for name, value in row._asdict().items()} for row in found.left_out],
        "matched": [
            {
                "arm": row.arm, "gain": row.gain, "learning_rate": row.learning_rate, "at_edge": row.at_edge,
                "step": _or_null(row.step), "drop": _summary(row.summary),
            }
            for row in found.matched
        ],
        "contrasts": [row._asdict() | {"difference": _summary(row.difference)} for row in found.contrasts],
        "remarks": _remarks(found, printed), "files": [str(path) for path in paths],
    }  # fmt: skip


def _law_record(law: Law, printed: Figure | None) -> Record:
    row = law.pooled
    return {
        "predictor": law.predictor, "published": printed.value if printed else None, "note": printed.note if printed else None,
        "r2_within": _or_null(law.inside), "r2_within_sd": _or_null(law.inside_sd),
        "lead": _summary(law.lead),
        "r2_left_out_within": _or_null(law.left_out), "r2_left_out_within_sd": _or_null(law.left_out_sd),
        "r2_pooled": _or_null(row.r2_in), "r2_left_out": _or_null(row.r2_left_out),
        "low": _or_null(row.low), "high": _or_null(row.high), "kl_better": _or_null(row.kl_better),
        "beats_all": row.beats_all_trivial, "checkpoints": row.n_checkpoints, "runs": row.n_runs,
    }  # fmt: skip


def _law_table(found: list[Law], printed: dict[str, Figure]) -> Table:
    rows = []
    for law in found:
        figure = printed.get(law.predictor)
        known = (f"{figure.value:.2f}" if figure else "",) if printed else ()
        lead = _interval(law.lead, "+", 1, 3) if law.lead else ""
        rows.append((law.predictor, *known, _with_sd(law.inside, law.inside_sd), lead, *_pooled(law.pooled)))
    return ["predictor", *(["published"] if printed else []), "within a base", "lead", "all bases", "left out"], rows


def _left_out_table(found: Parity) -> Table:
    rows = [
        (
            row.arm, f"{row.largest:.2f}", f"{row.others:.2f}", f"{100 * row.spread:.1f}", f"{100 * row.error:.1f}",
            f"{100 * row.error_within:.1f}", f"{100 * row.bias_within:+.1f}",
        )
        for row in found.left_out
    ]  # fmt: skip
    return ["arm", "largest KL", "of the others", "sd", "error", "error within", "bias within"], rows


def _matched_table(found: Parity) -> Table:
    rows = [
        (
            row.gain, row.arm, f"{row.learning_rate:.1e}" + (" (edge)" if row.at_edge else "") if row.learning_rate else "",
            "" if math.isnan(row.step) else f"{row.step:.0f}", _interval(row.summary),
        )
        for row in found.matched
    ]  # fmt: skip
    return ["gain", "arm", "lr", "step", "drop"], rows


def _contrast_table(found: Parity) -> Table:
    rows = [
        (row.gain, row.a, row.b, f"{row.predict} 0", _interval(row.difference, "+"), row.verdict) for row in found.contrasts
    ]
    return ["gain", "a", "b", "predicted", "difference", "verdict"], rows


def _remarks(found: Parity, printed: dict[str, Figure]) -> list[str]:
    """How the law compares with the printed one, and what can be read off only with care."""
    first, *others = found.published
    figure = printed[first.predictor]
    lines = [
        f"Printed for {first.predictor}: {figure.value:g} ({figure.note}). Here {_with_sd(first.inside, first.inside_sd)}, and "
        f"{found.everything[0].inside:.3f} with the larger learning rates."
    ]
    level = [f"{law.predictor} ({law.inside:.3f})" for law in others if law.lead and not law.lead.low > 0]
    if level:
        lines.append(f"Within a base {first.predictor} is not shown to predict better than {', '.join(level)}.")
    ahead = [law for law in others if law.pooled.r2_left_out > first.pooled.r2_left_out]
    if ahead:
        named = ", ".join(f"{law.predictor} ({law.pooled.r2_left_out:.3f})" for law in ahead)
        lines.append(f"With one arm left out it predicts worse ({first.pooled.r2_left_out:.3f}) than {named}.")
    worst = max(found.left_out, key=lambda row: row.error)
    if worst.largest > worst.others:
        lines.append(
            f"Its largest error is on {worst.arm}: there KL goes to {worst.largest:.1f} nats, in the other arms to "
            f"{worst.others:.1f}, and a quadratic does not extrapolate. Up to there the error is "
            f"{100 * worst.error_within:.1f} points, not {100 * worst.error:.1f}."
        )
    return lines


def _show(table: Table, form: str) -> str:
    text = render(*table, form)  # type: ignore[arg-type]
    return text.rsplit("\n", 1)[0] if form == "table" else text


def _pooled(row: LawRow) -> tuple[str, str]:
    left_out = row.reason or f"{row.r2_left_out:.3f} [{row.low:.3f}, {row.high:.3f}]"
    return f"{row.r2_in:.3f}", left_out


def _with_sd(mean: float, sd: float) -> str:
    return f"{mean:.3f}" if math.isnan(sd) else f"{mean:.3f} (sd {sd:.3f})"


def _interval(found: Summary | None, sign: str = "", scale: int = 100, digits: int = 1) -> str:
    """Mean and interval over bases, in points unless scaled otherwise."""
    if found is None:
        return "not reached"
    mean, low, high = (f"{scale * value:{sign}.{digits}f}" for value in (found.mean, found.low, found.high))
    return mean if math.isnan(found.low) else f"{mean} [{low}, {high}]"


def _summary(found: Summary | None) -> Record | None:
    return {name: _or_null(value) for name, value in found._asdict().items()} if found else None


def _or_null(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
