"""`retain up` with real servers and workers: one command starts all, one signal ends all, a kill leaves nothing to clean up."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import psutil
import pytest

from retain_core.supervise import Part, end_all, marked, watch
from tests.conftest import ROOT, environment, retain
from tests.scan import PLANTED, Ports, where

pytestmark = pytest.mark.prefect


def free_ports():
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


class Up:
    """A `retain up` in a process of its own."""

    def __init__(self, home):
        self.home, self.ports = home.resolve(), free_ports()
        self.options = ["--prefect-port", str(self.ports[0]), "--mlflow-port", str(self.ports[1])]
        self.api = f"http://127.0.0.1:{self.ports[0]}/api"
        self.started = 0

    def start(self):
        self.started += 1
        self.log = self.home / f"printed-{self.started}"
        command = [sys.executable, "-m", "flows.cli", "up", *self.options]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=self.environment(), stdout=log, stderr=log)
        self.until(lambda: "ready" in self.printed())

    def environment(self):
        return {k: v for k, v in environment(self.home).items() if k != "PREFECT_API_URL"} | PLANTED

    def printed(self):
        return self.log.read_text()

    def until(self, true, seconds=150):
        deadline = time.monotonic() + seconds
        while not true():
            assert self.process.poll() is None, self.printed()
            assert time.monotonic() < deadline, self.printed()
            time.sleep(0.5)

    def ask(self, what, body):
        request = urllib.request.Request(f"{self.api}/{what}", json.dumps(body).encode(), {"Content-Type": "application/json"})
        return json.loads(urllib.request.urlopen(request, timeout=20).read())

    def workers(self):
        return self.ask("work_pools/cpu-pool/workers/filter", {"workers": {"status": {"any_": ["ONLINE"]}}})

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(timeout=90)


@pytest.fixture
def up(tmp_path):
    one = Up(tmp_path)
    yield one
    with contextlib.suppress(AttributeError, psutil.NoSuchProcess):
        one.process.kill()
    end_all(one.home)


@pytest.mark.slow
def test_one_command_starts_all_and_one_signal_ends_all(up):
    with Ports() as ports:
        up.start()
    assert ports.seen == {"127.0.0.1"}
    assert f"http://127.0.0.1:{up.ports[0]}" in up.printed()
    assert f"http://127.0.0.1:{up.ports[1]}" in up.printed()
    assert {"study-file/smoke", "study-file/lab", "arm/cpu-pool"} <= set(up.printed().replace(",", " ").split())
    assert len(up.workers()) == 1
    assert urllib.request.urlopen(f"http://127.0.0.1:{up.ports[1]}/", timeout=30).status == 200
    mlflow = f"http://127.0.0.1:{up.ports[1]}"
    told = retain("doctor", home=up.home, RETAIN_MLFLOW_URI=mlflow)
    assert told.returncode == 0, told.stdout
    assert f"mlflow: {mlflow} answers" in told.stdout
    assert "prefect: 1 workers online in cpu-pool" in told.stdout
    again = retain("up", *up.options, home=up.home)
    assert again.returncode == 0
    assert "already up" in again.stdout
    assert up.api.removesuffix("/api") in again.stdout
    assert len(marked(up.home)) >= 3
    assert up.stop(signal.SIGINT) == 0
    assert marked(up.home) == []
    for port in up.ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    assert where(up.home, list(PLANTED.values())) == []  # databases, logs and what was printed


def test_a_port_that_is_taken_is_one_sentence(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        told = retain("up", "--prefect-port", str(taken.getsockname()[1]), home=tmp_path)
    assert told.returncode == 2
    assert told.stderr.startswith("retain: 127.0.0.1:")
    assert "--prefect-port" in told.stderr
    assert marked(tmp_path.resolve()) == []


@pytest.mark.slow
def test_a_killed_up_is_taken_over_and_its_deployments_run(up):
    up.start()
    before = {process.pid for process in marked(up.home)}
    os.kill(up.process.pid, signal.SIGKILL)
    up.process.wait()
    assert {process.pid for process in marked(up.home)} == before
    up.start()
    assert "left behind" in up.printed()
    assert not before & {process.pid for process in marked(up.home)}

    (deployment,) = (one for one in up.ask("deployments/filter", {}) if one["name"] == "smoke")
    run = up.ask(f"deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})
    done = ("COMPLETED", "FAILED", "CRASHED")
    filter_ = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    up.until(lambda: up.ask("flow_runs/filter", filter_)[0]["state"]["type"] in done, seconds=400)
    log = (up.home / "logs" / "up" / "worker-cpu-pool.log").read_text()[-3000:]
    assert up.ask("flow_runs/filter", filter_)[0]["state"]["type"] == "COMPLETED", log
    assert (up.home / "reports" / "smoke" / "index.html").is_file()

    (worker,) = (p for p in marked(up.home, "worker-cpu-pool") if "worker" in p.cmdline())
    worker.kill()
    up.until(lambda: "started again (1 of 3)" in up.printed())
    assert up.stop() == 0
    assert marked(up.home) == []


class TestSupervision:
    def part(self, home, name, code):
        command = [sys.executable, "-c", code]
        return Part(name, command, dict(os.environ), home, home / f"{name}.log")

    def test_what_dies_again_and_again_is_given_up_with_its_log(self, tmp_path):
        part, said = self.part(tmp_path, "essential", "import sys; sys.exit(7)"), []
        part.start(tmp_path)
        watch([part], tmp_path, "essential", said.append)
        assert [line.split(";")[1].split(",")[0] for line in said[:3]] == [f" started again ({i} of 3)" for i in (1, 2, 3)]
        assert len(said) == 4
        assert "exit code 7" in said[-1]
        assert str(part.log) in said[-1]

    def test_grandchildren_in_sessions_of_their_own_end_too(self, tmp_path):
        sleep = "import time; time.sleep(60)"

        parent = (
            f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleep!r}], start_new_session=True); print('x')"
        )
        part, other = self.part(tmp_path, "parent", parent), self.part(tmp_path, "other", sleep)
        part.start(tmp_path)
        other.start(tmp_path)
        part.process.wait(timeout=30)  # its child has no parent any more
        assert len(marked(tmp_path, "parent")) == 1
        assert end_all(tmp_path, "parent") == 1
        assert marked(tmp_path, "parent") == []
        assert len(marked(tmp_path)) == 1
        other.process.kill()
        other.process.wait()
