"""An arm as a deployment run on a work pool: started, watched and joined by its study.

Prefect does not tell that a worker was killed: its runs stay as they were. So a run that is Running without the lease that its
process holds is declared crashed, as is one that a worker took and never began. Then the arm is started again; it goes on from
its last state, and should the run that was given up begin after all, the arm's own lease lets one of them train.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar
from uuid import UUID, uuid4

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelling, Crashed, State

from retain_core import workers
from retain_core.arms import ArmSpec
from retain_core.errors import InputError
from retain_core.store import Store
from tasks.labels import arm_name, arm_tags

POLL = 2.0
"""Seconds between two looks at a run."""
QUEUED = 10.0
"""Seconds between two looks at a run that no worker has taken; there may be many of them, and one server."""
SILENT = 15.0
"""Seconds that a run may be without the lease that it held, which it gives back before it has ended."""
BEGINS = 90.0
"""Seconds within which a run begins that a worker took, and takes its lease then: both ask a server that may be busy. Where it
waits for a place in a cluster, Prefect calls it otherwise."""
STARTS = 3
"""How often an arm is started whose worker was lost."""

Answer = TypeVar("Answer")
log = logging.getLogger("retain")


def lease_of(flow_run: str) -> str:
    """The name of the lease that the flow run of an arm holds while it lives."""
    return f"run-{flow_run}"


def run_on_pool(arm: ArmSpec, pool: str, store: Store) -> str:
    """Run an arm on a work pool, by its deployment `arm/<pool>`. Returns why it failed, or an empty text."""
    for _ in range(STARTS):
        state = _run_once(arm, pool, store)
        if not state.is_crashed():
            break
        log.warning("the worker of %s is gone (%s)", arm.arm, state.message)
    return "" if state.is_completed() else state.message or str(state.name)


def _run_once(arm: ArmSpec, pool: str, store: Store) -> State:
    parameters, once = {"spec": arm.model_dump(mode="json"), "key": arm.key}, uuid4().hex
    try:
        started = _answered(
            lambda: run_deployment(
                f"arm/{pool}", parameters=parameters, flow_run_name=arm_name(arm), timeout=0, tags=arm_tags(arm),
                idempotency_key=once,
            ),
            begun=False,
        )  # fmt: skip
    except ObjectNotFound:
        raise InputError(
            f"there is no deployment arm/{pool}: make the pool with `prefect work-pool create {pool} --type process`, then "
            "`prefect --no-prompt deploy --all`"
        ) from None
    with get_client(sync_client=True) as client:
        try:
            return _joined(client, started.id, store)
        except workers.StoppedError:
            client.set_flow_run_state(started.id, Cancelling(message="its study was stopped"))
            raise


def _answered(ask: Callable[[], Answer], *, begun: bool) -> Answer:
    """What Prefect's API answers; asked again while it has too much to do, after the retries of its own client.

    Of a run that has `begun` also while it is away: the run goes on without it. One that has not can do without Prefect.
    """
    wait = 0.0
    while True:
        workers.pause(wait)
        try:
            return ask()
        except (httpx.TransportError, PrefectHTTPStatusError) as error:
            away = isinstance(error, httpx.TransportError)
            if (away and not begun) or not (away or error.response.is_server_error):
                raise
            why = str(error).partition("\n")[0] or type(error).__name__
            log.warning("Prefect's API does not answer (%s); asking again", why)
        wait = POLL


def _joined(client: SyncPrefectClient, run: UUID, store: Store) -> State:
    """The state in which a run ended, or Crashed where its process is gone."""
    name, since, held = "", time.monotonic(), False
    while True:
        state = _answered(lambda: client.read_flow_run(run).state, begun=True)
        if state is not None and state.is_final():
            return state
        now = time.monotonic()
        holds = state is not None and state.is_running() and lease_of(str(run)) in store.living()
        held = held or holds
        if state is None or state.name != name or holds:
            name, since = state.name or "" if state else "", now
        elif now - since > _patience(state, held):
            crashed = Crashed(message="its process is gone")
            _answered(partial(client.set_flow_run_state, run, crashed, force=True), begun=True)
            return crashed
        workers.pause(QUEUED if state is not None and state.name == "Late" else POLL)


def _patience(state: State, held: bool) -> float:
    """Seconds that a run may be in this state without a sign of life; `held`: it held its lease before."""
    if state.is_running():
        return SILENT if held else BEGINS
    return BEGINS if state.name in ("Submitting", "Pending") else math.inf
