"""Fitting a training to a machine changes how it is computed, not what: micro-batches, recomputed activations, bf16."""

import pytest
import torch
from transformers import AutoModelForCausalLM, set_seed

from benchmarks import accelerator
from retain_core.errors import InputError
from retain_core.lab.targets import Countdown
from retain_core.training.memory import Shape, layer_bytes
from retain_core.training.policy.sampler import refresh, sampling_copy
from retain_core.training.record import Recorder
from retain_core.training.size import WHOLE, TrainingSize
from retain_core.training.train import prepare, train
from tests.component import golden

pytestmark = pytest.mark.usefixtures("one_thread", "some_answers_are_right")
METHODS = golden.METHODS


@pytest.fixture
def some_answers_are_right(monkeypatch):
    monkeypatch.setattr(Countdown, "accepts", lambda _, key, answer: golden.by_content(answer))


@pytest.fixture(scope="module")
def wholes():
    """Weights after a training of whole batches, by method."""
    return {}


def trained(label, base, out, size):
    """(weights after two updates by SGD, curve by name) of a method fitted like that."""
    dials = METHODS[label] | {"optimizer": "sgd"} if label != "ppo" else METHODS[label]
    spec = golden.arm_spec(label, dials, updates=2, size=size)
    record = train(spec, base, out)
    curve = {}
    for point in record.curve:
        curve.setdefault(point["name"], []).append(point["value"])
    model = AutoModelForCausalLM.from_pretrained(out / "weights" / "2")
    return {name: weight.detach() for name, weight in model.named_parameters()}, curve, record.tokens_trained


CASES = (
    "sft",
    "sft_kl",
    "sft_kl_retention",
    "sft_replay",
    "sft_useful_share",
    "dpo",
    "reinforce_kl_retention",
    "grpo",
    "grpo_stale",
)


@pytest.mark.parametrize("label", CASES)
def test_micro_batches_make_the_same_update(label, base, tmp_path):
    whole, curve, tokens = trained(label, base, tmp_path / "whole", WHOLE)
    parts, curve_of_parts, tokens_of_parts = trained(label, base, tmp_path / "parts", TrainingSize(micro_batch=4))
    start = dict(AutoModelForCausalLM.from_pretrained(base).named_parameters())
    moved = max(float((whole[k] - start[k]).abs().max()) for k in whole)
    apart = max(float((whole[k] - parts[k]).abs().max()) for k in whole)
    assert moved > 0
    assert apart < 2e-3 * moved
    assert tokens == tokens_of_parts
    for name in {"loss", "grad_norm", "kl"} & curve.keys():
        assert curve_of_parts[name] == pytest.approx(curve[name], rel=2e-3, abs=1e-6), name


def test_recomputed_activations_make_the_same_update(base, tmp_path):
    whole, _, _ = trained("sft", base, tmp_path / "whole", WHOLE)
    again, _, _ = trained("sft", base, tmp_path / "again", TrainingSize(activation_checkpointing=True))
    assert all(torch.allclose(whole[k], again[k], rtol=1e-5, atol=1e-8) for k in whole)


def test_the_critic_of_ppo_takes_one_step_an_update_whatever_the_micro_batch(base, tmp_path):
    critics = []
    for size in (WHOLE, TrainingSize(micro_batch=4)):
        trainer, _ = prepare(golden.arm_spec("ppo", METHODS["ppo"], updates=2, size=size), base, tmp_path)
        trainer.train()
        critics.append((trainer._critic_optimizer.state_dict()["state"][0]["step"], trainer.critic.weight.detach().clone()))
    (steps, whole), (steps_of_parts, parts) = critics
    assert steps == steps_of_parts == 2
    assert float(whole.abs().max()) > 0
    assert float((whole - parts).abs().max()) < 0.05 * float(whole.abs().max())


def test_a_micro_batch_that_does_not_divide_the_batch_is_refused_where_parts_must_be_equal(base, tmp_path):
    with pytest.raises(InputError, match="micro_batch 5 does not divide a batch of 16"):
        prepare(golden.arm_spec("grpo", METHODS["grpo"], updates=1, size=TrainingSize(micro_batch=5)), base, tmp_path)


def test_only_a_size_that_differs_from_the_default_is_part_of_a_key():
    plain, sized = (golden.arm_spec("sft", METHODS["sft"], size=size) for size in (WHOLE, TrainingSize(micro_batch=4)))
    assert "size" not in plain.inputs()
    assert sized.inputs()["size"] == {"micro_batch": 4}
    assert plain.key != sized.key


def test_a_policy_in_bf16_samples_from_a_copy_of_itself(base, tmp_path):
    size = TrainingSize(dtype="bf16")
    trainer, _ = prepare(golden.arm_spec("grpo", METHODS["grpo"], updates=1, size=size), base, tmp_path)
    refresh(trainer._sampler, trainer.model)
    for name, weight in trainer.model.named_parameters():
        copied = trainer._sampler.get_parameter(name)
        assert copied.dtype == torch.bfloat16
        assert torch.equal(copied, weight.to(torch.bfloat16))
    before = torch.get_rng_state()
    sampling_copy(trainer.model)
    assert torch.equal(before, torch.get_rng_state())
    trainer.train()
    assert trainer.model_wrapped is not trainer._sampler
    prepared, _ = prepare(golden.arm_spec("grpo", METHODS["grpo"], updates=1), base, tmp_path)
    assert prepared._sampler is None


def test_the_way_of_a_large_model_is_measured_from_a_copy_set_aside(base, monkeypatch):
    model = AutoModelForCausalLM.from_pretrained(base)
    small = Recorder(model, (), lambda *_: None)
    monkeypatch.setattr(Recorder, "MEASURABLE", 0)
    large = Recorder(model, (), lambda *_: None)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.5
    assert large._distance(model) == pytest.approx(small._distance(model), rel=1e-6)
    assert large._distance(model) > 0


def test_a_layer_keeps_for_its_backward_pass_what_the_estimate_says(tmp_path):
    """Counted: every tensor that autograd saves in one layer under autocast, without the weights."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    set_seed(0)
    shape = {**accelerator.TINY["shape"], "hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4}
    kept = {}
    for layers in (1, 2):
        model = Qwen2ForCausalLM(Qwen2Config(**{**shape, "num_hidden_layers": layers}))
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        half = {p.numel() for p in model.parameters()}
        saved = {}

        def pack(tensor, saved=saved, weights=weights, half=half):
            storage = tensor.untyped_storage()
            cast = tensor.dtype == torch.bfloat16 and tensor.numel() in half
            if storage.data_ptr() not in weights and not cast:
                saved[storage.data_ptr()] = tensor, storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), torch.autocast("cpu", torch.bfloat16):
            model.model(input_ids=torch.randint(0, 512, (2, 96)))
        kept[layers] = sum(size for _, size in saved.values())
    measured = (kept[2] - kept[1]) / (2 * 96)
    assert layer_bytes(Shape.of(model.config), compiled=False) == pytest.approx(measured, rel=0.1)
