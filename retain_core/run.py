"""The steps of running a study as plain functions; the flow calls them one by one, so may anyone.

with open_study(study, settings()) as running:
    run_all(running)
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from retain_core import workers
from retain_core.arms import ArmSpec
from retain_core.cross import StudyFile
from retain_core.devices import cores, visible
from retain_core.errors import ArmsFailedError, InputError, RetainError
from retain_core.methods import SAMPLING
from retain_core.overlap import measure_overlap
from retain_core.plan import BASE_THREADS, PlannedArm, StudyPlan, check_models, plan_study
from retain_core.remote import open_store
from retain_core.revisions import Revision, declare
from retain_core.settings import Settings, settings
from retain_core.store import Store, lock_home
from retain_core.study import Study

log = logging.getLogger(__name__)


class Running:
    """A study that is being run in this process, which holds its lease."""

    def __init__(self, study: Study, config: Settings, store: Store, revisions: list[Revision], plan: StudyPlan) -> None:
        self.study, self.config, self.store, self.revisions, self.plan = study, config, store, revisions, plan
        self.finished: Callable[[], object] = lambda: None
        """Called whenever an arm ends."""
        self._slots = threading.Semaphore(parallel_arms(study))

    @property
    def missing_arms(self) -> list[str]:
        """Names of the arms that still have something to do.

        Those that sample come first: they take longest, and none should be left to run alone at the end.
        """
        todo = [arm.spec for arm in self.plan.arms if not arm.done]
        return [spec.arm for spec in sorted(todo, key=lambda spec: spec.config["algorithm"] not in SAMPLING)]

    @property
    def spec_hash(self) -> str:
        """Hash of the study's text."""
        return self.study.spec_hash()

    def arm(self, name: str) -> PlannedArm:
        """One arm of the plan."""
        return next(arm for arm in self.plan.arms if arm.spec.arm == name)

    def replan(self) -> None:
        """Look everything up again after work was done."""
        self.plan = plan_study(self.study, self.store)

    def log_file(self, name: str) -> Path:
        """Where the process of a job writes what it prints."""
        return self.config.home / "logs" / f"{name}.log"

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """One of the places for an arm's process on this machine."""
        with self._slots:
            yield


def places(study: Study) -> int:
    """How many arms share an accelerator: an arm of several processes shares none."""
    return settings().arms_per_device if study.execution.processes_per_arm == 1 else 1


