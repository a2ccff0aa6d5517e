"""Arms on a work pool: a real server on Postgres and real workers; the same numbers as in one process."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import DeploymentFilter
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling

from retain_core.lease import living
from retain_core.warehouse.query import open_warehouse
from tests.conftest import ROOT, copied, environment, listening, run_plain, serving_prefect
from tests.faults.kill import left_over, outcome
from tests.postgres import dumped, new_database, postgres
from tests.scan import PLANTED, where

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def database():
    """The address of the server's database."""
    with postgres() as server:
        yield new_database(server, "prefect")


@pytest.fixture(scope="module")
def server_home(tmp_path_factory):
    """Where the server keeps what is not in its database."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def pools(server_home, database):
    """Settings with which a process finds the server, on which both pools exist."""
    address_of_database = database.replace("postgresql:", "postgresql+asyncpg:")
    with serving_prefect(server_home, PREFECT_API_DATABASE_CONNECTION_URL=address_of_database) as address:
        settings = {"PREFECT_API_URL": f"{address}/api"}
        for pool in ("cpu-pool", "gpu-pool"):
            prefect(server_home, settings, "work-pool", "create", pool, "--type", "process")
        yield settings


def prefect(home, settings, *arguments):
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment(home) | settings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@contextlib.contextmanager
def worker(home, settings, name, folder):
    """A worker in a folder and a process group of its own; it runs at most four flows at a time."""
    folder.mkdir()
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "cpu-pool", "--name", name, "--limit", "4"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(home) | settings, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):  # at the very end of a run it may wait for that run for ever
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)
                break


def deploy(home, settings):
    prefect(home, settings | {"RETAIN_CODE": str(ROOT), "RETAIN_HOME": str(home)}, "deploy", "--all")


@contextlib.contextmanager
def client_of(settings):
    with temporary_settings({PREFECT_API_URL: settings["PREFECT_API_URL"]}), get_client(sync_client=True) as client:
        yield client


def until(true, seconds):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def ended(client, run, seconds):
    """The state in which a flow run ends."""
    until(lambda: client.read_flow_run(run).state.is_final(), seconds)
    return client.read_flow_run(run).state


def begin(study, home, settings):
    command = [sys.executable, "-m", "flows.cli", "run", str(study)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment(home) | settings, **streams)


def of_pool(smoke_study, tmp_path, methods="[sft, grpo, sft_in_style]", **more):
    """The smoke study with more arms, inline and on the pool. They are trained the same."""
    text = smoke_study.read_text().replace("[sft, grpo]", methods)
    for before, after in more.items():
        text = text.replace(before, after)
    inline, pooled = tmp_path / "inline.yaml", tmp_path / "pool.yaml"
    inline.write_text(text)
    pooled.write_text(text + "execution: {work_pool: cpu-pool}\n")
    return inline, pooled


def test_the_server_keeps_what_it_knows_in_postgres(pools, database, server_home):
    import psycopg

    with psycopg.connect(database) as con:
        told = con.execute("SELECT name, type FROM work_pool ORDER BY name").fetchall()
    assert told == [("cpu-pool", "process"), ("gpu-pool", "process")]
    assert not list(server_home.rglob("*.db"))


@dataclass
class Served:
    """A home whose deployments are known, a worker that serves it, and a webhook that the worker knows."""

    home: Path
    settings: dict[str, str]
    worker: Path
    told: list[dict[str, Any]]


@pytest.fixture(scope="class")
def served(finished_home, pools, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    home = copied(finished_home, folder / "home")
    with listening() as (address, told):
        known = pools | PLANTED
        deploy(home, known)
        with worker(home, known | {"RETAIN_ALERT_URL": address}, "one", folder / "one"):
            yield Served(home, known, folder / "one", told)


class TestOneWorker:
    def test_arms_on_a_pool_are_those_of_one_process(self, served, home, smoke_study, tmp_path, server_home, database):
        """`home` is the other one, in which the same arms are trained inline."""
        inline, pooled = of_pool(smoke_study, tmp_path)
        run = begin(pooled, served.home, served.settings)
        out, err = run.communicate(timeout=400)
        assert run.returncode == 0, out + err
        assert "1 of 4 arms to run" in out
        assert run_plain(inline, home) == {}
        assert outcome(served.home) == outcome(home)
        assert left_over(served.home) == []
        for place in (served.home, server_home, served.worker):
            assert where(place, list(PLANTED.values())) == []
        known_to_server = dumped(database)  # parameters, variables of jobs, logs and states
        assert "sft_in_style-lr1e-3-s0" in known_to_server
        assert not [secret for secret in PLANTED.values() if secret in out + err + known_to_server]

    @pytest.mark.slow
    def test_a_study_given_as_a_parameter_with_nothing_to_do_is_unchanged(self, served, smoke_study):
        given = {"study": yaml.safe_load(smoke_study.read_text())}
        with client_of(served.settings) as client:
            deployment = client.read_deployment_by_name("study-given/by-parameter")
            run = client.create_flow_run_from_deployment(deployment.id, parameters=given)
            state = ended(client, run.id, 120)
        assert (state.name, state.type.value) == ("Unchanged", "COMPLETED")
        assert "nothing to train or evaluate" in state.message
        assert served.told == []

    @pytest.mark.slow
    def test_a_nightly_that_fails_raises_an_alert(self, served, tmp_path):
        (tmp_path / "bad.yaml").write_text("study: bad\n")
        with client_of(served.settings) as client:
            deployment = client.read_deployment_by_name("study-file/smoke")
            night = client.create_flow_run_from_deployment(deployment.id, parameters={"path": str(tmp_path / "bad.yaml")})
            assert ended(client, night.id, 120).is_failed()
            until(lambda: served.told, 30)
        (alert,) = served.told
        assert (alert["event"], alert["flow"], alert["id"]) == ("retain.run.failed", "study-file", str(night.id))
        assert str(tmp_path / "bad.yaml") in alert["message"]
        assert alert["url"].endswith(f"/runs/flow-run/{night.id}")
        assert "very-secret-path" not in (served.worker / "log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["with all its processes", "alone"])
def test_a_worker_that_is_killed_loses_nothing(home, smoke_study, tmp_path, pools, tmp_path_factory, how):
    """Two workers, twelve arms; one worker is killed while an arm trains. Alone, its arms go on without it."""
    longer = {"seeds: [0]": "seeds: [0, 1, 2, 3]", "updates: 4": "updates: 40"}
    inline, pooled = of_pool(smoke_study, tmp_path, **longer)
    other = tmp_path_factory.mktemp("inline") / "home"
    shutil.copytree(home, other)
    deploy(home, pools)
    often = pools | {"RETAIN_RESUME_SECONDS": "0"}
    with worker(home, often, "one", tmp_path / "one") as first, worker(home, often, "two", tmp_path / "two"):
        run = begin(pooled, home, pools)
        of_first = psutil.Process(first.pid)
        until(lambda: any(_trains(p, home) for p in of_first.children(recursive=True)), 300)
        first.kill() if how == "alone" else _kill_all_of(first)
        out, err = run.communicate(timeout=800)
    assert run.returncode == 0, out + err
    assert how == "alone" or err.count("is gone") >= 1
    for name in ("one", "two"):
        assert "submitting flow run" in (tmp_path / name / "log").read_text()
    told = [log.read_text() for log in (home / "logs" / "smoke").glob("*-s*.log")]
    assert sum("trained 40 updates" in text for text in told) >= 12
    assert max(text.count("trained 40 updates") for text in told) == 1
    assert how == "alone" or any("going on after update" in text for text in told)
    assert run_plain(inline, other) == {}
    assert outcome(home) == outcome(other)
    assert run_plain(pooled, home) == {}  # does nothing but clear away what the killed left
    assert left_over(home) == []


@pytest.mark.slow
def test_a_schedule_fires_by_itself(home, smoke_study, tmp_path, pools):
    """The first night trains what is new; the second finds nothing to do."""
    study, _ = of_pool(smoke_study, tmp_path)
    deploy(home, pools)
    with worker(home, pools, "one", tmp_path / "one"), client_of(pools) as client:
        deployment = client.read_deployment_by_name("study-file/smoke")
        client.update_deployment(deployment.id, DeploymentUpdate(parameters={"path": str(study)}))
        client.create_deployment_schedules(deployment.id, [(IntervalSchedule(interval=timedelta(seconds=15)), True)])

        def states():
            runs = client.read_flow_runs(deployment_filter=DeploymentFilter(id={"any_": [deployment.id]}))
            nights = [run for run in runs if run.auto_scheduled]
            return [night.state.name for night in sorted(nights, key=lambda night: night.expected_start_time)]

        until(lambda: "Unchanged" in states(), 400)
        assert [name for name in states() if name in ("Completed", "Unchanged")][:2] == ["Completed", "Unchanged"]
        assert not {"Failed", "Crashed"} & set(states())
    with open_warehouse(home / "warehouse.duckdb") as con:
        assert con.execute("SELECT count(*) FROM forgetting WHERE method = 'sft_in_style'").fetchone()[0] > 0


@pytest.mark.slow
def test_a_cancelled_study_takes_its_arms_along(home, smoke_study, tmp_path, pools):
    _, pooled = of_pool(smoke_study, tmp_path, **{"updates: 4": "updates: 4000"})
    deploy(home, pools)
    given = {"study": yaml.safe_load(pooled.read_text())}
    leases = home / "artifacts" / ".leases"
    with worker(home, pools, "one", tmp_path / "one"), client_of(pools) as client:
        deployment = client.read_deployment_by_name("study-given/by-parameter")
        run = client.create_flow_run_from_deployment(deployment.id, parameters=given)
        until(lambda: any(name.startswith("arm-") for name in living(leases)), 200)
        started = client.read_flow_runs()
        client.set_flow_run_state(run.id, Cancelling())
        assert ended(client, run.id, 120).is_cancelled()
        others = {run.id, *(flow.id for flow in started if flow.auto_scheduled)}
        arms = [flow.id for flow in started if flow.created >= run.created and flow.id not in others]
        assert len(arms) >= 3  # of the study's own flow, and of each arm
        states = {client.read_flow_run(arm).name: ended(client, arm, 60) for arm in arms}
        until(lambda: not living(leases), 60)
    assert {state.type.value for name, state in states.items() if name.startswith(("sft", "grpo"))} == {"CANCELLED"}
    assert not any(state.is_completed() for state in states.values())


@pytest.mark.slow
def test_the_automation_ends_a_study_whose_machine_was_lost(home, smoke_study, tmp_path, pools):
    inline, _ = of_pool(smoke_study, tmp_path, **{"updates: 4": "updates: 4000"})
    deploy(home, pools)
    prefect(home, pools, "automation", "create", "--from-file", str(ROOT / "deploy" / "automations.yaml"))
    beating = pools | {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
    with worker(home, beating, "one", tmp_path / "one") as machine, client_of(pools) as client:
        deployment = client.read_deployment_by_name("study-given/by-parameter")
        given = {"study": yaml.safe_load(inline.read_text())}
        run = client.create_flow_run_from_deployment(deployment.id, parameters=given)
        of_run = {"id": [f"prefect.flow-run.{run.id}"]}
        beats = {"filter": {"event": {"name": ["prefect.flow-run.heartbeat"]}, "resource": of_run}}
        until(lambda: httpx.post(f"{pools['PREFECT_API_URL']}/events/filter", json=beats).json()["events"], 200)
        _kill_all_of(machine)
        state = ended(client, run.id, 240)
    assert (state.type.value, state.message) == ("CRASHED", "no heartbeat of its process")


def _kill_all_of(worker):
    """A machine that is switched off: the worker's process group, and whatever it started elsewhere."""
    family = psutil.Process(worker.pid).children(recursive=True)
    os.killpg(worker.pid, signal.SIGKILL)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _trains(process, home):
    """Whether a process holds the lease of an arm, of which a state is stored."""
    leases, states = home / "artifacts" / ".leases", home / "artifacts" / ".resume"
    begun = [name for name in living(leases) if name.startswith("arm-") and any((states / name / "state").glob("*"))]
    return process.pid in {json.loads((leases / f"{name}.json").read_text())["pid"] for name in begun}
