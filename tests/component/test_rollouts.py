"""Rollouts from a server of their own: a real small server in a process of its own holds the policy and samples from it."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import duckdb
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from retain_core.cards import peak
from retain_core.errors import InputError, RetainError
from retain_core.lab.targets import Countdown
from retain_core.launch import SETTINGS
from retain_core.methods import NAMED, Method
from retain_core.plan import plan_study
from retain_core.rehearse.shrink import shrunk
from retain_core.store import Store
from retain_core.study_file import load_study
from retain_core.training.adapters import plain_weights
from retain_core.training.memory import Shape
from retain_core.training.rollouts.policy import MOST_GAP, log_probabilities
from retain_core.training.rollouts.setting import RolloutServer
from retain_core.training.size import WHOLE, TrainingSize
from retain_core.training.train import prepare, train
from tests.component import golden
from tests.component.test_resume import TIMES, killed_and_resumed, outcome
from tests.conftest import ROOT, environment, run_plain
from tests.rollouts import digest_of
from tests.small_model import write_tiny

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.timeout(900)]
METHODS = golden.METHODS | {"grpo_lora": {"algorithm": "grpo", "reward": "random", "lora_rank": 2}}


SLOW = [("iterative_sft", 1), ("grpo_stale", 3), ("ppo", 2), ("grpo_lora", 2), ("self_sft", 2)]


@pytest.fixture(autouse=True)
def some_answers_are_right(monkeypatch):
    monkeypatch.setattr(Countdown, "accepts", lambda _, key, answer: golden.by_content(answer))


@contextlib.contextmanager
def serving(folder, log, fault=""):
    """The address of a server of rollouts with a model of a folder, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.rollouts", str(folder), str(port), fault]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with log.open("w") as stream:
        server = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=stream, stderr=stream)
    try:
        deadline = time.monotonic() + 120
        while not listening(port):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}", server
    finally:
        server.kill()
        server.wait()


