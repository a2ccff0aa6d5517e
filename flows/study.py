"""The study flow: the experiment's story, top to bottom."""

from __future__ import annotations

from prefect import flow, tags
from prefect.futures import wait
from prefect.task_runners import ThreadPoolTaskRunner

from retain_core import run, workers
from retain_core.cross import StudyFile, load_studies
from retain_core.errors import ArmsFailedError
from retain_core.settings import settings
from retain_core.study import Study
from tasks import steps
from tasks.artifacts import Artifacts
from tasks.labels import study_tags

ARMS_IN_FLIGHT = 64
"""Task threads; the arms' own slots (cores / threads per arm) decide how many really run."""


@flow(name="study", flow_run_name="{study.study}", task_runner=ThreadPoolTaskRunner(max_workers=ARMS_IN_FLIGHT))
def study(study: Study) -> None:
    """Measure what post-training costs: prepare, base, arms side by side, load, report, log.

    Arms that fail do not stop the others; the flow fails at its end and says which.
    """
    with run.open_study(study, settings()) as running:
        workers.warm_up(study.execution.threads_per_arm)
        mlflow = steps.prepare_mlflow.submit(running)
        shown = Artifacts(study.study)

        steps.prepare_dataset(running)
        with shown.base(running):
            steps.train_base(running)
        steps.evaluate_base(running)

        names = running.missing_arms
        with run.progress(running), shown.arms(running):
            floor = steps.measure_floor.submit(running)
            arms = [steps.submit_arm(running, name) for name in names]
            wait([mlflow, floor, *arms])
        floor.result()
        errors = {name: arm.result() for name, arm in zip(names, arms, strict=True) if arm.result()}

        steps.load_warehouse(running, errors)
        steps.write_report(running)
        steps.log_to_mlflow(running)
        steps.show_results(running, shown)

    if errors:
        first = next(iter(errors))
        raise ArmsFailedError(f"{len(errors)} of {len(names)} arms failed; {first}: {errors[first]}")


@flow(name="crossed", flow_run_name="{file.name}")
def crossed(file: StudyFile, cached: tuple[str, ...] = ()) -> None:
    """The studies of a crossed file one after the other, all of one size before the next.

    Between sizes, what the smaller ones say of the next is frozen. `cached` are studies that are done already. A study
    that fails does not stop the others; the flow fails at its end and says which.
    """
    failed: dict[str, str] = {}
    for size in file.sizes:
        for one in file.studies:
            if one.base.model == size and one.study not in cached:
                try:
                    run_study(one)
                except Exception as error:
                    failed[one.study] = str(error) or type(error).__name__
        steps.freeze_predictions(file)
    if failed:
        sentences = "; ".join(f"{name}: {message}" for name, message in failed.items())
        raise ArmsFailedError(f"{len(failed)} of {len(file.studies)} studies failed; {sentences}")


@flow(name="study-file", flow_run_name="{path}")
def study_file(path: str = "studies/lab.yaml") -> None:
    """Run a study file of this checkout: what the deployments of prefect.yaml start."""
    run_file(load_studies(path))


def run_file(file: StudyFile, cached: tuple[str, ...] = ()) -> None:
    """Run what a file stands for; `cached` are studies that are done already."""
    if file.crossed:
        with tags("retain", f"study:{file.name}"):
            crossed(file, cached)
    else:
        run_study(file.studies[0])


def run_study(one: Study) -> None:
    """Run one study under the tags that Prefect's UI filters by."""
    with tags(*study_tags(one)):
        study(one)
