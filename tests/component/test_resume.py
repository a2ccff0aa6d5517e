"""A training that was killed goes on to the same bits, whatever the method; what is damaged is not gone on from."""

import logging
import re
import shutil
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import duckdb
import pytest
import torch
import yaml

from retain_core.errors import RetainError
from retain_core.lab.targets import Countdown
from retain_core.store import Store, sha256_of
from retain_core.training import configs
from retain_core.training.pack import TENSORS, read_tree, write_tree
from retain_core.training.resume import Unfinished
from retain_core.training.stream import Stream
from retain_core.training.traces import make_traces, read_traces, record, teacher
from retain_core.training.train import train
from tests.component import golden
from tests.conftest import run_plain

UPDATES = 4
TIMES = {"step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second"}
"""Entries of a curve that are seconds."""
KILLED_AFTER = {"iterative_sft": 1, "self_sft_small": 1, "traces": 2, "ppo": 2}
"""Update after which a method is killed, 3 unless said: mostly in the middle of what it sampled; these before they go on."""
OWN_TRAINER = '''
import torch
from datasets import Dataset
from trl import SFTTrainer

from retain_core.training.configs import sft_config
from retain_core.training.encode import encode_exchanges
from retain_core.training.record import TrainingRecord


class Noisy(SFTTrainer):
    """Draws from torch's stream in every update, and keeps something that no other trainer does."""

    drawn = 0.0

    def compute_loss(self, *args, **kwargs):
        self.drawn += float(torch.rand(()))
        return super().compute_loss(*args, **kwargs) * (1 + self.drawn)

    def resume_state(self):
        return {"drawn": self.drawn}

    def resume_from(self, state):
        self.drawn = state["drawn"]


def build(spec, base, tokenizer, target, common):
    dials = {"expert": "in_style", "solution": "random", "harm": None}
    rows = encode_exchanges(tokenizer, target.expert(dials, spec.seed, 2 * common["batch"]))
    args = sft_config(**common)
    trainer = Noisy(model=str(base), args=args, processing_class=tokenizer, train_dataset=Dataset.from_list(rows))
    return trainer, lambda done: TrainingRecord(spec.updates, 1, 1, round(1e6 * done.drawn), 0)
'''

pytestmark = pytest.mark.usefixtures("one_thread", "some_answers_are_right", "logs_every_other_update")


@pytest.fixture
def some_answers_are_right(monkeypatch):
    monkeypatch.setattr(Countdown, "accepts", lambda _, key, answer: golden.by_content(answer))


@pytest.fixture
def logs_every_other_update(monkeypatch):
    """A killed training has losses at hand that it did not log yet."""
    monkeypatch.setattr(configs, "LOG_POINTS", 2)


@contextmanager
def images(folder: Path, into: Path):
    """What a kill would leave: a copy of a training's folder whenever it has a new state, by update."""
    write = Unfinished._save_state

    def and_copy(self, step, state):
        write(self, step, state)
        if self._folder.root == folder:
            shutil.copytree(folder, into / str(step))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Unfinished, "_save_state", and_copy)
        yield


def outcome(folder, spec, found):
    """Everything that two trainings must agree on, to the bit."""
    hashes = [sha256_of(folder / "weights" / str(step) / "model.safetensors") for step in spec.steps]
    curve = [(p["step"], p["name"], repr(p["value"])) for p in found.curve if p["name"] not in TIMES]
    counts = (found.updates, found.sequences, found.unique_prompts, found.tokens_trained, found.tokens_generated)
    return hashes, curve, counts, found.style_distance, found.distances


def killed_and_resumed(spec, base, tmp_path, after, traces=None):
    """(outcome of the whole training, of the one that goes on after that update)."""
    with images(tmp_path / "whole", tmp_path / "at"):
        whole = train(spec, base, tmp_path / "whole", traces, every=0)
    image = tmp_path / "at" / str(after)
    states = sorted(p.name for p in (image / "state").iterdir())
    assert states == [str(after)], "only the newest state is kept"
    assert not (image / "record").exists()
    again = train(spec, base, image, traces, every=0)
    assert again.seconds > 0
    return outcome(tmp_path / "whole", spec, whole), outcome(image, spec, again)