def listening(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def address(base, tmp_path_factory):
    """A server with the tiny base that every training starts from."""
    with serving(base, tmp_path_factory.mktemp("server") / "log") as (at, _):
        yield at


def told(address):
    """What a server was asked and given since it was last asked this."""
    with urllib.request.urlopen(f"{address}/told") as reply:
        return json.load(reply)


def become(address, folder, fault=""):
    """From now on the server is another one: with the model of a folder, and with a fault."""
    said = json.dumps({"folder": str(folder), "fault": fault}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{address}/become", said)).close()


@pytest.fixture
def changing(address, base):
    """The address of the server for a test that makes it another one."""
    yield address
    become(address, base)


def through(address, label, updates=4, **more):
    """An arm of a golden method whose samples a server makes."""
    more = {"size": TrainingSize(rollouts=RolloutServer(server=address))} | more
    return golden.arm_spec(label, METHODS[label], updates=updates, **more)


class Weighed(TrainerCallback):
    """The digest of the policy's plain weights before the first update and after each."""

    def __init__(self, model):
        self.model, self.digests = model, [digest_of(plain_weights(model))]

    def on_step_end(self, *args, **kwargs):
        self.digests.append(digest_of(plain_weights(self.model)))


@pytest.mark.parametrize(
    ("label", "samplings"),
    [("grpo", [0, 1, 2, 3]), ("grpo_lora", [0, 1, 2, 3]), ("grpo_stale", [0, 4]), ("ppo", [0]),
     pytest.param("iterative_sft", [0, 2], marks=pytest.mark.slow)],
)  # fmt: skip
def test_the_policy_on_the_server_is_the_trainers_whenever_it_is_sampled(label, samplings, base, address, tmp_path):
    """Staleness keeps its meaning: weights go over exactly where samples are drawn, and are those of that update."""
    updates = 8 if label == "grpo_stale" else 4
    spec, before = through(address, label, updates), told(address)
    trainer, _ = prepare(spec, base, tmp_path)
    weighed = Weighed(trainer.model)
    trainer.add_callback(weighed)
    trainer.train()
    after = told(address)
    loaded = after["loaded"][len(before["loaded"]) :]
    assert [int(version.rpartition("-")[2]) for version, _ in loaded] == samplings
    assert [digest for _, digest in loaded] == [weighed.digests[update] for update in samplings]
    assert len(set(weighed.digests)) == updates + 1
    seeds = after["seeds"][len(before["seeds"]) :]
    assert len(seeds) >= golden.SEQUENCES
    assert len(set(seeds)) == len(seeds), "equal prompts get unlike answers"
    gaps = [entry["server_gap_largest"] for entry in trainer.state.log_history if "server_gap" in entry]
    assert gaps
    assert max(gaps) < 1e-4, "the samples come from the policy that the trainer has"
    assert not list(tmp_path.rglob("retain-*")), "weights are gone once the server has read them"


@pytest.mark.parametrize(
    ("label", "after"),
    [("grpo", 3), *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)],
)
def test_killed_and_resumed_equals_uninterrupted(label, after, base, address, tmp_path):
    spec = through(address, label, steps=(2, 4))
    whole, again = killed_and_resumed(spec, base, tmp_path, after)
    assert again == whole
    assert any(name == "server_gap" for _, name, _ in whole[1])


@pytest.mark.slow
def test_a_sequence_of_targets_goes_through_the_server(base, address, tmp_path):
    whole, again = killed_and_resumed(
        through(address, "grpo", updates=2, steps=(2, 4), then=("new_format",)), base, tmp_path, after=3
    )
    assert again == whole


def test_samples_are_those_that_the_policy_would_draw(base, address, tmp_path):
    """Of many answers to one prompt each first token is as frequent as the policy says."""
    trainer, _ = prepare(through(address, "grpo"), base, tmp_path)
    prompt = trainer._tokenize_prompts([trainer.train_dataset[0]["prompt"]])[0][0]
    rows = trainer._rollouts.sample(trainer.model, [prompt] * 400, update=0, temperature=2.0, longest=1, bf16=False)
    with torch.no_grad():
        chances = (trainer.model(torch.tensor([prompt])).logits[0, -1] / 2.0).softmax(-1)
    for token in chances.topk(3).indices.tolist():
        share, chance = sum(row == [token] for row in rows) / 400, float(chances[token])
        assert abs(share - chance) < 4 * (chance * (1 - chance) / 400) ** 0.5
    answer = chances.topk(3).indices.tolist()
    found = log_probabilities(trainer.model, prompt, answer, 2.0, bf16=False)
    assert float(found[0]) == pytest.approx(float(chances[answer[0]].log()), abs=1e-5)


def test_what_the_server_computed_with_other_weights_is_forgotten(base, address, tmp_path):
    """The same prompt is asked again after an update, and no answer to it comes from the policy before."""
    trainer, _ = prepare(through(address, "grpo"), base, tmp_path)
    prompt = trainer._tokenize_prompts([trainer.train_dataset[0]["prompt"]])[0][0]
    for update in (0, 1):
        trainer._rollouts.sample(trainer.model, [prompt] * 4, update=update, temperature=1.0, longest=4, bf16=False)
        assert trainer._rollouts.gap["server_gap_largest"] < 1e-4
        with torch.no_grad():
            for weight in trainer.model.parameters():
                weight *= 1.2


def test_in_bf16_the_server_gets_what_the_own_copy_would_hold(base, address, tmp_path):
    size = TrainingSize(dtype="bf16", rollouts=RolloutServer(server=address, weights=str(tmp_path / "shared")))
    before = len(told(address)["loaded"])
    trainer, _ = prepare(through(address, "grpo", updates=1, size=size), base, tmp_path)
    assert trainer._sampler is None
    rounded = digest_of({name: weight.to(torch.bfloat16) for name, weight in plain_weights(trainer.model).items()})
    trainer.train()
    assert [digest for _, digest in told(address)["loaded"][before:]] == [rounded]
    gap = trainer.state.log_history[0]["server_gap"]
    assert 1e-5 < gap < MOST_GAP / 4


@pytest.mark.slow
def test_two_processes_come_to_what_one_comes_to(base, address, tmp_path):
    one = train(through(address, "grpo"), base, tmp_path / "one")
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(SETTINGS / "ddp.yaml"), "--num_processes", "2",
        "--main_process_port", "0", "-m", "tests.component.in_ranks", str(base), str(tmp_path / "two"), "4", "grpo",
    ]  # fmt: skip
    more = {"OMP_NUM_THREADS": "1", "ROLLOUTS": address}
    done = subprocess.run(command, cwd=ROOT, env=environment(tmp_path) | more, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    two = json.loads((tmp_path / "two" / "grpo" / "found.json").read_text())
    names = ("loss", "grad_norm", "kl", "reward", "server_gap")
    curves = [{(p["step"], p["name"]): p["value"] for p in c if p["name"] in names} for c in (two["curve"], one.curve)]
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)
    assert two["tokens_generated"] == one.tokens_generated


