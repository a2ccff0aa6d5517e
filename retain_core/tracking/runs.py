"""The runs of a study in MLflow, found again by their keys. All calls of MLflow are here.

A run is made with the status FAILED and gets its tag `retain.key` with the last of what is logged to it. So a run
without a key was stopped in the middle: it is deleted with its models and begun anew, and none is ever left RUNNING.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from retain_core.errors import FULL, RetainError, disk_is_full
from retain_core.redact import redact
from retain_core.settings import Settings
from retain_core.tracking.content import Items, Point, Weights

KEY = "retain.key"
_EXPERIMENT = {
    "mlflow.experimentKind": "custom_model_development", "mlflow.experiment.primaryMetric.name": "gain",
    "mlflow.experiment.primaryMetric.greaterIsBetter": "True",
}  # fmt: skip
"""So that MLflow shows an experiment about models, and the chart of gain first."""
_LONGEST = 300
_FORBIDDEN = re.compile(r"[/:.%\"']")
"""What MLflow allows in no model's name."""

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "WARNING", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}  # fmt: skip
"""How MLflow behaves unless the environment says otherwise, which some of it reads while it is imported. The results are safe
and the next run logs what is missing, so a server that is away is not asked for minutes."""


class MlflowAwayError(RetainError):
    """MLflow did not answer, or refused what it was sent."""


def settle() -> None:
    """Settle how MLflow behaves in this process; to be called before it is imported."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def answering(config: Settings) -> Iterator[None]:
    """Raises MlflowAwayError where MLflow fails within the block."""
    settle()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        if disk_is_full(error):
            raise RetainError(FULL) from error
        where = config.mlflow_place if config.mlflow_uri else f"in {config.home}"
        why = redact(f"{type(error).__name__}: {error}".splitlines()[0])[:_LONGEST]
        raise MlflowAwayError(f"MLflow {where} did not take the results ({why})") from error


def connect(config: Settings) -> Any:
    """A client of the settings' MLflow, whose database is made if it is not there."""
    from mlflow import MlflowClient

    client = MlflowClient(config.mlflow_tracking_uri)
    client.search_experiments(max_results=1)
    return client