@pytest.mark.parametrize("label", golden.METHODS)
def test_every_method_goes_on_to_the_same_bits(label, base, tmp_path):
    spec = golden.arm_spec(label, golden.METHODS[label], updates=UPDATES, steps=(2, UPDATES))
    traces = make_traces(spec, base, Store(tmp_path / "home")) if spec.config.get("traces_of") else None
    whole, again = killed_and_resumed(spec, base, tmp_path, KILLED_AFTER.get(label, 3), traces)
    assert again == whole


@pytest.mark.parametrize("label", ["grpo", "sft_lora"])
def test_a_sequence_of_targets_goes_on_inside_its_second_stage(label, base, tmp_path):
    spec = golden.arm_spec(label, golden.METHODS[label], updates=2, steps=(2, 4), then=("new_format",))
    whole, again = killed_and_resumed(spec, base, tmp_path, after=3)
    assert again == whole


def test_a_trainer_of_ones_own_goes_on_too_in_the_middle_of_its_second_epoch(base, tmp_path):
    """Its data set holds two batches, so the order of the second epoch and its position are put back."""
    from retain_core.own.files import Code, seal

    (tmp_path / "own_noisy_trainer.py").write_text(OWN_TRAINER)
    code = Code(
        module="own_noisy_trainer", function="build", source=seal([tmp_path / "own_noisy_trainer.py"]), folder=str(tmp_path)
    )
    dials = {"algorithm": "custom", "trainer": "own_noisy_trainer:build"}
    spec = golden.arm_spec("own", dials, updates=UPDATES, steps=(2, UPDATES), trainer=code)
    whole, again = killed_and_resumed(spec, base, tmp_path, after=3)
    assert again == whole
    image = tmp_path / "at" / "2"  # between two epochs
    assert outcome(image, spec, train(spec, base, image, every=0)) == whole


def test_traces_go_on_in_the_middle_of_their_teacher(base, tmp_path):
    arm = golden.arm_spec("traces", golden.METHODS["traces"], updates=UPDATES)
    with images(tmp_path / "whole", tmp_path / "at"):
        lines, tokens, _ = record(teacher(arm), base, Store(tmp_path / "whole"), every=0)
    again, tokens_again, _ = record(teacher(arm), base, Store(tmp_path / "at" / "2"), every=0)
    assert (again, tokens_again) == (lines, tokens)
    assert {line["update"] for line in lines} == {0, 1, 2, 3}
    store = Store(tmp_path / "home")
    made = make_traces(arm, base, store)
    assert read_traces(made.path) == [(line["prompt"], line["answer"]) for line in lines]
    assert not list((store.root / ".resume").iterdir())


@pytest.mark.parametrize("label", ["dpo", "lowest_kl"])
def test_what_was_drawn_from_the_base_is_not_drawn_again(label, base, tmp_path, monkeypatch):
    """Also where no update was made yet: the random streams then go on from behind the draws."""
    spec = golden.arm_spec(label, golden.METHODS[label], updates=2, steps=(2,))
    with images(tmp_path / "whole", tmp_path / "at"):
        whole = outcome(tmp_path / "whole", spec, train(spec, base, tmp_path / "whole", every=0))
    shutil.rmtree(tmp_path / "at" / "1" / "state")
    monkeypatch.setattr("retain_core.training.frozen.frozen_base", None)
    assert outcome(tmp_path / "at" / "1", spec, train(spec, base, tmp_path / "at" / "1")) == whole