@pytest.mark.slow
def test_arms_that_share_a_server_use_it_in_turn(base, address, tmp_path):
    """Each has its own weights there while it samples, and the numbers of one that was alone."""
    alone = train(through(address, "grpo"), base, tmp_path / "alone")
    code = (
        "import sys, pathlib; from tests.component import test_rollouts as t; from retain_core.training.train import train\n"
        "train(t.through(sys.argv[1], 'rloo', updates=30), pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))"
    )
    arguments = [sys.executable, "-c", code, address, str(base), str(tmp_path / "other")]
    other = subprocess.Popen(arguments, cwd=ROOT, env=environment(tmp_path), stderr=subprocess.PIPE)
    waits = threading.Thread(target=other.communicate)
    waits.start()
    beside = 0
    while other.poll() is None:  # begin again until the other is done, so that they meet
        again = train(through(address, "grpo"), base, tmp_path / f"beside-{beside}")
        assert [p for p in again.curve if p["name"] not in TIMES] == [p for p in alone.curve if p["name"] not in TIMES]
        beside += 1
    waits.join()
    assert other.returncode == 0
    assert beside
    versions = [version.rpartition("-")[0] for version, _ in told(address)["loaded"]]
    assert any(a == c != b for a, b, c in zip(versions, versions[1:], versions[2:], strict=False)), "they met"


# What goes wrong


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("no_versions", InputError, "has no /weight_info; start vLLM with VLLM_SERVER_DEV_MODE=1"),
        ("not_json", RetainError, "/v1/models did not answer in JSON"),
        ("short", InputError, "start it with --max-model-len"),
        ("cuts", RetainError, "cut an answer after 3 tokens"),
        ("runs_on", RetainError, "neither at the stop token nor at"),
        ("no_log_probabilities", RetainError, "not with the token ids and log-probabilities of vLLM's completions"),
        ("other_version", RetainError, 'are version "somebody\'s" now and no more those after update 0'),
        ("other_weights", RetainError, "it did not take the weights, serves another model"),
        ("busy", RetainError, "would not forget what it computed with other weights"),
    ],
)
def test_a_server_that_does_not_do_its_part_is_one_sentence(fault, error, words, base, changing, tmp_path):
    become(changing, base, fault)
    with pytest.raises(error) as caught:
        train(through(changing, "grpo"), base, tmp_path / "out")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").rglob("retain-*"))


def test_another_vocabulary_is_one_sentence(base, changing, tmp_path):
    become(changing, write_tiny(tmp_path / "tiny"))
    with pytest.raises(InputError, match="has another vocabulary than the base"):
        prepare(through(changing, "grpo"), base, tmp_path / "out")


def test_another_model_of_the_same_vocabulary_is_one_sentence(base, changing, tmp_path):
    config = AutoConfig.from_pretrained(base)
    config.num_hidden_layers += 1
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "deeper")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "deeper")
    become(changing, tmp_path / "deeper")
    with pytest.raises(RetainError) as caught:
        train(through(changing, "grpo"), base, tmp_path / "out")
    assert "did not take the policy's weights" in str(caught.value)
    assert "weights do not fit" in str(caught.value)


def test_a_server_that_dies_ends_the_arm_with_a_sentence_and_it_goes_on_with_another(base, address, tmp_path):
    whole = train(through(address, "grpo", steps=(2, 4)), base, tmp_path / "whole", every=0)
    with serving(base, tmp_path / "log", "dies_at_2") as (at, _), pytest.raises(RetainError) as caught:
        train(through(at, "grpo", steps=(2, 4)), base, tmp_path / "out", every=0)
    assert f"the server of rollouts at {at} does not answer" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [p.name for p in (tmp_path / "out" / "state").iterdir()] == ["2"]
    with pytest.raises(RetainError, match="does not answer"):  # still away
        train(through(at, "grpo", steps=(2, 4)), base, tmp_path / "out", every=0)
    before = len(told(address)["loaded"])
    spec = through(address, "grpo", steps=(2, 4))
    again = train(spec, base, tmp_path / "out", every=0)
    updates = [int(version.rpartition("-")[2]) for version, _ in told(address)["loaded"][before:]]
    assert updates == [2, 3]
    assert outcome(tmp_path / "out", spec, again) == outcome(tmp_path / "whole", spec, whole)


def test_a_trainer_that_is_killed_while_it_hands_weights_over_leaves_none_behind_for_long(base, address, tmp_path):
    spec = through(address, "grpo")
    left = tmp_path / "shared" / f"retain-{spec.key[:16]}" / "old"
    left.mkdir(parents=True)
    size = TrainingSize(rollouts=RolloutServer(server=address, weights=str(tmp_path / "shared")))
    train(spec.model_copy(update={"size": size}), base, tmp_path / "out")
    assert list((tmp_path / "shared").iterdir()) == []


# In a study


