"""What fits on which card: against what was measured on one, and against trainings that really run."""

import re

import pytest

from retain_core.cards import CARDS, GB, Demand, card_lines, fitted, hours, peak, refuse_too_small
from retain_core.commands import plan_text
from retain_core.errors import InputError
from retain_core.plan import plan_study
from retain_core.settings import settings
from retain_core.store import Store
from retain_core.study_file import load_study
from retain_core.training.memory import Shape, training_peak
from retain_core.training.size import TrainingSize
from tests.conftest import ROOT
from tests.tiny import write_tiny

QWEN = Shape(1536, 28, 1536, 256, 8960, 151_936, tied=True, biases=True)
"""Qwen2.5-1.5B."""
LLAMA_8B = Shape(4096, 32, 4096, 1024, 14_336, 128_256, tied=False, biases=False)
MEASURED = re.compile(
    r"^\| micro_batch (\d+)(, compile)?(, activation_checkpointing)? \| .* \| ([\d.]+) \| ([\d.]+) \|$", re.MULTILINE
)

STUDY = """
study: sized
base: {base}
target: {{name: echo, train: train.jsonl, items: items.jsonl, verifier: "verify:right", longest_answer: 12}}
retention: [sorting]
methods: [sft, grpo, {{label: grpo_kl, algorithm: grpo, kl: 0.1}}, dpo]
learning_rates: [1.0e-3]
seeds: [0]
budget: {{updates: 2, sequences_per_update: 16}}
checkpoints: 1
training: {training}
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Writes a study of an own target with the given `training:`, and returns its file."""
    monkeypatch.setenv("RETAIN_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    base = write_tiny(tmp_path / "base", ["say a word", "a word"])
    (tmp_path / "verify.py").write_text("def right(answer, row):\n    return answer == row['answer']\n")
    rows = "".join(f'{{"prompt": "say word {i}", "answer": "word {i}"}}\n' for i in range(60))
    (tmp_path / "train.jsonl").write_text(rows)
    (tmp_path / "items.jsonl").write_text(rows.replace("say word", "please say word"))

    def write(training):
        (tmp_path / "study.yaml").write_text(STUDY.format(base=base, training=training))
        return tmp_path / "study.yaml"

    yield write
    settings.cache_clear()


def arms(path, home):
    return [arm.spec for arm in plan_study(load_study(path), Store(home / "artifacts")).arms]


def test_the_estimate_is_within_a_tenth_of_every_peak_that_was_measured():
    found = MEASURED.findall((ROOT / "docs" / "results.md").read_text(encoding="utf-8"))
    assert len(found) == 6
    for micro, compiled, recomputed, measured, told in found:
        size = TrainingSize(micro_batch=int(micro), compile=bool(compiled), activation_checkpointing=bool(recomputed))
        estimate = training_peak(QWEN, size, int(micro), 1024) / 1e9
        assert estimate == pytest.approx(float(measured), rel=0.1)
        assert estimate == pytest.approx(float(told), abs=0.06)


def test_the_shapes_have_the_parameters_that_their_models_have():
    assert QWEN.parameters == 1_543_714_304
    assert LLAMA_8B.parameters == 8_030_261_248


def test_a_larger_card_never_takes_a_smaller_micro_batch(study, tmp_path):
    some = tuple({spec.method: spec for spec in arms(study("{}"), tmp_path)}.values())
    demand = Demand(QWEN, 2048, some)
    sizes = [fitted(demand, card.memory, TrainingSize()) for card in sorted(CARDS, key=lambda card: card.memory)]
    rows = [(not size.activation_checkpointing, size.micro_batch) if size else (False, 0) for size in sizes]
    assert rows == sorted(rows)
    assert rows[-1] > rows[0]
    for card, size in zip(sorted(CARDS, key=lambda card: card.memory), sizes, strict=True):
        assert size is None or demand.peak(size)[0] < card.memory


def test_eight_billion_parameters_fit_on_no_single_card_and_the_lines_say_what_to_do(study, tmp_path):
    some = tuple({spec.method: spec for spec in arms(study("{}"), tmp_path)}.values())
    text = "\n".join(card_lines(Demand(LLAMA_8B, 4096, some)))
    assert "80 GB (H100): too small" in text
    assert "execution: {processes_per_arm: 4, parallel: fsdp}" in text
    assert hours(Demand(QWEN, 1024, some), CARDS[0]) > hours(Demand(QWEN, 1024, some), CARDS[-1])


def test_shares_of_several_processes_and_adapters_take_less(study, tmp_path):
    sft = next(spec for spec in arms(study("{}"), tmp_path) if spec.method == "sft")
    size = TrainingSize(micro_batch=1, activation_checkpointing=True)
    alone = peak(LLAMA_8B, size, 1024, sft)
    several = [
        peak(LLAMA_8B, size, 1024, sft.model_copy(update={"processes": 4, "parallel": how})) for how in ("ddp", "zero2", "fsdp")
    ]
    assert several[0] == alone
    assert alone > several[1] > several[2]
    adapters = sft.model_copy(update={"config": {**sft.config, "lora_rank": 8}})
    assert peak(LLAMA_8B, size, 1024, adapters) < alone / 2


def test_a_card_that_is_too_small_is_refused_with_the_mend(study, tmp_path):
    some = tuple({spec.method: spec for spec in arms(study("{}"), tmp_path)}.values())
    demand, size = Demand(QWEN, 1024, some), TrainingSize(micro_batch=16)
    with pytest.raises(
        InputError, match=r"takes about \d+ GB and the accelerator here has 80: set `training: {micro_batch: \d+"
    ):
        refuse_too_small(demand, [size], 80 * GB)
    with pytest.raises(InputError, match="has 16: train adapters"):
        refuse_too_small(demand, [size], 16 * GB)
    with pytest.raises(InputError, match=r"has 80, 20 for each of 4 arms \(`RETAIN_ARMS_PER_DEVICE`\): train adapters"):
        refuse_too_small(demand, [TrainingSize(micro_batch=1)], 80 * GB, places=4)
    refuse_too_small(demand, [size], 10**13, places=4)


def test_card_chooses_for_every_arm_and_what_it_chose_is_in_the_key(study, tmp_path):
    plain, chosen = arms(study("{}"), tmp_path), arms(study("{card: 80}"), tmp_path)
    assert {spec.size.micro_batch for spec in chosen} == {16}
    assert {spec.size.card for spec in chosen} == {None}
    assert {spec.size for spec in plain} == {TrainingSize()}
    assert {a.key for a in plain}.isdisjoint(b.key for b in chosen)
    text = plan_text(study("{card: 80}"))
    assert "cards, for " in text
    assert "80 GB (A100): `training: {micro_batch: 16}`" in text


@pytest.mark.parametrize(("training", "said"), [
    ("{micro_batch: 5}", "grpo: training.micro_batch .5. must divide the 16 samples of an update"),
    ("{card: 80, micro_batch: 4}", "`card` chooses micro_batch and activation_checkpointing"),
    ("{dtype: int8}", "training.dtype"),
])  # fmt: skip
def test_what_cannot_be_is_refused(study, training, said):
    with pytest.raises(InputError, match=said):
        load_study(study(training))


def test_the_lab_needs_no_card_and_its_keys_are_what_they_were():
    lab = load_study(ROOT / "studies" / "smoke.yaml")
    assert lab.training == TrainingSize()
    with pytest.raises(ValueError, match=r"training\.card fits models that are not of the lab"):
        type(lab).model_validate({**lab.model_dump(), "training": {"card": 80}})