class Runs:
    """The runs of one study: its experiment, made if it is not there."""

    def __init__(self, client: Any, config: Settings, study: str, note: str) -> None:
        self._client, self._known = client, dict[str, Any]()
        self._experiment = _experiment(client, config, study)
        for tag, value in {**_EXPERIMENT, "mlflow.note.content": note}.items():
            client.set_experiment_tag(self._experiment, tag, value)
        self._study = study
        self.tidy()

    def tidy(self) -> None:
        """Look up the runs; delete those without a key, and models that are no output of theirs.

        A call that was made again where the answer was lost leaves such.
        """
        outputs: dict[str, set[str]] = {}
        for run in _pages(self._client.search_runs, [self._experiment]):
            if KEY in run.data.tags:
                self._known[run.data.tags[KEY]] = run
                outputs[run.info.run_id] = {output.model_id for output in run.outputs.model_outputs} if run.outputs else set()
            elif run.data.tags.get("retain.study") == self._study:
                self._discard(run.info.run_id)
        for model in _pages(self._client.search_logged_models, [self._experiment]):
            if model.source_run_id in outputs and model.model_id not in outputs[model.source_run_id]:
                self._client.delete_logged_model(model.model_id)

    def find(self, key: str) -> str | None:
        """The run that was logged under this key."""
        return str(self._known[key].info.run_id) if key in self._known else None

    def start(self, name: str, tags: dict[str, str], since: int | None = None) -> str:
        """A new run, begun at `since` (milliseconds since 1970; None is now)."""
        run = str(self._client.create_run(self._experiment, since, {**tags, "mlflow.runName": name}).info.run_id)
        self._client.update_run(run, status="FAILED")
        return run

    def log(
        self, run: str, key: str, points: Sequence[Point], checkpoints: Sequence[Weights], items: Sequence[Items],
        parameters: dict[str, str],
    ) -> None:  # fmt: skip
        """All of a new run in a few calls: its datasets, a model for each checkpoint, every value, and at last its key."""
        from mlflow.entities import LoggedModelOutput, Metric, Param, RunTag

        models = {one.checkpoint: self._log_model(run, one, parameters) for one in checkpoints}
        self._client.log_outputs(run, [LoggedModelOutput(models[one.checkpoint], one.step) for one in checkpoints])
        self._client.log_inputs(run, datasets=[_dataset(one) for one in items])
        now, keys = int(time.time() * 1000), {one.benchmark: one.key for one in items}
        metrics = [
            Metric(p.key, p.value, now, p.step, models.get(p.checkpoint or ""), p.benchmark, keys.get(p.benchmark or ""))
            for p in points
        ]
        self._client.log_batch(run, metrics=metrics, synchronous=True)
        last = [Param(*pair) for pair in parameters.items()]
        self._client.log_batch(run, params=last, tags=[RunTag(KEY, key)], synchronous=True)

    def update(self, key: str, tags: dict[str, str], parameters: dict[str, str]) -> None:
        """Bring the tags of a known run up to date, and add the parameters that it has not got."""
        from mlflow.entities import Param, RunTag

        run = self._known[key]
        new = [RunTag(*pair) for pair in tags.items() if run.data.tags.get(pair[0]) != pair[1]]
        more = [Param(*pair) for pair in parameters.items() if pair[0] not in run.data.params]
        if new or more:
            self._client.log_batch(run.info.run_id, tags=new, params=more, synchronous=True)
        if run.info.status != "FINISHED":
            self.finish(run.info.run_id)

    def finish(self, run: str, status: str = "FINISHED", until: int | None = None) -> None:
        """End a run, at `until` (milliseconds since 1970; None is now)."""
        self._client.set_terminated(run, status, until)

    def log_json(self, run: str, content: dict[str, Any], name: str) -> None:
        """A JSON file of a run."""
        self._client.log_text(run, json.dumps(content, indent=1, default=str), name)

    def log_table(self, run: str, table: dict[str, Any], name: str) -> None:
        """A table of a run as MLflow shows it. Its own `log_table` would append to the one of last time."""
        self.log_json(run, table, name)
        self._client.set_tag(run, "mlflow.loggedArtifacts", json.dumps([{"path": name, "type": "table"}]))

    def log_folder(self, run: str, folder: Path, name: str) -> None:
        """A folder of files of a run."""
        self._client.log_artifacts(run, str(folder), name)

    def _log_model(self, run: str, checkpoint: Weights, parameters: dict[str, str]) -> str:
        from mlflow.entities import LoggedModelStatus

        study, name = checkpoint.checkpoint.split("/", 1)
        tags = {
            "retain.study": study, "retain.checkpoint": checkpoint.checkpoint,
            "retain.weights": str(checkpoint.path or "not kept"), "mlflow.model.isExternal": "true",
        }  # fmt: skip
        model = self._client.create_logged_model(
            self._experiment, _FORBIDDEN.sub("_", name), run, tags, {**parameters, "step": str(checkpoint.step)}, "checkpoint"
        )
        self._client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        return str(model.model_id)

    def _discard(self, run: str) -> None:
        models = _pages(self._client.search_logged_models, [self._experiment], f"source_run_id = '{run}'")
        for model in models:
            self._client.delete_logged_model(model.model_id)
        self._client.delete_run(run)


def _experiment(client: Any, config: Settings, study: str) -> str:
    found = client.get_experiment_by_name(study)
    if found:
        return str(found.experiment_id)
    location = None if config.mlflow_uri else config.mlflow_artifacts.as_uri()
    return str(client.create_experiment(study, artifact_location=location))


def _pages(search: Callable[..., Any], *arguments: Any) -> list[Any]:
    found, token = [], None
    while True:
        page = search(*arguments, page_token=token)
        found += page
        if not (token := page.token):
            return found


def _dataset(items: Items) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source, profile = json.dumps({"uri": str(items.source)}), json.dumps({"items": items.count})
    dataset = Dataset(items.benchmark, items.key, "local", source, profile=profile)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "evaluation")])
