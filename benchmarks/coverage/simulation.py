"""Run cells: repeat a simulated study many times and count which intervals hold the truth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

import numpy as np
from scipy.special import ndtri

from benchmarks.coverage.formulas import intervals
from benchmarks.coverage.table import Result
from benchmarks.coverage.world import Cell, matched_truth, true_stderr, truth


def run_cell(cell: Cell, repetitions: int, seed: Sequence[int]) -> list[Result]:
    """All formulas of one cell. The same seed gives the same counts."""
    rng = np.random.default_rng(seed)
    estimates: dict[str, list[float]] = defaultdict(list)
    bounds: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for _ in range(repetitions):
        for quantity, (estimate, by_formula) in intervals(cell, rng).items():
            estimates[quantity].append(estimate)
            for formula, pair in by_formula.items():
                bounds[quantity, formula].append(pair)
    exact = true_stderr(cell)
    results = []
    for (quantity, formula), pairs in bounds.items():
        low, high = np.array(pairs).T
        given = np.isfinite(low)
        target = matched_truth(cell)[0] if quantity == "matched drop" else truth(cell)
        spread = exact if np.isfinite(exact) else float(np.std(estimates[quantity], ddof=1))
        results.append(
            Result(
                quantity=quantity,
                cell=cell,
                formula=formula,
                repetitions=int(given.sum()),
                held=int(((low <= target) & (target <= high)).sum()),
                reversed_=int((high < 0).sum()) if cell.effect > 0 else 0,
                width=float((high - low)[given].mean()),
                oracle=2 * float(ndtri(0.975)) * spread,
                oracle_exact=bool(np.isfinite(exact)),
            )
        )
    return results


def run_cells(
    cells: Sequence[Cell], repetitions: int, seed: int, processes: int, done: Callable[[int], None] = lambda _: None
) -> list[Result]:
    """All cells, each with a stream of its own, the long ones first; results in the order of the cells."""
    results: dict[int, list[Result]] = {}
    order = sorted(range(len(cells)), key=lambda i: (cells[i].kind != "matched", -cells[i].n * cells[i].seeds))
    with ProcessPoolExecutor(processes) as pool:
        futures = {pool.submit(run_cell, cells[i], repetitions, (seed, i)): i for i in order}
        for future in as_completed(futures):
            results[futures[future]] = future.result()
            done(len(results))
    return [result for i in range(len(cells)) for result in results[i]]
