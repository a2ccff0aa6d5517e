"""Two processes that train an arm together come to what one comes to, whatever the method; they end together, and go on."""

import contextlib
import json
import shutil
import subprocess
import sys
import time
from typing import get_args

import psutil
import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file

from retain_core.arms import weights_key
from retain_core.errors import InputError, RetainError
from retain_core.lab.targets import Countdown
from retain_core.launch import SETTINGS, launch
from retain_core.plan import plan_study
from retain_core.store import Store
from retain_core.study_blocks import Execution
from retain_core.study_file import load_study
from retain_core.training import ranks
from retain_core.training.traces import make_traces
from retain_core.training.train import train
from retain_core.warehouse.query import open_warehouse
from tests.component import golden
from tests.conftest import ROOT, RUN_PLAIN, environment, run_plain

TOLERANCE = 1e-4
"""In losses, gradient norms and weights after four updates at a rate of 1e-3, where sums are taken in another order."""
COMPARED = {*golden.KEPT, "reward_failures", "pool", "rewards/accuracies"}
TOGETHER = ["sft_replay_own", "grpo_stale", "iterative_sft"]
IN_SHARDS = ["sft_lora", "sft", "grpo"]

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def some_answers_are_right(monkeypatch):
    monkeypatch.setattr(Countdown, "accepts", lambda _, key, answer: golden.by_content(answer))


def in_two(base, folder, parallel, labels):
    """Train golden methods in two processes. Returns what each found."""
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(SETTINGS / f"{parallel}.yaml"),
        "--num_processes", "2", "--main_process_port", "0", "-m", "tests.component.in_ranks", str(base), str(folder),
        str(golden.UPDATES), *labels,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, env=environment(folder) | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return {label: json.loads((folder / label / "found.json").read_text()) for label in labels}


def same_as_one(base, tmp_path, label, found):
    """Compare with a training in this process: the curve, what was spent, the way travelled, and the weights."""
    spec = golden.arm_spec(label, golden.METHODS[label])
    traces = make_traces(spec, base, Store(tmp_path / "home")) if spec.config.get("traces_of") else None
    one = train(spec, base, tmp_path / "one" / label, traces)
    for name in ("updates", "sequences", "unique_prompts", "tokens_trained", "tokens_generated"):
        assert found[name] == getattr(one, name), (label, name)
    assert found["style_distance"] == pytest.approx(one.style_distance, abs=TOLERANCE)
    curves = [
        {(p["step"], p["name"]): p["value"] for p in curve if p["name"] in COMPARED} for curve in (found["curve"], one.curve)
    ]
    assert curves[0] == pytest.approx(curves[1], abs=TOLERANCE), label
    ways = [{int(step): tuple(pair) for step, pair in distances.items()} for distances in (found["distances"], one.distances)]
    assert ways[0].keys() == ways[1].keys()
    assert all(ways[0][step] == pytest.approx(ways[1][step], abs=1e-2) for step in ways[0])
    weights = [load_file(tmp_path / at / label / f"weights/{golden.UPDATES}/model.safetensors") for at in ("two", "one")]
    assert weights[0].keys() == weights[1].keys()
    moved = load_file(base / "model.safetensors")
    assert any(not torch.equal(weights[1][name], moved[name]) for name in moved)
    gaps = torch.cat([(weights[0][name] - weights[1][name]).abs().flatten() for name in weights[1]])
    # Adam divides by the gradient's own size, so that where this is rounding alone a weight moves by all of a step.
    assert float(gaps.quantile(0.999)) < TOLERANCE, label
    assert float(gaps.mean()) < TOLERANCE / 10, label


def test_two_processes_come_to_what_one_comes_to(base, tmp_path):
    for label, found in in_two(base, tmp_path / "two", "ddp", TOGETHER).items():
        assert found["shards"] == 0
        same_as_one(base, tmp_path, label, found)


