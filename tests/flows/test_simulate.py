"""The simulation as a flow: a run on a real server leaves what the command prints as artifacts."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT, environment, retain

pytestmark = pytest.mark.prefect

RUN = """
import json
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter
from flows.simulate import simulate
simulate(seeds=2, sweep_seeds=2, seed=3)
with get_client(sync_client=True) as client:
    runs = client.read_flow_runs(flow_filter=FlowFilter(name={"any_": ["simulate"]}))
    artifacts = client.read_artifacts(flow_run_filter=FlowRunFilter(id={"any_": [run.id for run in runs]}))
print(json.dumps({"runs": [[r.name, r.state_type.value] for r in runs], "artifacts": {a.key: a.data for a in artifacts}}))
"""


def test_the_flow_shows_the_published_setting_and_the_sweep(tmp_path, fresh_prefect):
    there = environment(tmp_path) | {"PREFECT_API_URL": f"{fresh_prefect}/api"}
    done = subprocess.run([sys.executable, "-c", RUN], cwd=ROOT, env=there, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["runs"] == [["simulate 2 seeds of stream 3", "COMPLETED"]]
    assert found["artifacts"].keys() == {"simulate-published", "simulate-sweep"}
    printed = retain("simulate", "--seeds", "2", "--seed", "3", "--format", "markdown", home=tmp_path)
    assert found["artifacts"]["simulate-published"].strip() == printed.stdout.strip()
    assert {path.name for path in (tmp_path / "reports" / "simulate").iterdir()} >= {"sweep.csv", "sweep.svg"}
