"""What Prefect's UI has to show of a study: names, tags and artifacts, asked of a real server after a real run."""

import json
import subprocess
import sys

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from retain_core.warehouse.query import open_warehouse
from tests.conftest import ROOT, environment

pytestmark = pytest.mark.prefect

TAGS = {"retain", "study:smoke", "base:lab/smoke", "target:countdown"}


@pytest.fixture(scope="module")
def seen(prefect_server):
    """(flow runs, task runs by name, artifacts by key), as the API gives them."""
    with temporary_settings({PREFECT_API_URL: f"{prefect_server}/api"}), get_client(sync_client=True) as client:
        tasks = {run.name: run for run in client.read_task_runs()}
        return client.read_flow_runs(), tasks, {a.key: a for a in client.read_artifacts()}


def test_runs_are_named_and_tagged_by_what_they_do(seen):
    (flow,), tasks, _ = seen
    assert flow.name == "smoke"
    assert set(flow.tags) == TAGS
    arms = {"sft lr=1e-3 seed=0": "sft", "grpo lr=1e-3 seed=0": "grpo", "learning_rate_0 lr=0 seed=0": "learning_rate_0"}
    assert arms.keys() <= tasks.keys()
    for name, run in tasks.items():
        own = {f"method:{arms[name]}"} if name in arms else set()
        assert set(run.tags) == TAGS | own, name


def test_progress_ends_at_the_whole(seen):
    _, _, artifacts = seen
    assert (artifacts["study-smoke-arms"].data, artifacts["study-smoke-arms"].description) == (100, "3 of 3 arms have ended")
    assert (artifacts["study-smoke-base"].data, artifacts["study-smoke-base"].description) == (100, "training lab/smoke: 100 %")


def test_the_table_is_the_method_summary_in_points(seen, flow_home):
    (flow,), tasks, artifacts = seen
    table = artifacts["study-smoke-methods"]
    assert table.type == "table"
    assert (table.flow_run_id, table.task_run_id) == (flow.id, tasks["show results in prefect"].id)
    rows = {row["method"]: row for row in json.loads(table.data)}
    with open_warehouse(flow_home[0] / "warehouse.duckdb") as con:
        sql = """SELECT method, gain, "drop", drop_low, drop_high FROM method_summary WHERE role = 'method'"""
        expected = con.execute(sql).fetchall()
    assert len(expected) == len(rows) == 2
    for method, gain, drop, low, high in expected:
        assert float(rows[method]["gain"]) == pytest.approx(100 * gain, abs=0.05)
        assert float(rows[method]["drop"]) == pytest.approx(100 * drop, abs=0.05)
        assert json.loads(rows[method]["drop, 95 %"].replace("+", "")) == pytest.approx([100 * low, 100 * high], abs=0.05)


def test_the_summary_says_what_came_out_and_where_and_nothing_of_the_environment(seen, flow_home):
    home, done = flow_home
    _, _, artifacts = seen
    summary = artifacts["study-smoke-summary"]
    assert summary.type == "markdown"
    assert summary.data.startswith("# smoke: withheld\n")
    assert "| learning_rate_0 |" in summary.data
    assert "| passed |" in summary.data
    figure = summary.data.split("**")[1]
    assert f"{figure} points" in done.stdout
    assert str(home / "reports" / "smoke" / "index.html") in summary.data
    assert str(home / "mlflow.db") in summary.data
    everything = " ".join(str(a.data) + (a.description or "") for a in artifacts.values())
    assert not {"PATH=", "HOME=", "TOKEN", "KEY="} & set(everything.upper().split())
    assert set(artifacts) == {f"study-smoke-{what}" for what in ("arms", "base", "methods", "summary")}


WITHOUT_THE_API = """
import sys
from pathlib import Path
from retain_core.run import open_study
from retain_core.settings import Settings
from retain_core.study_file import load_study
from tasks.artifacts import Artifacts

shown = Artifacts("smoke")
with open_study(load_study(sys.argv[1]), Settings(home=Path(sys.argv[2]))) as running:
    running.plan.base_weights = None
    running.finished = lambda: print("an arm has ended")
    with shown.base(running), shown.arms(running):
        running.finished()
    shown.show_results(running)
"""


def test_a_study_goes_on_without_the_api_and_says_so_once(home, smoke_study):
    gone = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_CLIENT_MAX_RETRIES": "0"}
    command = [sys.executable, "-c", WITHOUT_THE_API, str(smoke_study), str(home)]
    done = subprocess.run(command, cwd=ROOT, env=environment(home) | gone, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "an arm has ended\n"
    assert done.stderr.count("Prefect's API did not take an artifact") == 1