@pytest.mark.slow
def test_so_they_do_with_weights_in_shards(base, tmp_path):
    for label, found in in_two(base, tmp_path / "two", "fsdp", IN_SHARDS).items():
        assert found["shards"] > 0, label
        same_as_one(base, tmp_path, label, found)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_so_does_every_method(base, tmp_path, parallel):
    done = {"ddp": TOGETHER, "fsdp": IN_SHARDS}[parallel]
    for label, found in in_two(base, tmp_path / "two", parallel, [m for m in golden.METHODS if m not in done]).items():
        same_as_one(base, tmp_path, label, found)


def in_processes(smoke_study, tmp_path, updates=4):
    """The smoke study with one method, two processes an arm."""
    text = smoke_study.read_text().replace("[sft, grpo]", "[sft_in_style]").replace("checkpoints: 2", "checkpoints: 1")
    text = text.replace("controls: [learning_rate_0]", "controls: []")
    text = text[: text.index("primary:")].replace("updates: 4", f"updates: {updates}")
    study = tmp_path / "two.yaml"
    study.write_text(text + "execution: {processes_per_arm: 2}\n")
    one = tmp_path / "one.yaml"
    one.write_text(text)
    return study, one


@pytest.mark.slow
def test_a_study_with_two_processes_an_arm(home, smoke_study, tmp_path):
    """The arms are others than those of one process, and what is measured of them is the same."""
    two, one = in_processes(smoke_study, tmp_path)
    assert run_plain(two, home) == {}
    with open_warehouse(home / "warehouse.duckdb") as con:
        found = con.execute("SELECT method, step, gain, drop, gain_exact FROM gain_drop WHERE step > 0 ORDER BY ALL").fetchall()
    assert run_plain(one, home) == {}
    with open_warehouse(home / "warehouse.duckdb") as con:
        expected = con.execute(
            "SELECT method, step, gain, drop, gain_exact FROM gain_drop WHERE step > 0 ORDER BY ALL"
        ).fetchall()
    assert [row[:2] for row in found] == [row[:2] for row in expected] != []
    assert [row[2:] for row in found] == [pytest.approx(row[2:], abs=1e-3) for row in expected]
    plans = [plan_study(load_study(study), Store(home / "artifacts")) for study in (two, one)]
    keys = [{arm.spec.key for arm in plan.arms} for plan in plans]
    assert all(plan.done for plan in plans)
    assert not keys[0] & keys[1]


@pytest.mark.slow
def test_a_process_that_is_killed_ends_all_and_they_go_on(home, smoke_study, tmp_path):
    """SIGKILL of one process while all train, then of the study; the arm goes on from its last state, to the same bits."""
    two, _ = in_processes(smoke_study, tmp_path, updates=60)
    other = tmp_path / "other"
    shutil.copytree(home, other)
    (spec,) = (arm.spec for arm in plan_study(load_study(two), Store(home / "artifacts")).arms)
    states = home / "artifacts" / ".resume" / f"arm-{spec.key}" / "state"

    def begin():
        command = [sys.executable, "-c", RUN_PLAIN, str(two), str(home)]
        settings = environment(home) | {"RETAIN_RESUME_SECONDS": "0", "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, cwd=ROOT, env=settings, stdout=subprocess.PIPE, text=True)

    def training(run, after):
        until(lambda: newest(states) > after, 300)
        return {p.environ()["RANK"]: p for p in psutil.Process(run.pid).children(recursive=True) if _trains(p)}

    run = begin()
    first = training(run, 0)
    assert first.keys() == {"0", "1"}
    first["1"].kill()
    out, _ = run.communicate(timeout=300)
    assert "one of the 2 processes of smoke/sft_in_style-lr1e-3-s0 was killed" in out
    assert not any(p.is_running() for p in first.values())
    reached = newest(states)
    assert 0 < reached < 60

    run = begin()
    second = training(run, reached)
    run.kill()
    run.communicate()
    until(lambda: not any(p.is_running() for p in second.values()), 30)

    assert run_plain(two, home) == {}
    assert run_plain(two, other) == {}
    found = [Store(at / "artifacts").get("weights", weights_key(spec, 60)).file("model.safetensors") for at in (home, other)]
    assert found[0].read_bytes() == found[1].read_bytes()
    assert not states.exists()


@pytest.mark.slow
def test_the_first_process_that_fails_says_why(home, smoke_study, tmp_path):
    """No loss is a number at this rate; the sentence comes from within the processes."""
    two, _ = in_processes(smoke_study, tmp_path)
    spec = plan_study(load_study(two), Store(home / "artifacts")).arms[0].spec.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(RetainError, match=r"^(loss|gradient) became (NaN|infinite) at update \d$"):
        launch(spec, str(home / "artifacts"))


def test_what_cannot_be_shared_is_refused(base, smoke_study, tmp_path, monkeypatch):
    text = smoke_study.read_text()
    for more, message in (
        ("execution: {processes_per_arm: 3}", "sft: 16 sequences of the target an update do not divide among 3 processes"),
        ("execution: {processes_per_arm: 2, parallel: pipeline}", "parallel"),
    ):
        (tmp_path / "bad.yaml").write_text(f"{text}{more}\n")
        with pytest.raises(InputError, match=message):
            load_study(tmp_path / "bad.yaml")
    with pytest.raises(InputError, match="zero3 needs NVIDIA GPUs and DeepSpeed"):
        launch(golden.arm_spec("sft", golden.METHODS["sft"], processes=2, parallel="zero3"), str(tmp_path))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="2 processes were started for an arm of 4"):
        ranks.join(4)


