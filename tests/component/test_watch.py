"""The watch for real: checkpoints in a folder, on a hub of this machine and in a real MLflow; what was seen costs nothing."""

import json
import shutil
import subprocess
import sys

import duckdb
import pytest

from retain_core import run, workers
from retain_core.errors import InputError
from retain_core.gate import watch as gate
from retain_core.gate.find import in_registry
from retain_core.gate.study import gate_study
from retain_core.gate.watch_file import Registry, load_watch
from retain_core.housekeeping import references
from retain_core.store import Store
from retain_core.study_file import load_study
from tests.conftest import ROOT, environment, retain, settings_at
from tests.hub import Hub, commit


@pytest.fixture
def runs(tmp_path, smoke_plan):
    """A folder with two checkpoints of equal content, one that has no weights, and the watch file beside it."""
    for name in ("checkpoint-1", "checkpoint-2"):
        shutil.copytree(smoke_plan.base_path, tmp_path / "runs" / name)
    (tmp_path / "runs" / "empty").mkdir()
    (tmp_path / "runs" / "empty" / "config.json").write_text("{}")
    file = tmp_path / "watch.yaml"
    file.write_text(f"study: {ROOT / 'studies' / 'smoke.yaml'}\nfolder: {{path: runs, settle: 0}}\n")
    return file


def trend(home):
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        return con.execute("FROM trend ORDER BY ALL").fetchall()


def test_a_checkpoint_is_judged_once_and_the_nights_can_be_rebuilt(home, runs, monkeypatch, smoke_study):
    started, real = [], workers.run_job
    monkeypatch.setattr(run.workers, "run_job", lambda job, *rest: (started.append(job), real(job, *rest))[1])
    watch, config = load_watch(runs), settings_at(home)
    study = watch.load_study()
    before = gate.look(watch, study, config)
    assert [(one.found.name, one.told, one.problem) for one in before] == [
        ("checkpoint-1", None, ""),
        ("checkpoint-2", None, ""),
    ]
    first, second = [gate.judge(one.found, watch, study, config) for one in before]
    assert (first.new, second.new, started) == (True, False, ["arm"])
    assert first.told == second.told
    assert first.told["decision"] in ("ALLOW", "INCONCLUSIVE")
    seen = gate.look(watch, study, config)
    assert [one.told for one in seen] == [first.told] * 2
    assert len(started) == 1

    nights = trend(home)
    mine = [row for row in nights if row[0] == "smoke-gate"]
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        told = con.execute(
            'SELECT model, base, "drop", drop_low, drop_high, margin, decision FROM trend WHERE decision IS NOT NULL'
        ).fetchall()
    wanted = [first.told[key] for key in ("name", "drop", "ci_low", "ci_high", "margin", "decision")]
    assert told == [(wanted[0], "smoke-gate/base", *wanted[1:])]
    assert len(mine) == 1

    done = retain("watch", str(runs), home=home, PREFECT_API_URL="http://127.0.0.1:9/api")  # no server is asked
    assert (done.returncode, done.stderr) == (gate.exit_code(seen), "")
    assert done.stdout.count("(seen before)") == 2

    (home / "warehouse.duckdb").unlink()
    run.publish_done(load_study(smoke_study), config)
    assert trend(home) == nights
    shutil.rmtree(runs.parent / "runs")
    (home / "warehouse.duckdb").unlink()
    run.publish_done(load_study(smoke_study), config)
    assert trend(home) == nights
    assert references(Store(home / "artifacts"))[1] == []  # `retain gc` does not stop at a checkpoint that is gone


def test_one_that_cannot_be_judged_does_not_stop_the_others(home, runs):
    broken = runs.parent / "runs" / "checkpoint-1" / "config.json"
    broken.write_text(
        json.dumps(json.loads(broken.read_text()) | {"model_type": "theirs", "auto_map": {"AutoModel": "code.Model"}})
    )
    watch = load_watch(runs)
    seen = gate.look(watch, watch.load_study(), settings_at(home))
    assert [bool(one.problem) for one in seen] in ([True, False], [False, True])
    assert gate.unjudged(seen)
    assert gate.exit_code(seen) == 1


HUB = """
import json
from retain_core.gate.find import in_hub
from retain_core.gate.watch_file import Hub
from retain_core.errors import RetainError
try:
    print(json.dumps([[one.name, sorted(p.name for p in one.folder.iterdir())] for one in in_hub(Hub({}))]))
except RetainError as error:
    print(error)
"""


def test_branches_of_the_hub_are_checkpoints_by_commit(tmp_path, smoke_plan):
    model, empty = tmp_path / "model", tmp_path / "empty"
    shutil.copytree(smoke_plan.base_path, model, ignore=shutil.ignore_patterns("trainer", "manifest.json"))
    (model / "code.py").write_text("raise SystemExit")
    empty.mkdir()
    (empty / "config.json").write_text("{}")
    with Hub({"acme/tiny": model}, branches={"step-5": model, "unfinished": empty}) as hub:
        more = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}

        def looked(arguments):
            command = [sys.executable, "-c", HUB.replace("{}", arguments)]
            done = subprocess.run(
                command, cwd=ROOT, env=environment(tmp_path) | more, capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        found = json.loads(looked("model='acme/tiny'"))
        assert [name for name, _ in found] == ["acme/tiny@main", "acme/tiny@step-5"]
        assert all("config.json" in files and "code.py" not in files for _, files in found)
        named = json.loads(looked(f"model='acme/tiny', revisions=('{commit('step-5')}', 'step-5')"))
        assert [name for name, _ in named] == [f"acme/tiny@{commit('step-5')}"]
        downloads = [line for line in hub.asked if line.startswith("GET") and "safetensors" in line]
        assert len(downloads) == 1  # the cache knows equal files of two commits, and those of an earlier look
        assert looked("model='acme/gone'").startswith("hub: acme/gone cannot be looked at: ")


def test_versions_of_mlflows_registry_are_checkpoints(tmp_path, smoke_plan):
    from mlflow import MlflowClient

    config = settings_at(tmp_path / "home")
    config.home.mkdir()
    client = MlflowClient(tracking_uri=config.mlflow_tracking_uri, registry_uri=config.mlflow_tracking_uri)
    saved = tmp_path / "saved" / "model"
    shutil.copytree(smoke_plan.base_path, saved)
    (tmp_path / "other").mkdir()
    client.create_registered_model("tiny")
    for source in (tmp_path / "saved", tmp_path / "other", saved):
        client.create_model_version("tiny", source=source.as_uri())
    client.set_registered_model_alias("tiny", "champion", "3")
    found = in_registry(Registry(model="tiny"), config)
    assert [(one.name, one.folder) for one in found] == [("tiny/1", saved), ("tiny/3", saved)]
    assert [one.name for one in in_registry(Registry(model="tiny", alias="champion"), config)] == ["tiny/3"]
    for wrong in (Registry(model="gone"), Registry(model="tiny", alias="gone")):
        with pytest.raises(InputError, match="cannot be read from MLflow") as caught:
            in_registry(wrong, config)
        assert "\n" not in str(caught.value)


def test_a_gates_text_is_known_as_one(smoke_study):
    from retain_core.gate.record import is_gate

    study = load_study(smoke_study)
    assert is_gate(gate_study(study, str(ROOT / "docs")).model_dump(mode="json"))
    assert not is_gate(study.model_dump(mode="json"))
