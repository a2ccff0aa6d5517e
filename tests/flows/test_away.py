"""MLflow or Prefect's API is away, or goes away in the middle: results are kept, and logged later without doubles."""

import shutil
import subprocess
import sys
import time
from urllib.parse import urlsplit

import pytest
from mlflow import MlflowClient

from retain_core.run import log_tracking, open_study, run_all
from retain_core.study_file import load_study
from retain_core.warehouse.query import open_warehouse
from tests.component.test_tracking import Logged
from tests.conftest import ROOT, environment, mlflow_server, serving_prefect, settings_at
from tests.door import Door

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory):
    """An empty MLflow server, its folder, and a door in front of it."""
    folder = tmp_path_factory.mktemp("mlflow")
    with mlflow_server(folder) as address:
        yield folder, Door(address)


def run_with(door, home, study_file, steps=run_all):
    """Run a study, or these steps of it, as plain functions with its MLflow behind a door. Returns what failed."""
    config = settings_at(home).model_copy(update={"mlflow_uri": door.address})
    with open_study(load_study(study_file), config) as running:
        return steps(running)


def test_what_mlflow_missed_is_logged_later_and_once(home, smoke_study, mlflow, finished_home, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    shutil.rmtree(home / "reports")
    (home / "warehouse.duckdb").unlink()
    folder, door = mlflow
    door.shut = True
    assert run_with(door, home, smoke_study) == {}
    assert f"MLflow {door.address} did not take the results" in caplog.text
    assert (home / "reports" / "smoke" / "index.html").is_file()
    with open_warehouse(home / "warehouse.duckdb") as con:
        assert con.execute("SELECT count(*) FROM forgetting").fetchone()[0] > 0

    door.shut = False
    for answers in (12, 40):  # it goes away in the middle, twice
        first = door.answers
        door.loses = lambda n, first=first, answers=answers: n > first + answers
        assert "did not take the results" in run_with(door, home, smoke_study, log_tracking)

    # Answers are lost, so what was done is asked for again.
    lost, door.loses = door.lost, lambda n: n % 25 == 0
    for _ in range(10):
        if not run_with(door, home, smoke_study, log_tracking):
            break
    assert door.lost > lost
    assert Logged(folder).values() == Logged(finished_home).values()


def more(smoke_study, tmp_path):
    """The smoke study with an arm that is not trained yet."""
    study = tmp_path / "smoke.yaml"
    study.write_text(smoke_study.read_text().replace("[sft, grpo]", "[sft, grpo, sft_in_style]"))
    return study


def begin(study, home, api, **settings):
    command = [sys.executable, "-m", "flows.cli", "run", str(study)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment(home) | {"PREFECT_API_URL": f"{api}/api"} | settings, **streams)


def arm_begun(process, home):
    """Wait until the arm is being trained. Returns its log."""
    log = home / "logs" / "smoke" / "sft_in_style-lr1e-3-s0.log"
    while not log.exists():
        assert process.poll() is None
        time.sleep(0.05)
    return log


def finished(process, home):
    """What a process said of Prefect, when it ended well and everything is there."""
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert "wall time" in out
    with open_warehouse(home / "warehouse.duckdb") as con:
        assert con.execute("SELECT DISTINCT status FROM arms WHERE status IS NOT NULL").fetchall() == [("done",)]
        assert con.execute("SELECT count(*) FROM forgetting WHERE method = 'sft_in_style'").fetchone()[0] > 0
    assert "sft_in_style" in (home / "reports" / "smoke" / "index.html").read_text()
    client = MlflowClient(settings_at(home).mlflow_tracking_uri)
    assert {run.info.status for run in client.search_runs(["1"])} == {"FINISHED"}
    return err


def test_a_study_runs_where_prefect_does_not_answer(home, smoke_study, tmp_path):
    said = finished(begin(more(smoke_study, tmp_path), home, "http://127.0.0.1:9", PREFECT_CLIENT_MAX_RETRIES="0"), home)
    assert said.count("Prefect's API does not answer") == 1


@pytest.mark.slow
def test_a_study_goes_on_when_prefect_goes_away_in_the_middle(home, smoke_study, tmp_path, fresh_prefect):
    door = Door(fresh_prefect)
    process = begin(more(smoke_study, tmp_path), home, door.address, PREFECT_CLIENT_MAX_RETRIES="1")
    log = arm_begun(process, home)
    door.close()
    said = finished(process, home)
    assert said.count("Prefect's API does not answer") == 1
    assert log.read_text().count("trained 4 updates") == 1


@pytest.mark.slow
def test_a_study_outlives_a_restart_of_prefect(home, smoke_study, tmp_path):
    server = tmp_path / "server"
    (server / "prefect").mkdir(parents=True)
    with serving_prefect(server) as address:
        process = begin(more(smoke_study, tmp_path), home, address)
        log = arm_begun(process, home)
    with serving_prefect(server, port=urlsplit(address).port):
        said = finished(process, home)
    assert said.count("Prefect's API does not answer") <= 1
    assert log.read_text().count("trained 4 updates") == 1