def test_one_process_leaves_studies_and_arms_as_they_were(smoke_study, tmp_path):
    """Their hashes are those of before there was a choice."""
    said = tmp_path / "said.yaml"
    said.write_text(smoke_study.read_text() + "execution: {threads_per_arm: 1, work_pool: null, processes_per_arm: 1}\n")
    study = load_study(said)
    assert study.spec_hash() == load_study(smoke_study).spec_hash()
    assert "processes_per_arm" not in json.dumps(study.model_dump(exclude={"execution": study.execution.unsaid()}))
    spec = golden.arm_spec("sft", golden.METHODS["sft"])
    assert "processes" not in spec.inputs()
    keys = {spec.model_copy(update={"processes": n, "parallel": how}).key for n in (1, 2, 4) for how in ("ddp", "fsdp")}
    assert len(keys) == 5


def test_the_settings_that_are_shipped_are_those_of_accelerate():
    kinds = {"ddp": "MULTI_GPU", "fsdp": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}
    found = {file.stem: load_config_from_file(str(file)) for file in SETTINGS.glob("*.yaml")}
    assert {name: config.distributed_type.value for name, config in found.items()} == kinds
    assert found.keys() == set(get_args(Execution.model_fields["parallel"].annotation))
    assert {config.mixed_precision for config in found.values()} == {"no"}  # precision is the study's
    assert found["fsdp"].fsdp_config["fsdp_version"] == 2
    # Every process asks the base before training, so every process reads it.
    assert found["fsdp"].fsdp_config["fsdp_cpu_ram_efficient_loading"] is False
    stages = [found[name].deepspeed_config for name in ("zero2", "zero3")]
    assert [stage["zero_stage"] for stage in stages] == [2, 3]
    assert [stage["zero3_init_flag"] for stage in stages] == [False, False]


def measured(home):
    """Method, step, gain, drop and exact gain of every checkpoint."""
    with open_warehouse(home / "warehouse.duckdb") as con:
        return con.execute("SELECT method, step, gain, drop, gain_exact FROM gain_drop WHERE step > 0 ORDER BY ALL").fetchall()


def newest(states):
    """The update of the newest state; 0 where there is none."""
    return max((int(p.name) for p in states.glob("*")), default=0)


def until(true, seconds):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _trains(process):
    with contextlib.suppress(psutil.Error):
        return process.environ().get("RANK") in ("0", "1") and "retain_core.arm" in process.cmdline()
    return False
