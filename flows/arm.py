"""One arm as a flow of its own: what a study starts on a work pool, once per arm."""

from __future__ import annotations

from prefect import flow
from prefect.runtime import flow_run

from retain_core import run, workers
from retain_core.arms import ArmSpec
from retain_core.errors import RetainError
from retain_core.remote import open_store
from retain_core.settings import settings
from tasks.pool import lease_of


@flow(name="arm")
def arm(spec: ArmSpec, key: str) -> None:
    """Train and evaluate one arm on this machine; what the store already has of it is not done again.

    `key` is that of the study's own machine: where this one would compute something else, nothing is run.
    """
    if spec.key != key:
        raise RetainError(
            f"{spec.arm} would not be the same here: a worker needs the platform and the versions of packages that the machine "
            f"of the study has; here they are {spec.inputs()['platform']}, {spec.inputs()['versions']}"
        )
    config = settings()
    store = open_store(config)
    store.prepare()
    with store.leased(lease_of(str(flow_run.id))):
        workers.warm_up(spec.threads)
        try:
            run.run_spec(spec, config)
        finally:
            workers.stop_all()
