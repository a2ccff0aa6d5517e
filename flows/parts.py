"""What `retain up` consists of: where things are, and the command line and environment of each part."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from retain_core.devices import cores, visible
from retain_core.errors import InputError
from retain_core.settings import Settings
from retain_core.supervise import Part

POOLS = ("cpu-pool", "gpu-pool")
STUDIES = 4
"""Runs of studies and of the watch, which wait for their arms: one of each deployment that prefect.yaml lets run at a time."""
SERVER, MLFLOW = "prefect-server", "mlflow"


@dataclass(frozen=True)
class Places:
    """Where things are: the home, the checkout with prefect.yaml, and the addresses to listen on."""

    home: Path
    code: Path
    host: str
    prefect_port: int
    mlflow_port: int

    @property
    def prefect(self) -> str:
        """The address of Prefect's server."""
        return f"http://{self.host}:{self.prefect_port}"

    @property
    def mlflow(self) -> str:
        """The address of MLflow's server."""
        return f"http://{self.host}:{self.mlflow_port}"


def environment_of(places: Places) -> dict[str, str]:
    """The environment of every part: this home, this server, this checkout; nothing is reported to anybody."""
    defaults = {
        "PREFECT_HOME": str(places.home / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }  # fmt: skip
    fixed = {
        "RETAIN_HOME": str(places.home), "RETAIN_CODE": str(places.code), "PREFECT_API_URL": f"{places.prefect}/api",
        "PREFECT_UI_API_URL": f"{places.prefect}/api", "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join([str(places.code), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }  # fmt: skip
    return defaults | dict(os.environ) | fixed


def checkout() -> Path:
    """The folder of prefect.yaml: the working folder, or the checkout that retain runs from. Raises InputError."""
    for folder in (Path.cwd(), Path(__file__).resolve().parent.parent):
        if (folder / "prefect.yaml").is_file() and (folder / "flows").is_dir():
            return folder
    raise InputError("`retain up` needs a checkout of retain: run it in the folder that holds prefect.yaml")


def server(places: Places, environment: dict[str, str]) -> Part:
    """Prefect's server with its UI."""
    command = ["prefect", "server", "start", "--host", places.host, "--port", str(places.prefect_port)]
    return _part(SERVER, command, places, environment)


def mlflow(places: Places, config: Settings, environment: dict[str, str]) -> Part:
    """MLflow on the database that retain logs to by itself."""
    store = ["--backend-store-uri", f"sqlite:///{places.home / 'mlflow.db'}"]
    store += ["--default-artifact-root", (places.home / config.mlflow_artifacts.name).as_uri()]
    command = ["mlflow", "server", *store, "--workers", "1", "--host", places.host, "--port", str(places.mlflow_port)]
    return _part(MLFLOW, command, places, environment)


def worker(pool: str, places: Places, environment: dict[str, str]) -> Part:
    """A worker of a process pool; the runs that it starts are its children."""
    limit = cores() + STUDIES if pool == "cpu-pool" else len(visible())
    command = ["prefect", "worker", "start", "--pool", pool, "--type", "process", "--name", f"{pool} of retain up"]
    command += ["--limit", str(limit)]
    return _part(f"worker-{pool}", command, places, environment)


def _part(name: str, command: list[str], places: Places, environment: dict[str, str]) -> Part:
    log = places.home / "logs" / "up" / f"{name}.log"
    return Part(name, [sys.executable, "-m", *command], environment, places.code, log)
