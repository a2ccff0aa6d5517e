"""One study, two machines, one bucket: the second finds everything done."""

import shutil
import signal
import subprocess
import sys

import pytest

from retain_core import run
from retain_core.arms import weights_key
from retain_core.bucket import Bucket
from retain_core.evaluation.evaluate import checkpoint_plans
from retain_core.plan import plan_study
from retain_core.remote import open_store
from retain_core.store import Store
from retain_core.study_file import load_study
from tests.component.test_warehouse import content
from tests.conftest import ROOT, RUN_PLAIN, environment, settings_at
from tests.s3 import ENVIRONMENT, s3_server

pytest.importorskip("s3fs", reason="pip install 'retain[s3]'")
PLACE = "s3://retain/lab"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server():
    with pytest.MonkeyPatch.context() as patch, s3_server() as address:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": address}.items():
            patch.setenv(name, value)
        yield address


KILLED = """
import os, signal, sys
from retain_core.training.resume import Unfinished
save, count = Unfinished._save_state, []
def saved(self, step, state):
    save(self, step, state)
    count.append(step)
    if len(count) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
Unfinished._save_state = saved
sys.argv = ["arm", sys.argv[1]]
import runpy
runpy.run_module("retain_core.arm", run_name="__main__")
"""
"""An arm whose machine is gone after it wrote two states."""


@pytest.fixture(scope="module")
def first(server, tmp_path_factory, smoke_study):
    """The home of a machine that ran the smoke study into the bucket."""
    home = tmp_path_factory.mktemp("first")
    python("-c", RUN_PLAIN, smoke_study, home, home=home)
    return home


def python(*arguments, home, code=0, every="10"):
    """A process in a home whose artifacts lie in the bucket; what it printed."""
    more = {"RETAIN_ARTIFACTS": PLACE, "RETAIN_RESUME_SECONDS": every}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment(home) | more, capture_output=True, text=True, timeout=400)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_a_second_home_finds_everything_done_and_builds_an_equal_warehouse(first, smoke_study, tmp_path, monkeypatch):
    monkeypatch.setenv("RETAIN_ARTIFACTS", PLACE)
    config = settings_at(tmp_path)
    with run.open_study(load_study(smoke_study), config) as running:
        assert running.plan.done
        run.load_warehouse(running, {})
    assert content(config.warehouse) == content(first / "warehouse.duckdb")
    assert Store(tmp_path / "artifacts").keys("evaluation") == Store(first / "artifacts").keys("evaluation")
    shutil.rmtree(tmp_path / "artifacts")  # copies, and nothing else
    assert plan_study(load_study(smoke_study), open_store(config, read_only=True)).done


def test_an_arm_goes_on_elsewhere_from_its_state(first, smoke_study, tmp_path, monkeypatch):
    monkeypatch.setenv("RETAIN_ARTIFACTS", PLACE)
    store = open_store(settings_at(first))
    arm = plan_study(load_study(smoke_study), store).arms[0].spec
    key = weights_key(arm, arm.steps[-1])
    before = {p.name: p.read_bytes() for p in store.get("weights", key).path.glob("*.safetensors")}
    for kind, one in [("weights", weights_key(arm, step)) for step in arm.kept_steps()] + [("arm", arm.key)]:
        store.forget(kind, one)
    for plans in (checkpoint_plans(arm, c) for c in arm.checkpoints):
        for plan in plans:
            store.forget(plan.kind, plan.key)
    (tmp_path / "spec.json").write_text(arm.model_dump_json())
    python("-c", KILLED, tmp_path / "spec.json", home=tmp_path / "b", code=-signal.SIGKILL, every="0")
    assert store.unfinished("arm", arm.key).keys("state")
    told = python("-m", "retain_core.arm", tmp_path / "spec.json", home=tmp_path / "c")
    assert "going on after update 2" in told
    after = {p.name: p.read_bytes() for p in store.get("weights", key).path.glob("*.safetensors")}
    assert before == after
    assert before
    assert Bucket(PLACE).names(".resume") == []
    assert store.living() == set()
