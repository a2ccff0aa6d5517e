"""The two things that `retain simulate` runs: the published setting, and the sweep with its files.

The sweep owns `<home>/reports/simulate/`: `sweep.csv` (a row for each combination) and `sweep.svg`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from retain_core.settings import settings
from retain_core.simulate import sweep as sweeping
from retain_core.simulate.matched import EARLY_GAIN, PUBLISHED_GAIN, Gap, Outcome, gap, outcomes
from retain_core.simulate.published import LONGER, NO_FLOOR, RUNS, Comparison, compare, figures
from retain_core.simulate.records import cell_record, flat
from retain_core.stats.verdict import Prediction
from retain_core.store import write_atomically
from retain_core.warehouse.query import render

SEEDS = 100
SWEEP_SEEDS = 20

PAIRS: tuple[tuple[str, str, float, Prediction], ...] = (
    ("one mode forward", "one mode reverse", PUBLISHED_GAIN, "<"),
    ("one mode forward", "one mode reverse", EARLY_GAIN, "<"),
    ("one mode forward", NO_FLOOR, PUBLISHED_GAIN, "<"),
    ("two modes forward", "two modes reverse", PUBLISHED_GAIN, ">"),
    ("two modes forward", "two modes reverse", EARLY_GAIN, ">"),
    ("two modes forward lr .01", "two modes reverse", EARLY_GAIN, ">"),
    (LONGER, "two modes reverse", PUBLISHED_GAIN, ">"),
)
"""Which runs are set against each other, at which gain, and the sign of the drops' difference that the paper claims."""


@dataclass(frozen=True)
class Published:
    """The published setting over some seeds: every run, the gaps between them, and the printed figures beside."""

    seeds: int
    seed: int
    runs: dict[str, Outcome]
    gaps: list[tuple[str, str, float, Prediction, Gap]]
    comparisons: list[Comparison]


def run_published(seeds: int = SEEDS, seed: int = 0) -> Published:
    """Every run of the published setting, compared with one another and with what was printed."""
    with tqdm(total=seeds, unit="seed", leave=False, disable=None) as bar:
        runs = dict(zip(RUNS, outcomes(list(RUNS.values()), seeds, seed, tick=bar.update), strict=True))
    gaps = [(a, b, at, predict, _gap(runs[a], runs[b], at, predict)) for a, b, at, predict in PAIRS]
    return Published(seeds, seed, runs, gaps, [compare(figure, runs[figure.run]) for figure in figures()])


def run_sweep(seeds: int = SWEEP_SEEDS, seed: int = 0) -> tuple[list[sweeping.Cell], list[Path]]:
    """The sweep, and where its CSV and its chart were written."""
    from retain_core.simulate.chart import sweep_chart

    with tqdm(total=seeds * len(sweeping.SLOW_FACTORS), unit="seed", leave=False, disable=None) as bar:
        cells = sweeping.sweep(seeds, seed, bar.update)
    folder = settings().reports / "simulate"
    contents = {"sweep.csv": render(*flat([cell_record(c) for c in cells]), "csv") + "\n", "sweep.svg": sweep_chart(cells)}
    for name, text in contents.items():
        write_atomically(folder / name, text)
    return cells, [folder / name for name in contents]


def _gap(a: Outcome, b: Outcome, at: float, predict: Prediction) -> Gap:
    if at == PUBLISHED_GAIN:
        return gap(a.published, b.published, predict)
    return gap(a.early, b.early, predict)
