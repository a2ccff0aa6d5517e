"""Running again: what is done stays done, what is damaged is made good, what is new costs only itself."""

import shutil
import subprocess
import sys
import time

import duckdb
import pytest
from mlflow import MlflowClient

from retain_core import workers
from retain_core.arms import Checkpoint, weights_key
from retain_core.errors import InputError
from retain_core.lease import living
from retain_core.revisions import revisions_of
from retain_core.run import open_study, run_all
from retain_core.store import Store
from retain_core.study_file import load_study
from tests.conftest import ROOT, RUN_PLAIN, environment, manifests, run_plain, settings_at, tree
from tests.faults.kill import left_over


def test_a_second_run_does_nothing(home, smoke_study, jobs):
    before = tree(home / "artifacts")
    assert run_plain(smoke_study, home) == {}
    assert jobs == []
    assert tree(home / "artifacts") == before


@pytest.mark.parametrize("kind", ["evaluation", "arm", "weights"])
def test_one_changed_byte_is_recomputed_to_the_same_result(home, smoke_study, smoke_plan, jobs, kind):
    arm = smoke_plan.arms[0]
    key = {
        "evaluation": arm.evaluations[Checkpoint(2)][0][0].key, "arm": arm.spec.key, "weights": weights_key(arm.spec, 4),
    }[kind]  # fmt: skip
    folder = home / "artifacts" / kind / key
    victim = next(p for p in sorted(folder.iterdir()) if p.suffix in (".parquet", ".safetensors"))
    right = victim.read_bytes()
    victim.write_bytes(right[:100] + bytes([right[100] ^ 1]) + right[101:])
    with open_study(load_study(smoke_study), settings_at(home)) as running:
        assert running.missing_arms == ["smoke/sft-lr1e-3-s0"]
        assert victim.name in running.store.damaged[0]
        assert run_all(running) == {}
    assert jobs == [("arm", "sft-lr1e-3-s0")]
    if kind != "arm":  # the training record holds seconds
        assert victim.read_bytes() == right


def test_arms_that_sample_start_first(smoke_study, tmp_path):
    with open_study(load_study(smoke_study), settings_at(tmp_path)) as running:
        assert running.missing_arms == ["smoke/grpo-lr1e-3-s0", "smoke/sft-lr1e-3-s0", "smoke/learning_rate_0-lr0-s0"]


def test_adding_a_method_is_a_new_revision_and_costs_only_that_method(home, smoke_study, jobs, tmp_path):
    before = manifests(home)
    changed = tmp_path / "smoke.yaml"
    changed.write_text(smoke_study.read_text().replace("[sft, grpo]", "[sft, grpo, sft_in_style]"))
    assert run_plain(changed, home) == {}
    assert jobs == [("arm", "sft_in_style-lr1e-3-s0")]
    after = manifests(home)
    assert {k: after[k] for k in before} == before
    revisions = revisions_of(Store(home / "artifacts"), "smoke")
    assert [(r.number, r.current) for r in revisions] == [(1, False), (2, True)]


def test_an_external_model_that_is_the_base_lost_nothing(home, smoke_study, smoke_plan, jobs, tmp_path):
    """Nothing is trained, and base against itself is 0 by another road."""
    model = tmp_path / "theirs"
    shutil.copytree(smoke_plan.base_path, model)
    changed = tmp_path / "smoke.yaml"
    entry = f"[sft, grpo, {{label: theirs, algorithm: external, model: {model}}}]"
    changed.write_text(smoke_study.read_text().replace("[sft, grpo]", entry))
    assert run_plain(changed, home) == {}
    assert jobs == [("arm", "theirs")]
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        flips = "SELECT \"drop\", lost, gained FROM forgetting WHERE arm = 'smoke/theirs' AND metric = 'acc'"
        rows = con.execute(flips).fetchall()
        assert rows == [(0, 0, 0)] * 2
        kl = con.execute("SELECT kl_forward, kl_reverse FROM gain_drop WHERE arm = 'smoke/theirs'").fetchall()
        assert kl == [(0, 0)]
        assert con.execute("SELECT status, seed, learning_rate FROM arms WHERE arm = 'smoke/theirs'").fetchall() == [
            ("done", None, None)
        ]


