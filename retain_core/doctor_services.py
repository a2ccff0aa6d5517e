"""The part of `retain doctor` that asks other programs: MLflow, Prefect's API and the cache of the hub."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

from retain_core.redact import public_address
from retain_core.settings import Settings

OK, WARNING, PROBLEM = "ok", "warning", "problem"
Findings = Iterator[tuple[str, str]]
POOLS = ("cpu-pool", "gpu-pool")
SECONDS = 10.0


def mlflow(config: Settings) -> Findings:
    """Whether the tracking server answers."""
    address = public_address(config.mlflow_uri)
    if config.mlflow_uri is None:
        yield OK, "the home's own SQLite file"
    elif address is None:
        yield OK, "RETAIN_MLFLOW_URI names a store that is no server; the next study says whether it takes results"
    else:
        try:
            httpx.get(f"{config.mlflow_uri.rstrip('/')}/health", timeout=SECONDS).raise_for_status()
            yield OK, f"{address} answers"
        except httpx.HTTPError as error:
            yield PROBLEM, f"{address} does not answer ({type(error).__name__}); start it, or unset RETAIN_MLFLOW_URI"


def prefect(home: Path, environment: Mapping[str, str]) -> Findings:
    """Whether the API answers, its version, and what `retain up` makes: pools, workers, deployments."""
    api = environment.get("PREFECT_API_URL") or _api_of_up(home)
    if not api:
        yield OK, "no server is set; `retain run` starts a temporary one, `retain up` one that stays"
        return
    told, mine = public_address(api), version("prefect")
    try:
        with httpx.Client(base_url=api.rstrip("/") + "/", timeout=SECONDS) as client:
            client.get("health").raise_for_status()
            server = client.get("admin/version").raise_for_status().json()
            pools = {one["name"] for one in _all(client, "work_pools/filter")}
            deployments = _all(client, "deployments/filter")
            workers = {pool: _online(client, pool) for pool in sorted(pools & set(POOLS))}
    except httpx.HTTPError as error:
        yield PROBLEM, f"{told} does not answer ({type(error).__name__}); `retain up` starts one, or unset PREFECT_API_URL"
        return
    same = server == mine
    yield (OK if same else WARNING), f"{told} is version {server}" + ("" if same else f", here is {mine}; install the same")
    for pool in POOLS:
        if pool not in pools:
            yield WARNING, f"there is no pool {pool}; `retain up` makes it, or `prefect work-pool create {pool} --type process`"
    for pool, online in workers.items():
        used = pool == POOLS[0] or any(one["work_pool_name"] == pool and one["name"] != pool for one in deployments)
        mend = "" if online else f"; `prefect worker start --pool {pool}` where arms should run"
        yield (OK if online or not used else WARNING), f"{online} workers online in {pool}{mend}"
    if deployments:
        yield OK, f"{len(deployments)} deployments"
    else:
        yield WARNING, "no deployments; `retain up` makes them, or `prefect --no-prompt deploy --all`"


def hub(environment: Mapping[str, str]) -> Findings:
    """Where models of the hub are kept, and whether there is a token; never its value."""
    home = Path(environment.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    token = (
        "a token is set"
        if environment.get("HF_TOKEN") or (home / "token").is_file()
        else "no token, which open models do not need"
    )
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    if place.is_dir() and os.access(place, os.W_OK):
        yield OK, f"cache {home}; {token}"
    else:
        yield WARNING, f"cache {home} cannot be written to, so `retain prefetch` fails; set HF_HOME; {token}"


def _api_of_up(home: Path) -> str | None:
    try:
        return f"{json.loads((home / 'up' / 'state.json').read_text(encoding='utf-8'))['Prefect']}/api"
    except (OSError, ValueError, KeyError):
        return None


def _all(client: httpx.Client, what: str) -> list[dict[str, Any]]:
    return list(client.post(what, json={}).raise_for_status().json())


def _online(client: httpx.Client, pool: str) -> int:
    body = {"workers": {"status": {"any_": ["ONLINE"]}}}
    return len(client.post(f"work_pools/{pool}/workers/filter", json=body).raise_for_status().json())
