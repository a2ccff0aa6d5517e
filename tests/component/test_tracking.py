"""What MLflow holds of a study, on a real store: equal columns, values as in SQL, nothing twice, nothing left running."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from retain_core import tracking
from retain_core.methods import Method
from retain_core.plan import plan_study
from retain_core.store import Store
from retain_core.study_file import load_study
from retain_core.tracking import dials
from retain_core.tracking import study as logging
from retain_core.warehouse.query import open_warehouse
from tests.conftest import ROOT, run_plain, settings_at

PARAMETERS = {"method", "learning_rate", "seed", "algorithm"}


class Logged:
    """What MLflow holds of a study: that of a home, or any other by its address."""

    def __init__(self, place, study="smoke"):
        from mlflow import MlflowClient

        self.client = MlflowClient(place if isinstance(place, str) else f"sqlite:///{place / 'mlflow.db'}")
        experiment = self.client.get_experiment_by_name(study).experiment_id
        self.runs = list(self.client.search_runs([experiment]))
        self.models = list(self.client.search_logged_models([experiment]))
        (self.parent,) = [run for run in self.runs if "mlflow.parentRunId" not in run.data.tags]
        self.children = {run.data.tags["retain.arm"]: run for run in self.runs if run is not self.parent}

    def values(self):
        """Everything but ids and times."""
        runs = [
            (
                run.info.run_name, run.info.status, run.data.params, run.data.metrics,
                sorted(tag for tag in run.data.tags.items() if tag[0].startswith("retain.")),
                [(one.dataset.name, one.dataset.digest) for one in run.inputs.dataset_inputs], len(run.outputs.model_outputs),
            )
            for run in self.runs
        ]  # fmt: skip
        models = [(m.name, m.status, m.params, sorted((v.key, v.step, v.value) for v in m.metrics)) for m in self.models]
        return sorted(runs, key=str), sorted(models, key=str)


@pytest.fixture(scope="module")
def logged(finished_home):
    return Logged(finished_home)


@pytest.fixture
def fresh(home):
    """A home whose MLflow is empty."""
    (home / "mlflow.db").unlink()
    shutil.rmtree(home / "mlartifacts")
    return home


def log(home, study_file):
    study, config = load_study(study_file), settings_at(home)
    return tracking.log_study(config, plan_study(study, Store(config.artifacts)), study.spec_hash())


def rows(home, sql, *parameters):
    with open_warehouse(home / "warehouse.duckdb") as con:
        return con.execute(sql, parameters).fetchall()


QUIET = """
import sys; from pathlib import Path; from retain_core.settings import Settings; config = Settings(home=Path(sys.argv[1]))
{asked}
from mlflow.telemetry.client import get_telemetry_client; print(get_telemetry_client())
"""


@pytest.mark.parametrize(
    "asked",
    [
        "from retain_core import tracking; tracking.prepare(config)",
        "from retain_core.gate import find, watch_file; from retain_core.errors import InputError\n"
        "try: find.in_registry(watch_file.Registry(model='none'), config)\nexcept InputError: pass",
    ],
    ids=["a study", "a watch"],
)
def test_mlflow_neither_reports_home_nor_talks(asked, tmp_path):
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}  # in a test, or under CI, MLflow reports nothing anyway
    command = [sys.executable, "-c", QUIET.format(asked=asked), str(tmp_path)]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("None\n", "")


def test_children_hang_on_the_parent_and_have_equal_columns(logged, finished_home):
    assert set(logged.children) == {a for (a,) in rows(finished_home, "SELECT arm FROM arms WHERE role <> 'base'")}
    parents = {run.data.tags["mlflow.parentRunId"] for run in logged.children.values()}
    assert parents == {logged.parent.info.run_id}
    assert {run.info.status for run in logged.runs} == {"FINISHED"}
    for run in logged.children.values():
        assert set(run.data.params) == PARAMETERS
        assert run.data.params["method"] == run.data.tags["retain.method"]
        assert {f"retain.{tag}" for tag in ("study", "arm", "method", "seed", "base", "target", "spec_hash")} <= set(
            run.data.tags
        )
        assert run.data.tags["retain.arm"] in f"smoke/{run.info.run_name}"
        assert run.info.end_time > run.info.start_time


def test_metric_keys_are_the_same_in_every_arm(logged):
    results = {arm: {key for key in run.data.metrics if not key.startswith("train/")} for arm, run in logged.children.items()}
    (keys,) = {frozenset(keys) for keys in results.values()}
    assert keys >= {"gain", "drop", "kl/forward", "kl/reverse", "drop/addition", "drop/places", "eval/countdown/acc"}
    assert all("train/loss" in run.data.metrics for run in logged.children.values())


def test_curves_start_at_the_base_and_end_in_what_the_table_shows(logged, finished_home):
    for arm, run in logged.children.items():
        path = rows(finished_home, 'SELECT step, gain, "drop" FROM gain_drop WHERE arm = ? ORDER BY step', arm)
        for place, key in ((1, "gain"), (2, "drop")):
            history = logged.client.get_metric_history(run.info.run_id, key)
            assert [(m.step, m.value) for m in history] == [(0, 0.0), *((row[0], row[place]) for row in path)]
            assert run.data.metrics[key] == path[-1][place]
        first = logged.client.get_metric_history(run.info.run_id, "eval/countdown/acc")[0]
        assert (first.step, first.value) == (0, logged.parent.data.metrics["eval/countdown/acc"])


def test_every_checkpoint_is_a_model_with_the_scores_of_the_warehouse(logged, finished_home):
    sql = "SELECT checkpoint, benchmark, metric, score FROM scores WHERE study = 'smoke'"
    found = {
        (m.tags["retain.checkpoint"], v.dataset_name, v.key.removeprefix(f"eval/{v.dataset_name}/"), v.value)
        for m in logged.models for v in m.metrics if v.key.startswith("eval/")
    }  # fmt: skip
    assert found == set(rows(finished_home, sql))
    digests = {(one.dataset.name, one.dataset.digest) for one in logged.parent.inputs.dataset_inputs}
    tied = {(v.dataset_name, v.dataset_digest) for m in logged.models for v in m.metrics if v.dataset_name}
    assert tied == digests
    assert {str(m.status) for m in logged.models} == {"READY"}
    kept = {m.tags["retain.checkpoint"] for m in logged.models if m.tags["retain.weights"] != "not kept"}
    assert kept == {c for (c,) in rows(finished_home, "SELECT checkpoint FROM checkpoints WHERE kept")}
    for run in logged.runs:
        mine = {m.model_id for m in logged.models if m.source_run_id == run.info.run_id}
        assert {output.model_id for output in run.outputs.model_outputs} == mine != set()


def test_the_parent_says_what_came_out(logged, finished_home):
    note = logged.parent.data.tags["mlflow.note.content"]
    assert re.search(r"\| grpo +\| +1e-3 +\|", note)
    assert "drop of grpo - drop of sft" in note
    folder = finished_home / "mlartifacts" / logged.parent.info.run_id / "artifacts"
    assert (folder / "report" / "index.html").read_bytes() == (finished_home / "reports/smoke/index.html").read_bytes()
    assert '"path": "method_summary.json", "type": "table"' in logged.parent.data.tags["mlflow.loggedArtifacts"]
    table = json.loads((folder / "method_summary.json").read_text())
    shown = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    summary = rows(finished_home, 'SELECT method, gain, "drop" FROM method_summary ORDER BY method')
    assert sorted((row["method"], row["gain"], row["drop"]) for row in shown) == summary
    sft = finished_home / "mlartifacts" / logged.children["smoke/sft-lr1e-3-s0"].info.run_id / "artifacts" / "arm.json"
    assert json.loads(sft.read_text())["config"]["expert"] == "off_style"


def statuses(home):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    return {run.info.status for run in client.search_runs([e.experiment_id for e in client.search_experiments()])}


class StopsAfter:
    """A client that does a number of calls and is then interrupted; never between the two that make a run."""

    def __init__(self, client, calls):
        self._client, self._left = client, calls

    def __getattr__(self, name):
        if name != "update_run":
            self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        return getattr(self._client, name)


def test_logging_that_was_stopped_goes_on_without_doubles(fresh, smoke_study, logged, monkeypatch):
    connect = logging.connect
    for calls in (5, 9, 16, 21, 22):
        monkeypatch.setattr(logging, "connect", lambda config, calls=calls: StopsAfter(connect(config), calls))
        with pytest.raises(KeyboardInterrupt):
            log(fresh, smoke_study)
        assert statuses(fresh) <= {"FAILED", "FINISHED"}
    monkeypatch.setattr(logging, "connect", connect)
    assert log(fresh, smoke_study)
    again = Logged(fresh)
    assert len(again.runs) == len(logged.runs) == 4
    assert again.values() == logged.values()

    (fresh / "mlartifacts" / ".logged-smoke.json").unlink()
    assert log(fresh, smoke_study)
    assert Logged(fresh).values() == again.values()
    assert not log(fresh, smoke_study)


@pytest.mark.slow
def test_a_model_that_was_not_trained_here_has_the_columns_of_the_others(fresh, smoke_study, smoke_plan, tmp_path):
    text = smoke_study.read_text().replace(
        "[sft, grpo]", f"[sft, grpo, {{label: theirs, algorithm: external, model: {smoke_plan.base_path}}}]"
    )
    (tmp_path / "study.yaml").write_text(text)
    assert run_plain(tmp_path / "study.yaml", fresh) == {}
    found = Logged(fresh)
    theirs = found.children["smoke/theirs"].data
    assert set(theirs.params) == PARAMETERS
    assert (theirs.params["learning_rate"], theirs.params["seed"]) == ("none", "none")
    assert theirs.metrics["gain"] == theirs.metrics["drop"] == theirs.metrics["kl/forward"] == 0.0
    (model,) = [m for m in found.models if m.tags["retain.checkpoint"].startswith("smoke/theirs@")]
    assert model.tags["retain.weights"] == str(smoke_plan.base_path)


def test_parameters_are_the_dials_in_which_methods_differ(smoke_plan):
    """A dial that a method lacks has its default where that is a number; controls decide nothing."""
    (one,) = [arm.spec for arm in smoke_plan.arms if arm.spec.method == "sft"]

    def spec(label, role="method", **method):
        config = Method(label=label, **method).config()
        return one.model_copy(update={"arm": f"x/{label}", "method": label, "role": role, "config": config})

    specs = [
        spec("sft", algorithm="sft", solution="canonical"), spec("other", algorithm="sft", lora_rank=4, kl=0.5),
        spec("dpo", algorithm="dpo"), spec("coin", "control", algorithm="grpo", reward="random"),
        spec("theirs", algorithm="external", model="/models/theirs").model_copy(update={"learning_rate": None, "seed": None}),
    ]  # fmt: skip
    found = dials.parameters(specs)
    assert {frozenset(columns) for columns in found.values()} == {frozenset({*PARAMETERS, "solution", "lora_rank", "kl"})}
    assert [found[s.arm]["kl"] for s in specs] == ["0.0", "0.5", "0.0", "0.0", "0.0"]
    assert [found[s.arm]["solution"] for s in specs] == ["canonical", "random", "none", "none", "none"]
    assert [found[s.arm]["lora_rank"] for s in specs] == ["none", "4", "none", "none", "none"]
    assert (found["x/theirs"]["learning_rate"], found["x/theirs"]["seed"]) == ("none", "none")
