"""`make coverage`: simulate, print the table, fail when a shipped formula misses or a wrong one passes."""

from __future__ import annotations

import argparse
import re
import secrets
import sys
import time
from pathlib import Path

from benchmarks.coverage.simulation import run_cells
from benchmarks.coverage.table import markdown, verdict
from benchmarks.coverage.world import grid

METHOD = Path(__file__).parents[2] / "docs" / "method.md"
BEGIN, END = "<!-- coverage:begin -->", "<!-- coverage:end -->"


def main() -> int:
    """Run the command; the exit code is 1 when the table does not show what it must."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--seed", type=int, help="of all random streams; drawn anew unless given")
    parser.add_argument("--repetitions", type=int, default=2000, help="simulated studies a cell")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a few cells only")
    parser.add_argument("--write", action="store_true", help="put the table into docs/method.md")
    given = parser.parse_args()
    seed = secrets.randbelow(2**31) if given.seed is None else given.seed
    cells = grid(quick=given.quick)
    print(f"{len(cells)} cells, {given.repetitions} repetitions each, --seed {seed}", flush=True)
    started = time.monotonic()

    def progress(done: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == len(cells) else ""
            print(f"\r{done} of {len(cells)} cells, {time.monotonic() - started:.0f} s", end=end, file=sys.stderr, flush=True)

    results = run_cells(cells, given.repetitions, seed, given.processes, progress)
    table = markdown(results, seed, given.repetitions)
    print(table)
    if given.write:
        _write(table)
    problems = verdict(results)
    for problem in problems:
        print("MISSED " + problem)
    print(f"{'failed' if problems else 'passed'} in {time.monotonic() - started:.0f} s")
    return 1 if problems else 0


def _write(table: str) -> None:
    text = METHOD.read_text()
    block = f"{BEGIN}\n{table}\n{END}"
    if BEGIN not in text:
        raise SystemExit(f"{METHOD.name} has no {BEGIN}")
    METHOD.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: block, text, flags=re.DOTALL))


if __name__ == "__main__":
    sys.exit(main())
