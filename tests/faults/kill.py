"""Kill processes at random points, run them again, and count what was lost.

    python -m tests.faults.kill --points 20 --others 3 --seed 0      what `make faults` runs
    python -m tests.faults.kill --methods sft,grpo --points 4

Every fault is a process of its own that trains one method on a small study, evaluates it and loads the database, and that
is ended with SIGKILL: inside an optimizer step, at points spread evenly over all of them, or inside a write. The main
methods get one fault inside each kind of write that they make, the others inside one of them. It is then run again, to the
end. Survived means: the weights, the training curve, every answer, what was spent and the rows of the database are those
of a process that nobody killed, to the bit, and nothing is left over.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import yaml

from retain_core.methods import NAMED
from tests.component.golden import METHODS
from tests.conftest import ROOT
from tests.faults import child
from tests.faults.child import Point

UPDATES, LONGEST = 8, 600.0
MAIN: dict[str, dict[str, Any]] = {
    "sft": METHODS["sft"],
    "self_sft": METHODS["self_sft"],
    "iterative_sft": METHODS["iterative_sft"],
    "reinforce": METHODS["reinforce"],
    "grpo": {"algorithm": "grpo", "reward": "random"},
    "grpo_kl": METHODS["grpo"],
}
"""Label -> method, those that get the most faults."""
SEQUENCE, BLENDS, OWN, THEIRS = "sft_then_new_format", "sft_interpolated", "custom", "external"
MORE: dict[str, dict[str, Any]] = {
    SEQUENCE: {"then": ["new_format"]},
    BLENDS: {"interpolate": [0.5]},
}
"""Label -> what else its study says."""
OTHERS: dict[str, dict[str, Any]] = {
    **{label: dials for label, dials in METHODS.items() if label not in {*MAIN, "grpo"}},
    "sft_in_style": NAMED["sft_in_style"], SEQUENCE: METHODS["sft"], BLENDS: METHODS["sft"],
    OWN: {"algorithm": "custom", "trainer": "method:build", "options": {"tries": 2}},
    THEIRS: {"algorithm": "external"},
}  # fmt: skip
"""Label -> method, those that get fewer."""
STUDY: dict[str, Any] = {
    "study": "faults", "base": "lab/smoke", "target": "countdown", "controls": [], "learning_rates": [1e-3], "seeds": [0],
    "retention": [{"benchmark": "addition", "near": True}], "checkpoints": 2,
    "budget": {"updates": UPDATES, "sequences_per_update": 16},
}  # fmt: skip
PREPARED = "prepared"
TIMES = ("step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second")
_context = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Fault:
    """A process that was killed, and what became of it."""

    method: str
    phase: str
    """What it was doing: the kind of work that the last line of its progress names."""
    survived: bool
    why: str
    repeated: int
    """Updates that were made a second time."""


def study_of(label: str) -> dict[str, Any]:
    """The study that trains one method."""
    return STUDY | {"methods": [{"label": label, **(MAIN | OTHERS)[label]}]} | MORE.get(label, {})


class Method:
    """One method: its study, the home that its processes start from, and how it goes when nobody kills it."""

    def __init__(self, label: str, prepared: Path, folder: Path) -> None:
        self.label, self._prepared, self._folder = label, prepared, folder
        folder.mkdir(parents=True)
        self.study = folder / "study.yaml"
        study = study_of(label)
        if label == OWN:
            shutil.copy(ROOT / "examples" / "own_method" / "method.py", folder)
        if label == THEIRS:
            (base,) = (prepared / "artifacts" / "base").iterdir()
            study["methods"][0]["model"] = str(base)
        self.study.write_text(yaml.safe_dump(study))
        home = self.home("whole")
        self.lines = self.whole(home)
        self.outcome = outcome(home)
        self.names = [line for _, line in self.lines]

    def home(self, name: str) -> Path:
        """A fresh home with a base that is trained and measured."""
        home = self._folder / name
        shutil.copytree(self._prepared, home)
        return home

    def whole(self, home: Path) -> list[tuple[float, str]]:
        """Run to the end. Returns (seconds, line) of its progress."""
        progress = home / "progress"
        progress.unlink(missing_ok=True)
        code, told = killed(self.study, home, progress, None)
        if told != "done":
            raise RuntimeError(f"{self.label} ended with {code}:\n{(home / 'log').read_text()[-2000:]}")
        return lines_of(progress)

    def points(self, steps: int, writes: int | None, draw: random.Random) -> list[Point]:
        """Where to kill: inside so many kinds of writes (all: None), and at points spread evenly over the optimizer steps.

        A method without steps gets all of them inside writes.
        """
        kinds = list(dict.fromkeys(name.split(":")[0] for name in self.names if ": " in name))
        updates = [i for i, name in enumerate(self.names) if name.startswith("update ")]
        writes, steps = (len(kinds) if writes is None else writes, steps) if updates else (min(steps + 1, len(kinds)), 0)
        points = []
        for kind in draw.sample(kinds, writes):
            inside = [i for i, name in enumerate(self.names) if name.startswith(f"{kind}: ")]
            points.append(self._inside(draw.choice(inside), draw))
        for number in range(steps):
            line = updates[int((number + draw.random()) / steps * len(updates))]
            lasts = self.lines[line + 1][0] - self.lines[line][0]
            points.append(Point(line, draw.random() * lasts))
        return points

    def _inside(self, line: int, draw: random.Random) -> Point:
        lasts = self.lines[line + 1][0] - self.lines[line][0] if line + 1 < len(self.lines) else 0.0
        return Point(line, draw.choice([None, draw.random() * lasts]))

    def fault(self, number: int, point: Point) -> Fault:
        """Kill at a point, run again, compare."""
        home = self.home(str(number))
        code, _ = killed(self.study, home, home / "progress", point)
        if code == 0 and point.after is not None:  # it was faster this time than the kill; now it waits for it
            shutil.rmtree(home)
            return self.fault(number, Point(point.line, None))
        before = lines_of(home / "progress")
        last = before[-1][1] if before else "start"
        phase = "optimizer step" if last.startswith("update ") else last.split(":")[0]
        if code != -signal.SIGKILL:
            return Fault(self.label, phase, False, f"ended with {code} instead of being killed", 0)
        try:
            after = self.whole(home)
            found = outcome(home)
        except Exception as error:
            return Fault(self.label, phase, False, f"{type(error).__name__}: {error}", 0)
        wrong = [name for name, value in self.outcome.items() if found[name] != value] + left_over(home)
        updates = [sum(line.startswith("update ") for _, line in lines) for lines in (before, after)]
        repeated = sum(updates) - sum(name.startswith("update ") for name in self.names)
        shutil.rmtree(home)
        return Fault(self.label, phase, not wrong, ", ".join(wrong), repeated)


def killed(study: Path, home: Path, progress: Path, point: Point | None) -> tuple[int | None, str]:
    """Start a process, kill it at the point. Returns (exit code, the last that it told)."""
    told, parent = _context.Pipe(duplex=False)
    process = _context.Process(target=child.run, args=(study, home, progress, point, parent), daemon=True)
    process.start()
    parent.close()
    word = ""
    try:
        if told.poll(LONGEST):
            word = told.recv()
            if point is not None:
                time.sleep(point.after or 0.0)
    except EOFError:
        word = ""
    if point is not None or not word:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    process.join(LONGEST)
    return process.exitcode, word


def lines_of(progress: Path) -> list[tuple[float, str]]:
    """(seconds, line); a line that was cut is none."""
    lines = progress.read_text().split("\n")[:-1] if progress.exists() else []
    return [(float(time), line) for time, line in (entry.split(" ", 1) for entry in lines)]


def outcome(home: Path) -> dict[str, Any]:
    """Everything that two homes must agree on."""
    artifacts = home / "artifacts"
    found: dict[str, Any] = {"weights": _hashes(artifacts.glob("weights/*/model.safetensors"))}
    curves = [pq.read_table(path).to_pylist() for path in sorted(artifacts.glob("arm/*/curve.parquet"))]
    found["training curve"] = [[repr(p) for p in curve if p["name"] not in TIMES] for curve in curves]
    found["answers"] = _rows(artifacts, "evaluation/*/*.parquet")
    found["divergences"] = _rows(artifacts, "divergence/*/*.parquet")
    metas = [json.loads(path.read_text())["meta"] for path in sorted(artifacts.glob("arm/*/manifest.json"))]
    found["what was spent"] = [{k: v for k, v in meta.items() if k != "seconds"} for meta in metas]
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        for name, query in {
            "database": "SELECT * EXCLUDE (settings_hash) FROM forgetting ORDER BY ALL",
            "rows of answers": "SELECT arm, checkpoint, benchmark, metric, score, n FROM scores ORDER BY ALL",
        }.items():
            found[name] = repr(con.execute(query).fetchall())
    return found


def _hashes(files: Iterable[Path]) -> dict[str, str]:
    return {f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _rows(artifacts: Path, pattern: str) -> dict[str, str]:
    tables = {str(p.relative_to(artifacts)): pq.read_table(p).to_pylist() for p in sorted(artifacts.glob(pattern))}
    return {name: hashlib.sha256(repr(rows).encode()).hexdigest() for name, rows in tables.items()}


def left_over(home: Path) -> list[str]:
    """What should not be there when a study is done."""
    folders = ((home / "artifacts" / name).glob("[!.]*") for name in (".drafts", ".resume", ".leases", ".quarantine"))
    return [f"{path.relative_to(home)} is left over" for folder in folders for path in folder]


def prepare(folder: Path) -> Path:
    """A home in which the base is trained and measured; a base that lies there already is only measured."""
    from retain_core.run import evaluate_base, open_study, prepare_dataset, train_base
    from retain_core.settings import Settings
    from retain_core.study_file import load_study
    from retain_core.workers import warm_up

    study, home = folder / "prepare.yaml", folder / PREPARED
    study.write_text(yaml.safe_dump(study_of(SEQUENCE)))
    with open_study(load_study(study), Settings(home=home)) as running:
        warm_up(1)
        for step in (prepare_dataset, train_base, evaluate_base):
            step(running)
    shutil.rmtree(home / "artifacts" / "revision", ignore_errors=True)
    return home


def try_faults(
    labels: Sequence[str], points: int, writes: int | None, others: int, seed: int, jobs: int, minutes: float, folder: Path
) -> tuple[list[Fault], list[str]]:
    """(faults, methods that there was no time for). Methods side by side in `jobs` processes.

    `points` over the steps of a main method beside `writes` kinds of writes, `others` for another method, one in a write.
    """
    _context.set_forkserver_preload(["retain_core.preload", "tests.faults.child"])
    prepared, ends, late = prepare(folder), time.monotonic() + 60 * minutes, []

    def one(label: str) -> list[Fault]:
        if time.monotonic() > ends:
            late.append(label)
            return []
        try:
            method = Method(label, prepared, folder / label)
        except RuntimeError as error:
            return [Fault(label, "nothing", False, str(error), 0)]
        draw = random.Random(f"{seed} {label}")
        found = []
        share = (points, writes) if label in MAIN else (others - 1, 1)
        for number, point in enumerate(method.points(*share, draw)):
            if time.monotonic() > ends:
                late.append(f"the rest of {label}")
                break
            found.append(method.fault(number, point))
            print(f"{label} {found[-1].phase}: {found[-1].why or 'survived'}", file=sys.stderr, flush=True)
        shutil.rmtree(folder / label, ignore_errors=True)
        return found

    with ThreadPoolExecutor(jobs) as pool:
        return [fault for found in pool.map(one, labels) for fault in found], late


def table(faults: Sequence[Fault]) -> str:
    """The faults by method and phase, in Markdown; the last line is the sum."""
    lines = ["| method | killed during | faults | survived | lost | most updates repeated |", "|---|---|---|---|---|---|"]
    groups: dict[tuple[str, str], list[Fault]] = {}
    for fault in faults:
        groups.setdefault((fault.method, fault.phase), []).append(fault)
    for (method, phase), group in groups.items():
        survived = sum(fault.survived for fault in group)
        most = max(fault.repeated for fault in group)
        lines.append(f"| {method} | {phase} | {len(group)} | {survived} | {len(group) - survived} | {most} |")
    lines += [f"\nlost: {fault.method}, {fault.phase}: {fault.why}" for fault in faults if not fault.survived]
    survived = sum(fault.survived for fault in faults)
    return "\n".join([*lines, "", f"faults tried: {len(faults)}, survived: {survived}, lost: {len(faults) - survived}"])


def main() -> int:
    """Print the table; the exit code is 1 when anything was lost."""
    parser = argparse.ArgumentParser(description="kill trainings at random points and count what is lost")
    parser.add_argument(
        "--points", type=int, default=20, help="faults over the steps of each main method, beside one in each kind of write"
    )
    parser.add_argument("--others", type=int, default=3, help="faults for each other method, one of them in a write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument("--minutes", type=float, default=27.0, help="no fault is begun after so long")
    parser.add_argument("--methods", default=",".join([*MAIN, *OTHERS]))
    asked = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="retain-faults-") as folder:
        labels = asked.methods.split(",")
        faults, late = try_faults(labels, asked.points, None, asked.others, asked.seed, asked.jobs, asked.minutes, Path(folder))
    if late:
        print(f"No time was left for {', '.join(late)}.\n")
    print(f"Seed {asked.seed}, {(time.monotonic() - started) / 60:.0f} minutes.\n")
    print(table(faults))
    return any(not fault.survived for fault in faults)


if __name__ == "__main__":
    sys.exit(main())
