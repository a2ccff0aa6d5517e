"""The study flow: the experiment's story, top to bottom."""

from __future__ import annotations

import logging
from pathlib import Path

import httpx
from prefect import flow, tags
from prefect.futures import wait
from prefect.states import Completed, State
from prefect.task_runners import ThreadPoolTaskRunner

from retain_core import run, workers
from retain_core.cross import StudyFile, load_studies, one_study
from retain_core.errors import RetainError
from retain_core.own.study import seal_study
from retain_core.settings import settings
from retain_core.study import Study
from tasks import steps
from tasks.alert import alert
from tasks.artifacts import Artifacts
from tasks.labels import study_tags

log = logging.getLogger("retain")

ON_POOL = 64
"""Arms that are with a work pool at a time; how many of them run is the pool's to say."""
SPARE = 4
"""Task threads beside those of the arms that run here: for noise floor and MLflow, and for arms about to begin."""


@flow(name="study", flow_run_name="{study.study}")
def study(study: Study) -> None:
    """Measure what post-training costs: prepare, base, arms side by side, load, report, log.

    Arms that fail do not stop the others; the flow fails at its end and says which.
    """
    with run.open_study(study, settings()) as running:
        workers.warm_up(study.execution.threads_per_arm)
        publishing = steps.prepare_publishing.submit(running)
        shown = Artifacts(study.study)

        steps.prepare_dataset(running)
        with shown.base(running):
            steps.train_base(running)
        steps.evaluate_base(running)

        names = running.missing_arms
        with run.progress(running), shown.arms(running):
            floor = steps.measure_floor.submit(running)
            arms = [steps.submit_arm(running, name) for name in names]
            wait([publishing, floor, *arms])
        floor.result()
        errors = {name: arm.result() for name, arm in zip(names, arms, strict=True) if arm.result()}

        steps.load_warehouse(running, errors)
        steps.write_report(running)
        steps.log_to_mlflow(running, return_state=True)  # where MLflow is away the study is done all the same
        steps.show_results(running, shown)

    run.raise_failed(errors, len(names))


@flow(name="crossed", flow_run_name="{file.name}")
def crossed(file: StudyFile, cached: tuple[str, ...] = ()) -> None:
    """The studies of a crossed file one after the other, all of one size before the next.

    Between sizes, what the smaller ones say of the next is frozen. `cached` are studies that are done already. A study
    that fails does not stop the others; the flow fails at its end and says which.
    """
    run.run_sizes(file, cached, run_study, lambda: steps.freeze_predictions(file), fatal=_api_is_away)


@flow(name="study-file", flow_run_name="{path}", on_failure=[alert], on_crashed=[alert])
def study_file(path: str = "studies/lab.yaml") -> State | None:
    """Run a study file of this checkout; `Unchanged` where nothing is left to do."""
    return _run_or_unchanged(load_studies(path))


@flow(name="study-given", flow_run_name="{study.study}", on_failure=[alert], on_crashed=[alert])
def study_given(study: Study) -> State | None:
    """Run a study that is a parameter: Prefect's UI has a form for it. Files that it names are read from the checkout."""
    return _run_or_unchanged(one_study(study.model_copy(update={"own": seal_study(study, Path())})))


def _run_or_unchanged(file: StudyFile) -> State | None:
    done = tuple(one.study for one in file.studies if run.publish_done(one, settings()))
    if len(done) == len(file.studies):
        return Completed(name="Unchanged", message=f"{file.name}: nothing to train or evaluate, every result is verified")
    run_file(file, done)
    return None


def run_file(file: StudyFile, cached: tuple[str, ...] = ()) -> None:
    """Run what a file stands for; `cached` are studies that are done already.

    Where Prefect's API is away, or goes away and does not come back while Prefect asks again, the rest runs without it.
    """
    try:
        if file.crossed:
            with tags("retain", f"study:{file.name}"):
                crossed(file, cached)
        else:
            run_study(file.studies[0])
    except Exception as error:
        if not _api_is_away(error):
            raise
        log.warning("Prefect's API does not answer (%s: %s); going on without it", type(error).__name__, error)
        run.run_file(file, cached, settings())


def run_study(one: Study) -> None:
    """Run one study under the tags that Prefect's UI filters by."""
    with tags(*study_tags(one)):
        study.with_options(task_runner=task_runner(one))(one)


def task_runner(one: Study) -> ThreadPoolTaskRunner:
    """No more threads than have something to do: each asks Prefect's server, and one on SQLite refuses when many do."""
    inline = one.execution.work_pool is None
    return ThreadPoolTaskRunner(max_workers=run.parallel_arms(one) + SPARE if inline else ON_POOL)


def _api_is_away(error: BaseException | None) -> bool:
    """Whether an error comes of that Prefect's API does not answer."""
    if error is None or isinstance(error, RetainError):
        return False
    return isinstance(error, httpx.TransportError) or _api_is_away(error.__cause__)
