"""`make bench`: what retain costs beside doing the same without it. Ratios from interleaved pairs.

python -m benchmarks.bench [--pairs 7] [--only warm|flow|evaluation|resume|resampling|warehouse|report] [--rows 1e8]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.pairs import HEAD, Row, compare
from benchmarks.report import report
from benchmarks.resampling import resampling
from benchmarks.resume import resume
from benchmarks.warehouse import DEFAULT_ROWS, warehouse
from retain_core import workers
from retain_core.run import open_study, run_all
from retain_core.settings import Settings, settings
from retain_core.study_file import load_study

ROOT = Path(__file__).parent.parent
SMOKE = ROOT / "studies" / "smoke.yaml"


def warm(pairs: int, folder: Path) -> Row:
    """The smoke study again, against the first time."""
    homes = iter(range(10_000))
    current = folder / "warm"

    def run() -> None:
        environment = {**os.environ, "RETAIN_HOME": str(current)}
        subprocess.run(
            [sys.executable, "-m", "flows.cli", "run", str(SMOKE)], cwd=ROOT, env=environment, check=True, capture_output=True
        )

    def cold() -> None:
        nonlocal current
        current = folder / f"cold-{next(homes)}"
        run()

    cold()
    return compare("smoke study again / the first time", run, cold, "small", pairs)


def flow(pairs: int, folder: Path) -> Row:
    """The flow against the same steps as plain functions, with a server that is already there."""
    from flows.study import run_study

    study, homes = load_study(SMOKE), iter(range(10_000))
    workers.warm_up(1)

    def fresh() -> Settings:
        os.environ["RETAIN_HOME"] = str(folder / f"flow-{next(homes)}")
        settings.cache_clear()
        return settings()

    def by_flow() -> None:
        fresh()
        run_study(study)

    def by_hand() -> None:
        with open_study(study, fresh()) as running:
            run_all(running)

    by_hand()
    return compare("the flow / the same steps as plain functions", by_flow, by_hand, "1.03 or less", pairs)


def evaluation(pairs: int, folder: Path) -> Row:
    """One checkpoint on all benchmarks, answers stored, against lm-eval's simple_evaluate; CPU time."""
    import torch
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from retain_core.evaluation.benchmarks import BATCH_SIZE, BENCHMARKS
    from retain_core.evaluation.evaluate import Evaluator, plans_of
    from retain_core.evaluation.harness import task_manager
    from retain_core.lab.base import MAX_POSITIONS, train_base
    from retain_core.lab.dataset import prepare_dataset
    from retain_core.lab.spec import lab_spec
    from retain_core.store import Store

    torch.set_num_threads(1)
    store, spec = Store(folder / "evaluation" / "artifacts"), lab_spec("smoke")
    store.prepare()
    dataset, base = prepare_dataset(store, spec), train_base(store, spec, 2)
    # Without the exact score, which lm-eval does not have.
    names = [name for name, benchmark in BENCHMARKS.items() if not benchmark.exact]
    numbers = iter(range(10_000))
    stored: dict[str, float] = {}
    shared = Evaluator(store, dataset, base.path)
    harness = {BENCHMARKS[name].harness_name: name for name in names}

    def ours() -> None:
        plans = plans_of({"bench": next(numbers)}, [BENCHMARKS[name] for name in names], dataset.key, 1)
        shared.evaluate(base.path, plans)
        import pyarrow.parquet as pq

        for plan in plans:
            rows = pq.read_table(store.path("evaluation", plan.key) / "scores.parquet").to_pylist()
            scores = [row["score"] for row in rows if row["metric"] == plan.of.metrics[0]]
            stored[plan.benchmark] = sum(scores) / len(scores)

    def theirs(tasks: list[str] | None = None) -> dict[str, float]:
        model = AutoModelForCausalLM.from_pretrained(base.path)
        lm = HFLM(
            pretrained=model, tokenizer=AutoTokenizer.from_pretrained(base.path), batch_size=BATCH_SIZE,
            max_length=MAX_POSITIONS, device="cpu",
        )  # fmt: skip
        found = simple_evaluate(
            lm, tasks=tasks or list(harness), task_manager=task_manager(str(dataset.file("items"))), apply_chat_template=True,
            log_samples=True, bootstrap_iters=0,
        )  # fmt: skip
        metrics = {task: BENCHMARKS[harness[task]].metrics[0] for task in found["samples"]}
        return {harness[t]: sum(s[metrics[t]] for s in rows) / len(rows) for t, rows in found["samples"].items()}

    ours()
    # One benchmark a call: together, lm-eval pads requests of several benchmarks to one length, and the last
    # digit of a loss then depends on the company it keeps. Ours never does.
    alone = {name: score for task in harness for name, score in theirs([task]).items()}
    if stored != alone:
        raise SystemExit(f"scores differ: {stored} and {alone}")
    return compare(
        "our evaluation, Parquet included / lm-eval's own (CPU time, without the exact score)",
        ours,
        theirs,
        "1.10 or less",
        pairs,
        time.process_time,
    )


@contextlib.contextmanager
def prefect_server() -> Iterator[float]:
    """Prefect's own temporary server for this process; yields the seconds that it took to start."""
    defaults = {
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120", "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL", "PREFECT_LOGGING_LEVEL": "CRITICAL", "DO_NOT_TRACK": "1",
    }  # fmt: skip
    os.environ.update(defaults)
    started = time.perf_counter()
    from prefect import flow as make_flow

    make_flow(name="nothing")(lambda: None)()
    yield time.perf_counter() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--only", choices=["warm", "flow", "evaluation", "resume", "resampling", "warehouse", "report"])
    parser.add_argument(
        "--rows", type=lambda text: int(float(text)), nargs="+", default=DEFAULT_ROWS,
        help="sample rows of the warehouse; 1e8 needs 2 GB of disk and several minutes",
    )  # fmt: skip
    chosen = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    folder = Path(tempfile.mkdtemp(prefix="retain-bench-"))
    rows, further, notes = [], [], []
    try:
        if chosen.only in (None, "resampling"):
            rows += resampling(chosen.pairs)
        if chosen.only in (None, "warehouse"):
            compared, further = warehouse(chosen.pairs, folder, chosen.rows)
            rows += compared
        if chosen.only in (None, "report"):
            compared, notes = report(chosen.pairs, folder)
            rows += compared
        if chosen.only in (None, "evaluation"):
            rows.append(evaluation(chosen.pairs, folder))
        if chosen.only in (None, "resume"):
            rows.append(resume(chosen.pairs, folder))
        if chosen.only in (None, "warm"):
            rows.append(warm(chosen.pairs, folder))
        if chosen.only in (None, "flow"):
            with prefect_server() as seconds:
                rows.append(flow(chosen.pairs, folder))
            print(f"Prefect import and server start, apart: {seconds:.1f} s", file=sys.stderr)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(HEAD, *(row.text() for row in rows), *further, *([""] if notes else []), *notes, sep="\n")


if __name__ == "__main__":
    main()