def parallel_arms(study: Study) -> int:
    """How many arms run side by side on this machine, at least one: as many as its accelerators, or cores, take."""
    execution = study.execution
    if devices := visible():
        return max(1, len(devices) * places(study) // execution.processes_per_arm)
    return max(1, cores() // (execution.threads_per_arm * execution.processes_per_arm))


@contextlib.contextmanager
def open_study(study: Study, config: Settings) -> Iterator[Running]:
    """Declare the study's revision and plan it, as the only process that runs it.

    Waits while another process runs a study of this name. Other studies may be run in the same home at the same time: what
    they have in common is made once, by whoever gets its lease first.
    """
    store = open_store(config)
    store.prepare()
    store.remove_leftovers()
    with store.leased(f"study-{study.study}"):
        try:
            plan = plan_study(study, store)
            _refuse_small_cards(plan)
            with lock_home(config.home):
                revisions = declare(store, study)
            yield Running(study, config, store, revisions, plan)
        finally:
            workers.stop_all()


def _refuse_small_cards(plan: StudyPlan) -> None:
    """Raise InputError where a training that is still to do does not fit on its part of an accelerator of this machine."""
    from retain_core.cards import demand_of, memory_here, refuse_too_small

    to_train = [arm.spec for arm in plan.arms if arm.to_train]
    if to_train and not plan.study.execution.work_pool and (memory := memory_here()) and (demand := demand_of(to_train)):
        refuse_too_small(demand, {spec.size for spec in to_train}, memory, places(plan.study))


def declare_all(studies: Sequence[Study], config: Settings) -> None:
    """Declare the texts of several studies before any of them is run; none of them when one is wrong."""
    names = [study.study for study in studies]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"two of the files are the study {doubled[0]!r}; run them one at a time")
    for study in studies:
        check_models(study)
    store = open_store(config)
    store.prepare()
    with lock_home(config.home):
        for study in studies:
            declare(store, study)


@contextlib.contextmanager
def progress(running: Running) -> Iterator[None]:
    """A bar over the arms that are still to do; silent when nobody watches a terminal."""
    from tqdm import tqdm

    with tqdm(total=len(running.missing_arms), unit="arm", disable=None) as bar:
        running.finished = bar.update
        yield


def prepare_dataset(running: Running) -> None:
    """Make the held-out items, read those of the user's own benchmarks, and look for them in what is trained on."""
    if not running.plan.items_ready:
        benchmarks = running.study.benchmarks()
        arguments = {"root": running.store.address, "world": running.plan.world.model_dump_json(), "benchmarks": benchmarks}
        workers.run_job("prepare", arguments, running.log_file("prepare"))
    measure_overlap(running.plan, running.store)


def train_base(running: Running) -> None:
    """Train the lab base, if the base is one and is not there."""
    lab = running.plan.base.lab
    if lab and running.plan.base_weights is None:
        arguments = {"root": running.store.address, "spec": lab.model_dump_json(), "threads": BASE_THREADS}
        workers.run_job("base", arguments, running.log_file(_base_log(running)))
        running.replan()


def base_percent(running: Running) -> int:
    """How far the base's training is, as the log of its process says; 0 before that says anything."""
    log = running.log_file(_base_log(running))
    told = re.findall(r"^update (\d+) of (\d+)$", log.read_text(encoding="utf-8") if log.is_file() else "", re.MULTILINE)
    done, whole = map(int, told[-1]) if told else (0, 1)
    return 100 * done // whole


def evaluate_base(running: Running) -> None:
    """Evaluate the base, draw the answers that KL is measured along, and measure its support on the target."""
    if not running.plan.base_done:
        divergence = asdict(running.plan.divergence_settings)
        workers.run_job(
            "base_evaluation", {**_base_arguments(running), "divergence": divergence}, running.log_file(_base_log(running))
        )


def measure_floor(running: Running) -> None:
    """Evaluate the base again under changes that must not matter."""
    if not running.plan.floor_done:
        with running.slot():
            workers.run_job("floor", _base_arguments(running), running.log_file(_base_log(running)))


def run_arm(running: Running, name: str) -> str:
    """Train and evaluate one arm in its own process. Returns why it failed, empty when it did not.

    A failed arm does not stop the others; the next run tries it again.
    """
    with running.slot():
        try:
            run_spec(running.arm(name).spec, running.config)
        except RetainError as error:
            return str(error)
        finally:
            running.finished()
    return ""


def run_spec(spec: ArmSpec, config: Settings) -> None:
    """Train and evaluate one arm in its own process. Raises RetainError when it fails."""
    workers.run_job(
        "arm", {"root": open_store(config).address, "spec": spec.model_dump_json()}, config.home / "logs" / f"{spec.arm}.log"
    )


def prepare_publishing(running: Running) -> None:
    """Load what publishing wants, which takes seconds: the script of charts, MLflow and its database.

    Raises RetainError when MLflow does not answer, which is no reason to stop.
    """
    from retain_core import tracking
    from retain_core.report.vega import bundle

    bundle()
    tracking.prepare(running.config)


def load_warehouse(running: Running, errors: dict[str, str]) -> int:
    """Bring the warehouse up to date. Returns how many evaluations were read."""
    from retain_core.gate.record import is_gate
    from retain_core.warehouse.contents import contents_of
    from retain_core.warehouse.load import load_contents
    from retain_core.warehouse.predictions import predictions_of
    from retain_core.warehouse.rebuild import load_missing
    from retain_core.warehouse.trend import record_summary, summaries_of

    if not running.plan.done:
        running.replan()
    if running.plan.overlap is None and running.plan.items_ready:
        running.plan.overlap = measure_overlap(running.plan, running.store)
    study, store, warehouse = running.study.study, running.store, running.config.warehouse
    with lock_home(running.config.home):
        load_missing(store, warehouse, but=study)
        known = (summaries_of(store, study), predictions_of(store))
        loaded = load_contents(warehouse, contents_of(running.plan, running.revisions, errors, *known))
        if running.plan.done and not is_gate(running.study.model_dump()):  # a gate says what it decided
            record_summary(store, warehouse, study, running.spec_hash, loaded.analysis)
        _show(running.config)
    return loaded.evaluations


def log_tracking(running: Running) -> str:
    """Log to MLflow what is not there yet. Returns why it could not, empty when it could: the next run makes up for it."""
    from retain_core import tracking

    try:
        with lock_home(running.config.home):
            tracking.log_study(running.config, running.plan, running.spec_hash)
    except tracking.MlflowAwayError as error:
        log.warning("%s; the results are in the warehouse, and the next `retain run` logs them", error)
        return str(error)
    return ""


def write_report(running: Running) -> Path:
    """Write the study's page."""
    from retain_core.report.build import write_report as build

    with lock_home(running.config.home):
        return build(running.config.warehouse, running.config.reports, running.study.study)


def publish(running: Running, errors: dict[str, str]) -> None:
    """Everything after the evaluations: warehouse, report, MLflow."""
    load_warehouse(running, errors)
    write_report(running)
    log_tracking(running)


def publish_done(study: Study, config: Settings) -> bool:
    """Bring warehouse, report and MLflow up to date where nothing is left to train or evaluate; False where something is."""
    with open_study(study, config) as running:
        if running.plan.done:
            publish(running, errors={})
        return running.plan.done


def run_all(running: Running) -> dict[str, str]:
    """The whole study as plain functions. Returns the arms that failed and why."""
    if not running.plan.done:
        workers.warm_up(running.study.execution.threads_per_arm)
    with ThreadPoolExecutor(max_workers=1) as aside:
        aside.submit(prepare_publishing, running)  # where MLflow does not answer, `log_tracking` says so
        prepare_dataset(running)
        train_base(running)
        evaluate_base(running)
        names = running.missing_arms
        with ThreadPoolExecutor(max_workers=parallel_arms(running.study)) as pool:
            floor = pool.submit(measure_floor, running)
            failed = dict(zip(names, pool.map(lambda name: run_arm(running, name), names), strict=True))
            floor.result()
    errors = {name: message for name, message in failed.items() if message}
    publish(running, errors)
    return errors


def run_file(file: StudyFile, cached: Collection[str], config: Settings) -> None:
    """Run what a file stands for as plain functions; `cached` are studies that are done already. Raises ArmsFailedError."""

    def one(study: Study) -> None:
        with open_study(study, config) as running:
            wanted = running.missing_arms
            raise_failed(run_all(running), len(wanted))

    if file.crossed:
        run_sizes(file, cached, one, lambda: freeze_predictions(file, config))
    else:
        one(file.studies[0])


def raise_failed(errors: dict[str, str], of: int) -> None:
    """Raise ArmsFailedError when any of the arms that were run failed."""
    if errors:
        first = next(iter(errors))
        raise ArmsFailedError(f"{len(errors)} of {of} arms failed; {first}: {errors[first]}")


def run_sizes(
    file: StudyFile, cached: Collection[str], one: Callable[[Study], object], freeze: Callable[[], object],
    fatal: Callable[[Exception], bool] = lambda _: False,
) -> None:  # fmt: skip
    """The studies of a crossed file one after the other, all of one size before the next.

    Between sizes, what the smaller ones say of the next is frozen. A study that fails does not stop the others, but for
    errors that are `fatal`. Raises ArmsFailedError at the end, which says which failed.
    """
    failed: dict[str, str] = {}
    for size in file.sizes:
        for study in file.studies:
            if study.base.model == size and study.study not in cached:
                try:
                    one(study)
                except Exception as error:
                    if fatal(error):
                        raise
                    failed[study.study] = str(error) or type(error).__name__
        freeze()
    if failed:
        sentences = "; ".join(f"{name}: {message}" for name, message in failed.items())
        raise ArmsFailedError(f"{len(failed)} of {len(file.studies)} studies failed; {sentences}")


def freeze_predictions(file: StudyFile, config: Settings) -> list[str]:
    """Freeze what the finished sizes of a crossed file say of the next; what is frozen stays. Returns the new ones' keys."""
    from retain_core.warehouse.predictions import freeze_predictions as freeze

    with lock_home(config.home):
        return [found.key for found in freeze(open_store(config), config.warehouse, file)]


def _show(config: Settings) -> None:
    """Publish the warehouse for its readers, where that is wanted; a place that is away is no reason to stop."""
    from retain_core.warehouse.snapshot import publish_snapshot

    if config.snapshot:
        try:
            publish_snapshot(config.warehouse, config.snapshot)
        except RetainError as error:
            log.warning("%s; the next `retain run` publishes it", error)


def _base_log(running: Running) -> str:
    return f"{running.study.study}/base"


def _base_arguments(running: Running) -> dict[str, Any]:
    plan = running.plan
    return {
        "root": running.store.address, "base_ref": plan.base.model_dump_json(), "weights": str(plan.base_path),
        "dataset_key": plan.dataset_key, "benchmarks": running.study.benchmarks(),
        "threads": running.study.execution.threads_per_arm, "generation": running.study.generation,
        "size": plan.evaluation,
    }  # fmt: skip