def test_writing_states_changes_nothing_and_a_finished_training_is_not_trained_again(base, tmp_path, monkeypatch):
    spec = golden.arm_spec("grpo", golden.METHODS["grpo"], updates=2)
    with_states = outcome(tmp_path / "a", spec, train(spec, base, tmp_path / "a", every=0))
    without = train(spec, base, tmp_path / "b", every=1e9)
    assert outcome(tmp_path / "b", spec, without) == with_states
    assert not list((tmp_path / "b").glob("state/*"))
    monkeypatch.setattr("retain_core.training.train.prepare", None)
    assert train(spec, base, tmp_path / "b") == without


# Damage


@pytest.fixture(scope="module")
def killed(base, tmp_path_factory, one_thread):
    """A training with a checkpoint after update 1 that was killed after update 2; and its outcome had it not been."""
    folder = tmp_path_factory.mktemp("killed")
    spec = golden.arm_spec("sft", golden.METHODS["sft"], updates=3, steps=(1, 3))
    with images(folder / "whole", folder / "at"):
        whole = train(spec, base, folder / "whole", every=0)
    hashes, *_ = outcome(folder / "whole", spec, whole)
    return folder / "at", spec, hashes


def flip(file: Path, position: int) -> None:
    spoiled = bytearray(file.read_bytes())
    spoiled[position] ^= 1
    file.write_bytes(bytes(spoiled))


@pytest.mark.parametrize("spoil", ["flip", "truncate", "remove", "manifest"])
def test_a_damaged_state_is_set_aside_and_an_earlier_one_used(killed, base, tmp_path, caplog, spoil):
    at, spec, hashes = killed
    shutil.copytree(at / "2", tmp_path / "run")
    shutil.copytree(at / "1" / "state" / "1", tmp_path / "run" / "state" / "1")
    state = tmp_path / "run" / "state" / "2"
    if spoil == "truncate":
        (state / TENSORS).write_bytes((state / TENSORS).read_bytes()[:100])
    elif spoil == "remove":
        (state / TENSORS).unlink()
    else:
        flip(state / (TENSORS if spoil == "flip" else "manifest.json"), 200)
    with caplog.at_level(logging.WARNING):
        found = train(spec, base, tmp_path / "run", every=1e9)
    assert "state/2: " in caplog.text
    assert "set aside as" in caplog.text
    assert "going on after update 1" in caplog.text
    assert outcome(tmp_path / "run", spec, found)[0] == hashes


def test_a_damaged_checkpoint_is_made_again_from_the_start(killed, base, tmp_path, caplog):
    """The state after it is whole, but would leave the checkpoint missing."""
    at, spec, hashes = killed
    shutil.copytree(at / "2", tmp_path / "run")
    flip(tmp_path / "run" / "weights" / "1" / "model.safetensors", 5000)
    with caplog.at_level(logging.WARNING):
        found = train(spec, base, tmp_path / "run", every=1e9)
    assert "weights/1: model.safetensors does not match its checksum" in caplog.text
    assert "going on" not in caplog.text
    assert outcome(tmp_path / "run", spec, found)[0] == hashes


def test_what_another_training_left_is_not_gone_on_from(killed, base, tmp_path):
    at, spec, hashes = killed
    shutil.copytree(at / "2", tmp_path / "run")
    other = spec.model_copy(update={"seed": 1})
    found = outcome(tmp_path / "run", other, train(other, base, tmp_path / "run", every=1e9))
    assert found == outcome(tmp_path / "fresh", other, train(other, base, tmp_path / "fresh", every=1e9))
    assert found[0] != hashes


# Pieces


def test_a_tree_comes_back_as_it_was(tmp_path):
    whole = torch.arange(6, dtype=torch.float32)
    tree = {
        1: (2, None, [True, 0.1, float("inf")]), "tensors": [whole[:3], whole[3:], torch.tensor(7), torch.zeros(0, 2)],
        "bits": torch.tensor([0.1], dtype=torch.bfloat16), "mask": torch.tensor([True, False]), "$": {"of": "x"},
    }  # fmt: skip
    write_tree(tmp_path, tree)
    back = read_tree(tmp_path)
    assert back[1] == tree[1]
    assert back["$"] == tree["$"]
    for a, b in zip(
        [*tree["tensors"], tree["bits"], tree["mask"]], [*back["tensors"], back["bits"], back["mask"]], strict=True
    ):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    with pytest.raises(TypeError, match="set cannot be kept"):
        write_tree(tmp_path, {"a": {1, 2}})


