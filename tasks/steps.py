"""The steps of a study as Prefect tasks. What is done is known by the artifact store, not by Prefect's cache."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture

from retain_core import run
from retain_core.cross import StudyFile
from retain_core.errors import RetainError
from retain_core.settings import settings
from tasks.artifacts import Artifacts
from tasks.labels import arm_name, arm_tags
from tasks.pool import run_on_pool


@task(cache_policy=NO_CACHE, task_run_name="prepare dataset")
def prepare_dataset(study: run.Running) -> None:
    """The held-out items of the world."""
    run.prepare_dataset(study)


@task(cache_policy=NO_CACHE, task_run_name="train base {study.study.base.model}")
def train_base(study: run.Running) -> None:
    """The base model, on first use."""
    run.train_base(study)


@task(cache_policy=NO_CACHE, task_run_name="evaluate base")
def evaluate_base(study: run.Running) -> None:
    """The base on every benchmark, once."""
    run.evaluate_base(study)


@task(cache_policy=NO_CACHE, task_run_name="noise floor")
def measure_floor(study: run.Running) -> None:
    """The base again, under changes that must not matter."""
    run.measure_floor(study)


@task(cache_policy=NO_CACHE)
def train_and_evaluate_arm(study: run.Running, name: str) -> str:
    """One arm in a process of its own, here or on the study's work pool. Returns why it failed, or an empty text."""
    pool = study.study.execution.work_pool
    if pool is None:
        return run.run_arm(study, name)
    try:
        return run_on_pool(study.arm(name).spec, pool, study.store)
    finally:
        study.finished()


def submit_arm(study: run.Running, name: str) -> PrefectFuture[str]:
    """Start an arm's task, named and tagged after it."""
    arm = study.arm(name).spec
    return train_and_evaluate_arm.with_options(task_run_name=arm_name(arm), tags=arm_tags(arm)).submit(study, name)


@task(cache_policy=NO_CACHE, task_run_name="prepare publishing")
def prepare_publishing(study: run.Running) -> None:
    """The script of charts and MLflow's database, made while arms train."""
    run.prepare_publishing(study)


@task(cache_policy=NO_CACHE, task_run_name="load warehouse")
def load_warehouse(study: run.Running, errors: dict[str, str]) -> None:
    """All answers into DuckDB, in one transaction."""
    run.load_warehouse(study, errors)


@task(cache_policy=NO_CACHE, task_run_name="log to mlflow")
def log_to_mlflow(study: run.Running) -> None:
    """Curves, scores, gain and drop of every arm. Fails where MLflow is away; the study does not."""
    if problem := run.log_tracking(study):
        raise RetainError(problem)


@task(cache_policy=NO_CACHE, task_run_name="write report")
def write_report(study: run.Running) -> Path:
    """The study's page."""
    return run.write_report(study)


@task(cache_policy=NO_CACHE, task_run_name="show results in prefect")
def show_results(study: run.Running, shown: Artifacts) -> None:
    """The table of methods and the summary as artifacts."""
    shown.show_results(study)


@task(cache_policy=NO_CACHE, task_run_name="freeze predictions")
def freeze_predictions(file: StudyFile) -> list[str]:
    """What the finished sizes of a crossed file say of the next, before it is trained."""
    return run.freeze_predictions(file, settings())
