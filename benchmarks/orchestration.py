"""What orchestration costs an arm: arms that have nothing to do, on a work pool and beside the study.

python -m benchmarks.orchestration {pool|inline} [--arms N ...] [--database {sqlite|postgres}]

About 27 and 13 minutes on two cores. The database is that of Prefect's server: SQLite as on a laptop, or a Postgres of its own.

A do-nothing arm is a model whose answers are stored already: everything of an arm's run happens but its training and its
evaluation. The line is fitted to the wall time of each number of arms; a residual that grows would show what is not linear.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from retain_core import workers
from retain_core.plan import PlannedArm
from retain_core.run import Running, open_study, run_all, run_arm
from retain_core.settings import settings
from retain_core.study_file import load_study

ROOT = Path(__file__).parent.parent
POOL = (20, 40, 80)
INLINE = (250, 500, 1000)
METHODS = 20
"""Over which the arms are spread: their tags say the method, and every new tag costs Prefect's client most of a second."""
LIMIT = 2
"""Arms that the worker runs at a time."""


def measure(counts: Sequence[int], run: Callable[[int], object]) -> list[str]:
    """Lines of a table: the wall time of each number of arms, the line through them, and how far it misses each."""
    seconds = []
    for count in counts:
        started = time.perf_counter()
        run(count)
        seconds.append(time.perf_counter() - started)
        print(f"{count} arms: {seconds[-1]:.1f} s", file=sys.stderr, flush=True)
    slope, start = np.polyfit(counts, seconds, 1)
    lines = ["| arms | seconds | seconds an arm | residual |", "|---|---|---|---|"]
    for count, spent in zip(counts, seconds, strict=True):
        lines.append(f"| {count} | {spent:.1f} | {spent / count:.3f} | {spent - start - slope * count:+.1f} s |")
    return [*lines, "", f"slope {slope:.3f} s an arm, start {start:.1f} s"]


def nothings(running: Running, count: int) -> None:
    """Put arms that have nothing to do in the place of the study's own."""
    spec, folder = running.plan.arms[0].spec, str(running.plan.base_path)
    config = {"algorithm": "external", "model": folder, "fingerprint": spec.base.fingerprint}
    nothing = {"config": config, "steps": (0,)}
    specs = [
        spec.model_copy(update={**nothing, "arm": f"nothing/{n}", "method": f"nothing-{n % METHODS}"}) for n in range(count)
    ]
    running.plan = dataclasses.replace(running.plan, arms=[PlannedArm(one, None, {}, True) for one in specs])


def inline(running: Running, count: int) -> None:
    """The arms as tasks of a flow of this process, in processes of their own."""
    from prefect import flow
    from prefect.futures import wait

    from flows.study import task_runner
    from tasks.steps import submit_arm

    nothings(running, count)

    @flow(name="nothings", task_runner=task_runner(running.study))
    def arms() -> None:
        futures = [submit_arm(running, name) for name in running.missing_arms]
        wait(futures)
        found = [future.result() for future in futures]
        assert found == [""] * count, found

    arms()


def pool(running: Running, count: int) -> list[float]:
    """The arms as deployment runs on a worker. Returns the seconds from submitting to beginning of each."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.sorting import FlowRunSort

    from flows.study import ON_POOL
    from tasks.pool import run_on_pool

    nothings(running, count)
    with ThreadPoolExecutor(max_workers=ON_POOL) as threads:
        found = list(threads.map(lambda arm: run_on_pool(arm.spec, "cpu-pool", running.store), running.plan.arms))
    assert found == [""] * count, found
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter.model_validate({"name": {"like_": "nothing-"}}),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=count,
        )
    return [(run.start_time - run.created).total_seconds() for run in runs if run.start_time and run.created]


def told(found: tuple[int, list[float]]) -> str:
    """How long arms waited, as a sentence: `LIMIT` run at a time, so the last one waits for all others."""
    count, waited = found[0], sorted(found[1])
    median = waited[len(waited) // 2]
    return (
        f"{count} arms, from submitting to beginning: first {waited[0]:.1f} s, median {median:.1f} s, last {waited[-1]:.1f} s"
    )


@contextlib.contextmanager
def database(kind: str) -> Iterator[dict[str, str]]:
    """The settings of a Prefect server by which it keeps its data in a database of this kind."""
    from tests.postgres import new_database, postgres

    if kind == "sqlite":
        yield {}
        return
    with postgres() as server:
        address = new_database(server, "prefect").replace("postgresql:", "postgresql+asyncpg:")
        yield {"PREFECT_API_DATABASE_CONNECTION_URL": address}


@contextlib.contextmanager
def serving(home: Path, kind: str) -> Iterator[None]:
    """A Prefect server with the deployments, and one worker on them."""
    from tests.conftest import serving_prefect

    (home / "prefect").mkdir(parents=True)
    with database(kind) as more, serving_prefect(home, **more) as address:
        os.environ.update(PREFECT_API_URL=f"{address}/api", RETAIN_CODE=str(ROOT))
        prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
        for arguments in (
            "work-pool create cpu-pool --type process",
            "work-pool create gpu-pool --type process",
            "deploy --all",
        ):
            subprocess.run([*prefect, *arguments.split()], cwd=ROOT, check=True, capture_output=True)
        command = [*prefect, "worker", "start", "--pool", "cpu-pool", "--limit", str(LIMIT)]
        with (home / "worker.log").open("w") as log:
            worker = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        try:
            yield
        finally:
            os.killpg(worker.pid, signal.SIGTERM)
            worker.wait(timeout=60)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["pool", "inline"])
    parser.add_argument("--arms", type=int, nargs="+", help="other numbers of arms than 20 to 80 and 250 to 1,000")
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite", help="behind Prefect's server")
    asked = parser.parse_args()
    what = asked.what
    os.environ.update(PREFECT_LOGGING_LEVEL="CRITICAL", TQDM_DISABLE="1", DO_NOT_TRACK="1")
    with tempfile.TemporaryDirectory(prefix="retain-bench-") as folder:
        os.environ["RETAIN_HOME"] = folder
        workers.warm_up(1)
        study = load_study(ROOT / "studies" / "smoke.yaml")
        with open_study(study, settings()) as running:
            run_all(running)
        with serving(Path(folder), asked.database), open_study(study, settings()) as running:
            workers.warm_up(1)  # the study before it has ended all work
            nothings(running, 1)
            assert run_arm(running, running.plan.arms[0].spec.arm) == "", "the answers that all arms share"
            if what == "inline":
                print(*measure(asked.arms or INLINE, lambda count: inline(running, count)), sep="\n")
                return
            waits: dict[int, list[float]] = {}
            lines = measure(asked.arms or POOL, lambda count: waits.update({count: pool(running, count)}))
            print(*lines, "", *map(told, waits.items()), sep="\n")


if __name__ == "__main__":
    main()