def test_a_stream_knows_where_it_stands():
    stream, again = Stream(iter(range(100))), Stream(iter(range(100)))
    assert list(islice(stream, 7)) == list(range(7))
    again.skip(stream.taken)
    assert next(again) == next(stream) == 7
    assert again.taken == stream.taken == 8


# Numbers that go wrong


@pytest.mark.parametrize(
    ("label", "wrong", "words"),
    [
        ("sft", "loss", "loss became NaN at update 3"),
        ("grpo", "loss", "loss became NaN at update 3"),
        ("sft", "gradient", "gradient became infinite at update 3"),
        ("dpo", "gradient", "gradient became infinite at update 3"),
        ("ppo", "value", "loss became NaN at update 3"),
    ],
)
def test_a_number_that_goes_wrong_ends_the_training_before_the_step(label, wrong, words, base, tmp_path, monkeypatch):
    """The weights are those after the last good update, whose checkpoint and state stay; going on fails the same way."""
    from retain_core.training import train as module

    steps = []
    prepare = module.prepare

    def spoiled(*args):
        trainer, count = prepare(*args)
        compute, step = trainer.compute_loss, torch.optim.AdamW.step

        def third():
            return trainer.state.global_step == 2

        def loss(model, *args, **kwargs):
            found = compute(model, *args, **kwargs)
            if wrong == "gradient" and third():
                model.get_input_embeddings().weight.register_hook(lambda grad: grad * float("inf"))
            return found * float("nan") if wrong == "loss" and third() else found

        def counted(self, *args, **kwargs):
            steps.append(trainer.state.global_step)
            return step(self, *args, **kwargs)

        trainer.compute_loss = loss
        if wrong == "value":
            values = trainer._values
            trainer._values = lambda inputs: values(inputs) * (float("nan") if third() else 1)
        monkeypatch.setattr(torch.optim.AdamW, "step", counted)
        return trainer, count

    monkeypatch.setattr(module, "prepare", spoiled)
    spec = golden.arm_spec(label, golden.METHODS[label], updates=UPDATES, steps=(2, UPDATES))
    for _ in range(2):
        with pytest.raises(RetainError, match=words):
            train(spec, base, tmp_path, every=0)
        assert 2 not in steps
    assert Store(tmp_path).find("weights", "2")
    assert Store(tmp_path).find("state", "2")


def test_other_arms_go_on_and_sql_and_the_report_say_which_is_missing_and_why(home, smoke_study, tmp_path):
    """At a learning rate that no weights survive the second update has no finite loss or gradient, in a process of its own."""
    study = yaml.safe_load(smoke_study.read_text())
    del study["primary"]
    study |= {"methods": ["sft"], "controls": [], "learning_rates": [1e-3, 1e30]}
    (tmp_path / "smoke.yaml").write_text(yaml.safe_dump(study))
    errors = run_plain(tmp_path / "smoke.yaml", home)
    assert list(errors) == ["smoke/sft-lr1e30-s0"]
    told = re.search(r"(loss|gradient) became NaN at update 2", errors["smoke/sft-lr1e30-s0"])
    assert told
    why = told.group()
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        found = dict(con.execute("SELECT arm, (status, error) FROM arms WHERE method = 'sft'").fetchall())
    assert found["smoke/sft-lr1e-3-s0"] == ("done", None)
    status, error = found["smoke/sft-lr1e30-s0"]
    assert status == "failed"
    assert why in error
    assert why in (home / "reports" / "smoke" / "index.html").read_text()