def test_a_failed_arm_is_told_and_tried_again_while_the_others_stay(home, smoke_study, jobs, tmp_path):
    """The smoke base solves nothing, so Self-SFT has nothing to train on."""
    changed = tmp_path / "smoke.yaml"
    changed.write_text(smoke_study.read_text().replace("[sft, grpo]", "[sft, grpo, self_sft]"))
    for _ in range(2):
        errors = run_plain(changed, home)
        assert list(errors) == ["smoke/self_sft-lr1e-3-s0"]
        assert "too little support" in errors["smoke/self_sft-lr1e-3-s0"]
    assert jobs == [("arm", "self_sft-lr1e-3-s0")] * 2
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        status, error = con.execute("SELECT status, error FROM arms WHERE method = 'self_sft'").fetchone()
    assert status == "failed"
    assert "too little support" in error
    page = (home / "reports" / "smoke" / "index.html").read_text()
    assert "too little support" in page


def test_a_killed_process_is_told_and_leaves_nothing(home, smoke_study, tmp_path):
    import os
    import signal
    import threading

    changed = tmp_path / "smoke.yaml"
    changed.write_text(smoke_study.read_text().replace("[sft, grpo]", "[sft, grpo, sft_in_style]"))
    with open_study(load_study(changed), settings_at(home)) as running:

        def kill_soon():
            while not workers._live:
                time.sleep(0.01)
            os.kill(next(iter(workers._live)).pid, signal.SIGKILL)

        threading.Thread(target=kill_soon).start()
        errors = run_all(running)
    assert "was killed" in errors["smoke/sft_in_style-lr1e-3-s0"]
    assert run_plain(changed, home) == {}
    assert list((home / "artifacts" / ".drafts").iterdir()) == []


@pytest.mark.slow
def test_studies_that_run_at_once_train_once_what_they_share(home, smoke_study, tmp_path, caplog):
    """A study and another that asks for the same new arm, and a second run of the first one here while it is at work."""
    body = smoke_study.read_text().replace("[sft, grpo]", "[sft, grpo, sft_in_style]")
    processes = []
    for name in ("smoke", "other"):
        study = tmp_path / f"{name}.yaml"
        study.write_text(body.replace("study: smoke", f"study: {name}"))
        command = [sys.executable, "-c", RUN_PLAIN, str(study), str(home)]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment(home), **streams))
    while "study-smoke" not in living(home / "artifacts" / ".leases"):
        assert processes[0].poll() is None, processes[0].communicate()
        time.sleep(0.05)
    assert run_plain(tmp_path / "smoke.yaml", home) == {}
    assert f"study-smoke is being made by process {processes[0].pid}" in caplog.text
    said = [process.communicate(timeout=300) for process in processes]
    assert [(p.returncode, out.strip()) for p, (out, _) in zip(processes, said, strict=True)] == [(0, "{}")] * 2, said
    assert not any("study-smoke is being made by process" in err for _, err in said)
    logs = [home / "logs" / name / "sft_in_style-lr1e-3-s0.log" for name in ("smoke", "other")]
    assert sum("trained 4 updates" in log.read_text() for log in logs if log.exists()) == 1
    assert left_over(home) == []
    runs = MlflowClient(settings_at(home).mlflow_tracking_uri).search_runs(["1", "2"])
    assert {run.info.status for run in runs} == {"FINISHED"}
    arms = [(run.info.experiment_id, run.data.tags["retain.arm"]) for run in runs if "retain.arm" in run.data.tags]
    assert len(arms) == len(set(arms)) == 2 * 4
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        sql = "SELECT * EXCLUDE (study, base, arm, checkpoint, settings_hash) FROM forgetting WHERE study = ? ORDER BY ALL"
        rows = [con.execute(sql, [name]).fetchall() for name in ("smoke", "other")]
    assert rows[0] == rows[1]
    assert len(rows[0]) > 0


def test_an_unwritable_home_is_refused(tmp_path, smoke_study):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match="cannot write to the home"),
        open_study(load_study(smoke_study), settings_at(tmp_path / "file")),
    ):
        pass


@pytest.mark.slow
def test_one_arm_runs_without_prefect_from_its_spec(home, smoke_study, tmp_path):
    changed = tmp_path / "smoke.yaml"
    changed.write_text(smoke_study.read_text().replace("[sft, grpo]", "[sft, grpo, sft_in_style]"))
    from retain_core.plan import plan_study

    store = Store(home / "artifacts")
    spec = next(a.spec for a in plan_study(load_study(changed), store).arms if a.spec.method == "sft_in_style")
    (tmp_path / "SPEC.json").write_text(spec.model_dump_json())
    env = {"RETAIN_HOME": str(home), "PATH": "", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "retain_core.arm", str(tmp_path / "SPEC.json")]
    subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, timeout=200)
    assert plan_study(load_study(changed), store).done
