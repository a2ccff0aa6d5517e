"""The body of `retain up`: Prefect's server, pools, workers and deployments, and MLflow's UI, on this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from filelock import FileLock, Timeout

from flows.parts import MLFLOW, POOLS, SERVER, Places, checkout, environment_of, mlflow, server, worker
from retain_core.devices import has_cuda
from retain_core.errors import InputError, RetainError
from retain_core.redact import redact
from retain_core.settings import Settings, settings
from retain_core.store import write_atomically
from retain_core.supervise import Part, end_all, watch

HEALTHY_SECONDS = 180.0


def up(host: str, prefect_port: int, mlflow_port: int) -> int:
    """Run everything until Ctrl-C or SIGTERM, then end it all. Returns the exit code: 0 stopped, 1 given up."""
    config = settings()
    places = Places(config.home.resolve(), checkout(), host, prefect_port, mlflow_port)
    state = places.home / "up" / "state.json"
    state.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(state.parent / "lock").acquire(timeout=0)
    except Timeout:
        told = json.loads(state.read_text(encoding="utf-8")) if state.is_file() else {"pid": "another process"}
        say(f"already up in {places.home}: " + ", ".join(f"{name} {value}" for name, value in told.items()))
        return 0
    with lock:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _interrupt)
        try:
            return _run(places, config, state)
        except KeyboardInterrupt:
            return 0
        finally:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            say("stopping")
            _end(places.home)
            state.unlink(missing_ok=True)


def _run(places: Places, config: Settings, state: Path) -> int:
    if left := _end(places.home):
        say(f"ended {left} processes that an earlier `retain up` left behind")
    environment = environment_of(places)
    parts = [server(places, environment)] + ([] if config.mlflow_uri else [mlflow(places, config, environment)])
    _need_port(places.host, places.prefect_port, "--prefect-port")
    if not config.mlflow_uri:
        _need_port(places.host, places.mlflow_port, "--mlflow-port")
    told: dict[str, Any] = {"pid": os.getpid(), "Prefect": places.prefect}
    told["MLflow"] = config.mlflow_place if config.mlflow_uri else places.mlflow
    write_atomically(state, json.dumps(told))
    for part in parts:
        part.start(places.home)
    _healthy(parts[0], f"{places.prefect}/api/health")
    say(f"Prefect  {places.prefect}")
    if len(parts) > 1:
        _healthy(parts[1], f"{places.mlflow}/health")
    say(f"MLflow   {told['MLflow']}")
    make_pools(places, environment)
    workers = [worker(pool, places, environment) for pool in POOLS if pool == "cpu-pool" or has_cuda()]
    for part in workers:
        part.start(places.home)
    deploy(places, environment, parts[0].log)
    for part in workers:
        _online(part, places)
    say(f"ready; home {places.home}, logs {places.home / 'logs' / 'up'}; Ctrl-C ends all")
    watch([*parts, *workers], places.home, SERVER, say)
    return 1


def make_pools(places: Places, environment: dict[str, str]) -> None:
    """Make the pools that are missing; those that are there keep what was set in them."""
    os.environ.update(environment)  # Prefect reads it as it is imported
    from prefect.workers.process import ProcessWorker

    body = {"type": "process", "base_job_template": ProcessWorker.get_default_base_job_template()}
    for pool in POOLS:
        answer = httpx.post(f"{places.prefect}/api/work_pools/", json={"name": pool, **body}, timeout=60)
        if answer.status_code != httpx.codes.CONFLICT:  # it is there
            answer.raise_for_status()


def deploy(places: Places, environment: dict[str, str], log: Path) -> None:
    """Make the deployments of prefect.yaml."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(command, cwd=places.code, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise RetainError(f"`prefect deploy --all` failed: {' '.join(last)}; the server's log is {log}")
    found = httpx.post(f"{places.prefect}/api/deployments/filter", json={}, timeout=60).raise_for_status().json()
    say(
        "deployments: "
        + ", ".join(sorted(f"{one['entrypoint'].split(':')[1].replace('_', '-')}/{one['name']}" for one in found))
    )


def say(text: str) -> None:
    """Print a line at once, without secrets."""
    print(f"retain up: {redact(text)}", flush=True)


def _online(worker: Part, places: Places) -> None:
    pool = worker.name.removeprefix("worker-")
    address, body = f"{places.prefect}/api/work_pools/{pool}/workers/filter", {"workers": {"status": {"any_": ["ONLINE"]}}}
    _until(worker, lambda: bool(httpx.post(address, json=body, timeout=10).raise_for_status().json()))
    say(f"worker   {pool}")


def _healthy(part: Part, address: str) -> None:
    _until(part, lambda: httpx.get(address, timeout=10).is_success)


def _until(part: Part, true: Any) -> None:
    deadline = time.monotonic() + HEALTHY_SECONDS
    while time.monotonic() < deadline and part.exit_code is None:
        try:
            if true():
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    what = "did not become healthy" if part.exit_code is None else f"ended with exit code {part.exit_code}"
    raise RetainError(f"{part.name} {what}; look at {part.log}")


def _need_port(host: str, port: int, option: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InputError(
                f"{host}:{port} cannot be listened on ({error.strerror}); give another port with {option}"
            ) from None


def _end(home: Path) -> int:
    """Workers and their runs end while the server still hears it."""
    parts = [*(f"worker-{pool}" for pool in POOLS), MLFLOW, SERVER]
    return sum(end_all(home, part) for part in parts)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
