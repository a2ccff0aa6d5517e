"""What `retain simulate` prints."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import get_args

from retain_core.errors import InputError
from retain_core.simulate import sweep as sweeping
from retain_core.simulate.dynamics import SAMPLES
from retain_core.simulate.matched import EARLY_GAIN, PUBLISHED_GAIN, Summary, summarise
from retain_core.simulate.published import LONGER, NO_FLOOR, values_of
from retain_core.simulate.records import Row, Table, cell_record, comparison_record, flat, gap_record, run_record
from retain_core.simulate.run import SEEDS, SWEEP_SEEDS, Published, run_published, run_sweep
from retain_core.warehouse.query import Format, render


def toy_text(toy: str, seeds: int | None, seed: int, sweep: bool, form: str) -> str:
    """The simulation asked for: `mixture`, or `parity` (which has no sweep). Raises InputError for any other."""
    if toy == "mixture":
        return simulate_text(seeds, seed, sweep, form)
    if toy != "parity":
        raise InputError(f"unknown toy {toy!r}; known: mixture, parity")
    if sweep:
        raise InputError("--sweep turns the dials of the mixture; the parity toy has none")
    from retain_core.parity.text import parity_text

    return parity_text(seeds, seed, form)


def simulate_text(seeds: int | None, seed: int, sweep: bool, form: str) -> str:
    """The published setting, or the sweep with its two files, in one of the formats of `retain sql`.

    Raises InputError for an unknown format, fewer than one seed or a negative stream.
    """
    if form not in get_args(Format):
        raise InputError(f"unknown format {form!r}; known: {', '.join(get_args(Format))}")
    if sweep:
        cells, paths = run_sweep(SWEEP_SEEDS if seeds is None else seeds, seed)
        return sweep_text(cells, seed, paths, form)
    return published_text(run_published(SEEDS if seeds is None else seeds, seed), form)


def published_text(found: Published, form: str) -> str:
    """The published setting as text: CSV holds a row for each run, the other formats everything."""
    document = {
        "simulation": "gaussian mixture", "source": "arXiv 2510.18874", "seeds": found.seeds, "seed": found.seed,
        "samples_per_step": SAMPLES, "gain": PUBLISHED_GAIN, "early_gain": EARLY_GAIN,
        "runs": [run_record(name, outcome) for name, outcome in found.runs.items()],
        "gaps": [gap_record(*row) for row in found.gaps],
        "published": [comparison_record(row) for row in found.comparisons],
        "remarks": _remarks(found),
    }  # fmt: skip
    if form == "json":
        return json.dumps(document, indent=1, allow_nan=False)
    if form == "csv":
        return render(*flat(document["runs"]), "csv")  # type: ignore[arg-type]
    head = (
        "Forward against reverse KL on a mixture of two normals, the published setting of arXiv 2510.18874.\n"
        f"Seeds: {found.seeds}, stream {found.seed}, {SAMPLES} samples a step. Gain and drop are shares of the new and the "
        "old mode; intervals are 95 % over seeds."
    )
    parts = [
        head, f"At the first step with a gain of {PUBLISHED_GAIN}:", _show(_first_crossings(found), form),
        f"At a gain of exactly {EARLY_GAIN} and {PUBLISHED_GAIN}, and at the last step:", _show(_exact_gains(found), form),
        "Drop of forward minus drop of reverse at exactly the same gain:", _show(_gap_table(found), form),
        "Beside the printed figures (paper: one run of one seed; rerun: a re-implementation, 10 seeds):",
        _show(_comparison_table(found), form), "\n".join(_remarks(found)),
    ]  # fmt: skip
    return "\n\n".join(parts)


def sweep_text(cells: list[sweeping.Cell], seed: int, paths: list[Path], form: str) -> str:
    """The sweep as text."""
    records = [cell_record(cell) for cell in cells]
    if form == "json":
        document = {
            "simulation": "gaussian mixture sweep", "source": "arXiv 2510.18874", "seeds": cells[0].seeds, "seed": seed,
            "samples_per_step": SAMPLES, "gain": PUBLISHED_GAIN, "most_steps": sweeping.MOST_STEPS, "cells": records,
            "remarks": _sweep_remarks(cells), "files": [str(path) for path in paths],
        }  # fmt: skip
        return json.dumps(document, indent=1, allow_nan=False)
    if form == "csv":
        return render(*flat(records), "csv")
    head = (
        f"Two modes at a gain of exactly {PUBLISHED_GAIN}, at most {sweeping.MOST_STEPS} steps. Seeds: {cells[0].seeds}, "
        f"stream {seed}.\nGap is the drop of forward minus the drop of reverse KL, predicted above 0. Published are samples of "
        "the new mode, slow .005, beta .1."
    )
    written = "\n".join(f"written: {path}" for path in paths)
    return "\n\n".join([head, _show(_sweep_table(cells), form), "\n".join(_sweep_remarks(cells)), written])


def _show(table: Table, form: str) -> str:
    text = render(*table, form)  # type: ignore[arg-type]
    return text.rsplit("\n", 1)[0] if form == "table" else text


def _first_crossings(found: Published) -> Table:
    rows: list[Row] = []
    for name, outcome in found.runs.items():
        first = outcome.published
        step, gain, drop = (summarise(values) for values in (first.step, first.gain, first.drop))
        rows.append(
            (
                name, f"{outcome.setting.learning_rate:g}", f"{int(values_of(outcome, 'reached').sum())}/{found.seeds}",
                f"{step.mean:.1f}" if step else "not reached", f"{gain.mean:.3f}" if gain else "", _interval(drop),
                _number(drop.sd if drop else None), _number(drop.median if drop else None),
            )
        )  # fmt: skip
    return ["run", "lr", "reached", "step", "gain", "drop", "sd", "median"], rows


def _exact_gains(found: Published) -> Table:
    rows: list[Row] = []
    for name, outcome in found.runs.items():
        last = (outcome.last_gain, outcome.last_drop, outcome.last_parameters[0])
        known = [summarise(values) for values in (last if outcome.setting.until is None else ())]
        exact = (summarise(crossing.drop_exactly) for crossing in (outcome.early, outcome.published))
        rows.append(
            (
                name, *(_interval(drop) if drop else "not reached" for drop in exact),
                outcome.setting.iterations if known else None, *([_number(_mean(k)) for k in known] or [""] * 3),
            )
        )  # fmt: skip
    at = (f"drop at {EARLY_GAIN}", f"drop at {PUBLISHED_GAIN}")
    return ["run", *at, "last step", "gain", "drop", "weight of old mode"], rows


def _gap_table(found: Published) -> Table:
    rows = [
        (a, b, at, f"{predict} 0", _interval(result.gap, sign="+"), result.verdict) for a, b, at, predict, result in found.gaps
    ]
    return ["forward", "reverse", "at gain", "predicted", "gap", "verdict"], rows


def _comparison_table(found: Published) -> Table:
    rows = [
        (
            row.figure.run, row.figure.quantity, row.figure.printed, row.figure.status,
            "not reached" if row.here is None else f"{row.here:.3f}", _number(row.sd),
            {True: "yes", False: "no", None: ""}[row.agrees],
        )
        for row in found.comparisons
    ]  # fmt: skip
    return ["run", "quantity", "printed", "status", "here", "sd", "agrees"], rows


def _sweep_table(cells: list[sweeping.Cell]) -> Table:
    rows = [
        (
            cell.sampling.samples, cell.sampling.reward, f"{cell.slow:g}", f"{cell.beta:g}", _number(_mean(cell.forward)),
            _number(_mean(cell.reverse)) or f"gain {cell.reverse_last_gain:.2f}", _interval(cell.gap, sign="+"),
            cell.verdict + (" (both lost all)" if cell.saturated else ""),
        )
        for cell in sorted(cells, key=lambda c: sweeping.SAMPLINGS.index(c.sampling))
    ]  # fmt: skip
    return ["samples", "reward", "slow", "beta", "forward", "reverse", "gap", "verdict"], rows


def _remarks(found: Published) -> list[str]:
    """Where the printed figures differ, and what can be read off the gaps only with care."""
    off = [row for row in found.comparisons if row.agrees is False]
    told = [row for row in found.comparisons if row.agrees is not None]
    lines = ["One seed cannot tell which printed figures agree."]
    if told:
        lines = [f"{len(told) - len(off)} of {len(told)} printed figures agree with what is seen here."]
    lines += [
        f"Differs: {row.figure.run}, {row.figure.quantity}: printed {row.figure.printed}, "
        + ("here not every seed reaches the gain." if row.here is None else f"here {row.here:.3f}.")
        for row in off
    ]
    floor, none = (summarise(found.runs[name].published.drop_exactly) for name in ("one mode reverse", NO_FLOOR))
    if floor and none:
        lines.append(
            f"One mode, reverse KL: the drop of {floor.mean:.2f} needs the floor of 1e-12 inside the logarithm of the reward; "
            f"without it, as in the formula, the drop is {none.mean:.2f}."
        )
    fast, longer = (summarise(found.runs[name].published.drop_exactly) for name in ("two modes forward", LONGER))
    if fast and longer:
        lines.append(
            f"Two modes: forward KL drops {fast.mean:.3f} at its own learning rate of .15, and {longer.mean:.3f} at that of "
            "reverse KL, .01: a part of the published gap is the learning rate."
        )
    return lines


def _sweep_remarks(cells: list[sweeping.Cell]) -> list[str]:
    words = dict.fromkeys(cell.verdict for cell in cells)
    counts = ", ".join(f"{word} in {sum(cell.verdict == word for cell in cells)}" for word in words)
    lost = sum(cell.saturated for cell in cells)
    lines = [f"Of {len(cells)} combinations: {counts}."]
    if lost:
        lines.append(f"In {lost} of them both lost nearly all of the old mode: that they are alike there says nothing.")
    return lines


def _mean(found: Summary | None) -> float | None:
    return found.mean if found else None


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.3f}"


def _interval(found: Summary | None, sign: str = "") -> str:
    if found is None:
        return "not reached" if sign else ""
    if math.isnan(found.low):
        return f"{found.mean:{sign}.3f}"
    return f"{found.mean:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"
