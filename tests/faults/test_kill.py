"""A small part of `make faults`: real processes, killed with SIGKILL, run again, and compared with one that nobody killed."""

import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import yaml

from retain_core.methods import DIALS, NAMED
from retain_core.plan import plan_study
from retain_core.store import Store
from retain_core.study_file import load_study
from tests.component.test_tracking import Logged
from tests.conftest import ROOT, RUN_PLAIN, environment, run_plain
from tests.faults.kill import MAIN, OTHERS, PREPARED, Fault, left_over, study_of, table, try_faults

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


def test_nothing_is_lost(with_base, tmp_path):
    """A method that refreshes its samples in rounds, and one with a buffer of samples and a KL penalty."""
    labels = ["iterative_sft", "grpo_kl"]
    with_base(tmp_path / PREPARED)
    faults, late = try_faults(labels, points=1, writes=1, others=0, seed=0, jobs=2, minutes=5, folder=tmp_path)
    assert len(faults) >= 2
    assert [fault for fault in faults if not fault.survived] == []
    assert len(faults) == 4 or late
    # Killed in a step, the step is made again; before the first state nothing was there to go on from.
    assert all(fault.repeated <= 1 for fault in faults)


def test_every_method_is_killed():
    tried = {**MAIN, **OTHERS}
    assert set(NAMED) <= set(tried)
    assert {dials["algorithm"] for dials in tried.values()} == set(DIALS)


def test_the_table_counts_what_was_lost():
    faults = [Fault("sft", "database", True, "", 0), Fault("sft", "database", False, "weights", 2)]
    assert "| sft | database | 2 | 1 | 1 | 2 |" in table(faults)
    assert "lost: sft, database: weights" in table(faults)
    assert table(faults).endswith("faults tried: 2, survived: 1, lost: 1")


@pytest.mark.slow
def test_a_whole_run_is_killed_and_its_child_ends_and_the_next_run_finishes(home, tmp_path):
    """The parent is killed, so nobody ends its child but the child itself; what it had done of the arm is used."""
    study = tmp_path / "study.yaml"
    body = study_of("grpo_kl")
    body["budget"]["updates"] = 60
    study.write_text(yaml.safe_dump(body))
    settings = environment(home) | {"RETAIN_RESUME_SECONDS": "0"}
    command = [sys.executable, "-c", RUN_PLAIN, str(study), str(home)]
    process = subprocess.Popen(command, cwd=ROOT, env=settings, start_new_session=True)
    deadline = time.monotonic() + 200
    while not list((home / "artifacts" / ".resume").glob("arm-*/state/*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []
    store = Store(home / "artifacts")
    plan = plan_study(load_study(study), store)
    assert not plan.arms[0].done
    assert plan.base_ready
    assert store.unfinished("arm", plan.arms[0].spec.key).keys("state")
    assert run_plain(study, home) == {}
    assert "going on after update" in (home / "logs" / f"{plan.arms[0].spec.arm}.log").read_text()
    assert left_over(home) == []


@pytest.mark.slow
def test_killed_while_the_report_is_written_or_mlflow_is_logged_to(home, finished_home, smoke_study):
    reports = home / "reports" / "smoke"
    shutil.rmtree(reports)
    shutil.rmtree(home / "mlartifacts")
    (home / "mlflow.db").unlink()
    command = [sys.executable, "-c", RUN_PLAIN, str(smoke_study), str(home)]
    begun = (
        lambda: len(list(reports.glob("*"))) > 2,
        lambda: list(home.glob("mlartifacts/*/artifacts/arm.json")),  # the first arm is being logged
    )
    for so_far in begun:
        process = subprocess.Popen(command, cwd=ROOT, env=environment(home))
        while not so_far():
            assert process.poll() is None
        process.kill()
        process.wait()
    assert not (home / "mlartifacts" / ".logged-smoke.json").exists()
    (reports / ".index.html.123").write_text("half a page, by one that was killed")
    assert run_plain(smoke_study, home) == {}
    assert sorted(path.name for path in reports.iterdir()) == sorted(
        p.name for p in (finished_home / "reports" / "smoke").iterdir()
    )
    assert Logged(home).values() == Logged(finished_home).values()
