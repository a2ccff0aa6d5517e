"""What tests share: the smallest study, run once for real as plain functions, and its pieces."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.order import pytest_xdist_make_scheduler  # noqa: F401
from tests.scan import PLANTED, Ports

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait are fatal on shared cores
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")

ROOT = Path(__file__).parent.parent


def settings_at(home: Path):
    from retain_core.settings import Settings

    return Settings(home=home)


def run_plain(study_file: Path, home: Path) -> dict[str, str]:
    """Run a study as plain functions, without Prefect. Returns the arms that failed."""
    from retain_core.run import open_study, run_all
    from retain_core.study_file import load_study

    with open_study(load_study(study_file), settings_at(home)) as running:
        return run_all(running)


RUN_PLAIN = "import sys, pathlib; from tests.conftest import run_plain; print(run_plain(*map(pathlib.Path, sys.argv[1:])))"
"""The same in a process of its own: `python -c RUN_PLAIN STUDY HOME`."""


def environment(home: Path) -> dict[str, str]:
    """The environment of a `retain` process that works in a home."""
    return {**os.environ, "RETAIN_HOME": str(home), "PREFECT_HOME": str(home / "prefect"), "PYTHONPATH": str(ROOT)}


def retain(*arguments: str, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "flows.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(home) | more, capture_output=True, text=True, timeout=300)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Any]]:
    """`retain` in this process, for the second and further calls of a command: starting Python is most of such a call."""
    from flows.cli import main
    from retain_core.settings import settings

    def call(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.setenv("RETAIN_HOME", str(home))
        monkeypatch.setattr(sys, "argv", ["retain", *arguments])
        settings.cache_clear()
        capsys.readouterr()
        with contextlib.chdir(ROOT), pytest.raises(SystemExit) as ended:
            main()
        return subprocess.CompletedProcess(arguments, ended.value.code or 0, *capsys.readouterr())

    yield call
    settings.cache_clear()


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that one process of a test run fills and all of them read."""
    own = factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder, made = shared / name, shared / f"{name}.made"
    with FileLock(shared / f"{name}.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


@pytest.fixture(scope="module", autouse=True)
def nothing_to_collect() -> Iterator[None]:
    """Trainers, and statsmodels in every call, collect garbage among all that was imported, half a second each time."""
    gc.freeze()
    yield
    gc.collect()  # what this file left; else it would be frozen with the next
    gc.unfreeze()


@pytest.fixture(scope="session")
def smoke_study() -> Path:
    return ROOT / "studies" / "smoke.yaml"


@pytest.fixture(scope="session")
def finished_home(tmp_path_factory: pytest.TempPathFactory, smoke_study: Path) -> Path:
    """A home in which the smoke study has run. Read only, also by other processes; take `home` to change things."""

    def make(home: Path) -> None:
        assert run_plain(smoke_study, home) == {}

    return made_once(tmp_path_factory, "finished", make)


@pytest.fixture(scope="session")
def with_base(finished_home: Path) -> Callable[[Path], Path]:
    """Makes a home in which the smoke base is trained and nothing else was done."""

    def make(home: Path) -> Path:
        shutil.copytree(finished_home / "artifacts" / "base", home / "artifacts" / "base")
        return home

    return make


@pytest.fixture
def home(finished_home: Path, tmp_path: Path) -> Path:
    """A copy of the finished home that a test may spoil."""
    return copied(finished_home, tmp_path / "home")


def copied(finished_home: Path, copy: Path) -> Path:
    """A copy of a finished home."""
    shutil.copytree(finished_home, copy)
    with contextlib.closing(sqlite3.connect(copy / "mlflow.db")) as con, con:  # MLflow keeps absolute places
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
        ):
            con.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (finished_home.as_uri(), copy.as_uri()))
    return copy


@pytest.fixture(scope="session")
def flow_home(tmp_path_factory: pytest.TempPathFactory, smoke_study: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A fresh home in which `retain run` ran the study as a flow on Prefect's own temporary server, and what it printed.

    Its path has a space and letters that are not ASCII, its clock is a day ahead of others, and its user's folder is new.
    """
    home, user = tmp_path_factory.mktemp("flow é 模型"), tmp_path_factory.mktemp("user")
    started = time.monotonic()
    with Ports() as ports:
        done = retain("run", str(smoke_study), home=home, TZ="Pacific/Kiritimati", HOME=str(user), **PLANTED)
    done.ports, done.user = ports.seen, user
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 240
    return home, done


@contextlib.contextmanager
def mlflow_server(folder: Path, database: str | None = None) -> Iterator[str]:
    """The address of a real MLflow server on a database, or on the SQLite of a folder, made if it is not there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = ["--backend-store-uri", database or f"sqlite:///{folder / 'mlflow.db'}"]
    store += ["--artifacts-destination", str(folder / "mlartifacts")]
    command = [sys.executable, "-m", "mlflow", "server", *store, "--workers", "1", "--port", str(port)]
    settings = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=settings, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/health", server, folder / "log")
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


@pytest.fixture(scope="session")
def prefect_server(flow_home: tuple[Path, object], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Prefect server with its UI, on a copy of what that flow left behind. Only to be read."""
    home = tmp_path_factory.mktemp("server")
    shutil.copytree(flow_home[0] / "prefect", home / "prefect")
    with serving_prefect(home) as address:
        yield address


@pytest.fixture(scope="session")
def fresh_prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Prefect server that began with nothing; several tests use it, so each looks at its own runs."""
    with serving_prefect(tmp_path_factory.mktemp("fresh")) as address:
        yield address


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a webhook that answers with a failure, and the documents that it was sent."""
    with listening() as found:
        yield found


@contextlib.contextmanager
def listening() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The same for as long as it is wanted."""
    bodies: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/very-secret-path", bodies
        server.shutdown()


@contextlib.contextmanager
def serving_prefect(home: Path, port: int | None = None, **more: str) -> Iterator[str]:
    """The address of a real Prefect server whose database lies in a home, on a free port unless one is given."""
    if port is None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    more = {"PREFECT_UI_API_URL": f"{address}/api", "PREFECT_SERVER_LOGGING_LEVEL": "ERROR"} | more
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment(home) | more, stdout=log, stderr=log)
    try:
        _wait_for(f"{address}/api/health", server, home / "server.log")
        yield address
    finally:
        server.terminate()
        server.wait(timeout=30)


def _wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 180
    while not _healthy(address):
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.5)


def _healthy(address: str) -> bool:
    try:
        return urllib.request.urlopen(address, timeout=5).status == 200
    except OSError:
        return False


@pytest.fixture(scope="session")
def warehouse(finished_home: Path):
    from retain_core.warehouse.query import open_warehouse

    with open_warehouse(finished_home / "warehouse.duckdb") as con:
        yield con


@pytest.fixture(scope="session")
def smoke_plan(finished_home: Path, smoke_study: Path):
    from retain_core.plan import plan_study
    from retain_core.store import Store
    from retain_core.study_file import load_study

    return plan_study(load_study(smoke_study), Store(finished_home / "artifacts"))


@pytest.fixture(scope="session")
def base_model(smoke_plan):
    """The smoke base and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = smoke_plan.base_path
    return AutoModelForCausalLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)


def manifests(home: Path) -> dict[str, dict]:
    """Every manifest of a home by its path."""
    found = (home / "artifacts").glob("*/*/manifest.json")
    return {str(p.relative_to(home)): json.loads(p.read_text()) for p in found}
