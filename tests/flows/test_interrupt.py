"""Ctrl-C ends the children and leaves a state from which the next run goes on."""

import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from retain_core.plan import plan_study
from retain_core.store import Store
from retain_core.study_file import load_study
from tests.conftest import ROOT, environment, run_plain

pytestmark = pytest.mark.prefect


def test_interrupt_ends_the_children_and_the_next_run_finishes(home, flow_home, smoke_study, tmp_path):
    shutil.copytree(flow_home[0] / "prefect", home / "prefect")  # Prefect's database need not be made anew
    changed = tmp_path / "smoke.yaml"
    text = smoke_study.read_text().partition("primary:")[0].replace("updates: 4", "updates: 400")
    longer = text.replace("[sft, grpo]", "[sft]").replace("controls: [learning_rate_0]", "controls: []")
    changed.write_text(longer)
    command = [sys.executable, "-m", "flows.cli", "run", str(changed)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, env=environment(home), start_new_session=True, **pipes)
    drafts = home / "artifacts" / ".drafts"
    deadline = time.monotonic() + 200
    while not (drafts.is_dir() and list(drafts.glob("arm-*"))):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "goes on from here" in stderr
    assert "EventsWorker" not in stderr, "what Prefect has to say of a server that is gone is no use to anybody"
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []
    plan = plan_study(load_study(changed), Store(home / "artifacts"))
    assert not plan.done
    assert not plan.arms[0].done
    assert plan.base_ready
    changed.write_text(longer.replace("updates: 400", "updates: 6"))
    assert run_plain(changed, home) == {}
    assert list(drafts.iterdir()) == []
