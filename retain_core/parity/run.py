"""What `retain simulate --toy parity` runs, and the files that it writes.

It owns `<home>/reports/simulate/parity.csv` (a row for each checkpoint) and `parity.png` (drop against forward KL).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from retain_core.errors import InputError
from retain_core.parity.law import Law, LeftOut, laws, left_out_arms
from retain_core.parity.matched import AtGain, Contrast, at_gains, contrasts
from retain_core.parity.training import HIGHEST, Base, Point, Setting, train_base
from retain_core.settings import settings
from retain_core.store import write_atomically
from retain_core.warehouse.query import render

SEEDS = 10


@dataclass(frozen=True)
class Parity:
    """All points of some bases and what is read off them: the law in the published range of learning rates, and in all."""

    seeds: int
    seed: int
    setting: Setting
    bases: list[Base]
    points: list[Point]
    published: list[Law]
    everything: list[Law]
    left_out: list[LeftOut]
    matched: list[AtGain]
    contrasts: list[Contrast]


def run_parity(seeds: int = SEEDS, seed: int = 0, setting: Setting | None = None) -> Parity:
    """Train every arm from `seeds` bases of stream `seed`, and read off the law and the drop at matched gain.

    Raises:
        InputError: fewer than one seed, or a negative stream.
    """
    if seeds < 1:
        raise InputError(f"--seeds {seeds}: at least 1 seed is needed, and 2 for an interval")
    if seed < 0:
        raise InputError(f"--seed {seed}: the number of a random stream is 0 or more")
    how = setting or Setting()
    bases, points = [], []
    with tqdm(total=seeds * how.checkpoints[-1], unit="step", leave=False, disable=None) as bar:
        for base in range(seeds):
            start, found = train_base(base, seed, how, bar.update)
            bases.append(start)
            points += found
    as_published = [p for p in points if p.learning_rate <= HIGHEST]
    matched = at_gains(points)
    return Parity(
        seeds, seed, how, bases, points, laws(as_published, np.random.default_rng(seed)),
        laws(points, np.random.default_rng(seed)), left_out_arms(as_published), matched, contrasts(matched),
    )  # fmt: skip


def points_csv(points: Sequence[Point]) -> str:
    """A row for each checkpoint; KL in nats for one input, drop, gain and accuracy as fractions."""
    return render(list(Point._fields), list(points), "csv")


def write_files(found: Parity) -> list[Path]:
    """The points and the chart, in the home's reports."""
    from retain_core.parity.chart import law_chart

    folder = settings().reports / "simulate"
    table, chart = folder / "parity.csv", folder / "parity.png"
    write_atomically(table, points_csv(found.points) + "\n")
    draft = chart.with_name(f".{chart.name}")
    draft.write_bytes(law_chart(found.points))
    draft.replace(chart)
    return [table, chart]