def study_with(smoke_study, folder, address, more=""):
    file = folder / "s.yaml"
    text = smoke_study.read_text().replace("methods: [sft, grpo]", "methods: [sft, grpo, reinforce]")
    file.write_text(f"{text}training: {{rollouts: {{server: '{address}'}}{more}}}\n")
    return file


@pytest.mark.slow
def test_a_study_goes_through_the_server_and_waits_for_one_that_is_away(smoke_study, smoke_plan, home, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
        failed = run_plain(study_with(smoke_study, tmp_path, nobody), home)
    assert set(failed) == {"smoke/grpo-lr1e-3-s0", "smoke/reinforce-lr1e-3-s0"}, "SFT needs no server"
    assert all(f"the server of rollouts at {nobody} does not answer" in sentence for sentence in failed.values())
    with serving(smoke_plan.base_path, tmp_path / "log") as (at, _):
        file = study_with(smoke_study, tmp_path, at)
        assert run_plain(file, home) == {}
        asked = len(told(at)["seeds"])
        assert asked == 2 * 4 * 16
        assert run_plain(file, home) == {}
        assert len(told(at)["seeds"]) == asked, "nothing is computed twice"
    plan = plan_study(load_study(file), Store(home / "artifacts"))
    assert plan.done
    curve = next(arm.record.file("curve.parquet") for arm in plan.arms if arm.spec.method == "grpo")
    told_apart = duckdb.execute(f"SELECT value FROM '{curve}' WHERE name = 'server_gap'").fetchall()
    assert len(told_apart) == 4
    assert max(gap for (gap,) in told_apart) < 1e-4


def test_whether_a_server_samples_is_part_of_the_key_of_arms_that_sample(smoke_study, tmp_path):
    def keys(text):
        file = tmp_path / "k.yaml"
        file.write_text(smoke_study.read_text() + text)
        return {arm.spec.method: arm.spec.key for arm in plan_study(load_study(file), Store(tmp_path / "artifacts")).arms}

    own, one = keys(""), keys("training: {rollouts: {server: 'http://a:1'}}\n")
    other = keys("training: {rollouts: {server: 'http://b:2/v1', weights: /dev/shm, concurrent: 3}}\n")
    assert own["grpo"] != one["grpo"]
    assert one == other, "where the server is makes no other numbers"
    assert {method for method in own if own[method] != one[method]} == {"grpo"}
    assert keys("training: {micro_batch: 4}\n") == keys("training: {micro_batch: 4, rollouts: null}\n")


def test_methods_that_draw_from_their_policy_are_known():
    sampling = {name for name, dials in NAMED.items() if Method(label=name, **dials).samples_policy()}
    assert sampling == {"self_sft", "iterative_sft", "reinforce", "rloo", "grpo", "dr_grpo", "ppo"}
    assert Method(label="t", algorithm="sft", expert="traces", traces_of="grpo").samples_policy()


def test_a_server_takes_the_copy_that_samples_off_the_trainers_card():
    shape = Shape(1024, 12, 1024, 256, 4096, 32000, True, False)
    own = golden.arm_spec("grpo", METHODS["grpo"])
    spec = own.model_copy(update={"size": TrainingSize(rollouts=RolloutServer(server="http://a:1"))})
    assert peak(shape, WHOLE, 512, own) - peak(shape, WHOLE, 512, spec) >= 2 * shape.parameters


def test_a_rehearsal_samples_by_itself_and_says_so():
    study = load_study(ROOT / "studies" / "smoke.yaml")
    base = study.base.model_copy(update={"model": "Qwen/Qwen2.5-1.5B-Instruct"})
    training = TrainingSize(rollouts=RolloutServer(server="http://a:1"))
    small, lines = shrunk(study.model_copy(update={"base": base, "controls": (), "training": training}))
    assert small.training.rollouts is None
    assert "rollouts: sampled by the trainer itself (the study: the server at http://a:1)" in lines
    assert not any(line.startswith("training:") for line in lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{server: 'localhost:8000'}", "an address without user, password and query"),
        ("{server: 'http://me:secret@a:1'}", "an address without user, password and query"),
        ("{server: 'http://a:1', weights: shared}", "'shared' is no absolute path"),
        ("{server: 'http://a:1', gpu: 1}", "gpu"),
        ("{weights: /dev/shm}", "server"),
    ],
)
def test_what_a_study_says_of_the_server_is_checked(tmp_path, smoke_study, text, words):
    (tmp_path / "s.yaml").write_text(f"{smoke_study.read_text()}training: {{rollouts: {text}}}\n")
    with pytest.raises(InputError) as caught:
        load_study(tmp_path / "s.yaml")
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
