"""Each method's trainer does one hand-checkable step right."""

from types import SimpleNamespace

import pytest
import torch

from retain_core.arms import ArmSpec
from retain_core.lab import countdown
from retain_core.lab.targets import Countdown
from retain_core.lab.world import World
from retain_core.methods import CONTROLS, NAMED, Method
from retain_core.training import configs
from retain_core.training.encode import IGNORED, user_turn
from retain_core.training.rewards import Reward
from retain_core.training.train import train


def spec(plan, tmp_path, name="sft", updates=2, learning_rate=1e-3, **dials) -> ArmSpec:
    known = {**NAMED, **CONTROLS}[name]
    method = Method(label=name, **{k: v for k, v in known.items() if k != "learning_rates"} | dials)
    return ArmSpec(
        arm=f"t/{name}", study="t", method=name, role="method", config=method.config(), base=plan.base, world=plan.world,
        dataset_key=plan.dataset_key, target="countdown", learning_rate=learning_rate, seed=0, updates=updates,
        sequences_per_update=16, steps=(updates,), retention=("addition",), benchmarks=(), keep="last", threads=1,
    )  # fmt: skip


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_learning_rate_0_leaves_every_weight_alone(smoke_plan, tmp_path):
    record = train(spec(smoke_plan, tmp_path, learning_rate=0.0), smoke_plan.base_path, tmp_path)
    assert record.distances[2] == (0.0, 0.0)
    before, after = weights(smoke_plan.base_path), weights(tmp_path / "weights" / "2")
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_training_is_deterministic_and_the_seed_matters(smoke_plan, tmp_path):
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        arm = spec(smoke_plan, tmp_path).model_copy(update={"seed": seed})
        train(arm, smoke_plan.base_path, tmp_path / name)
        found.append(weights(tmp_path / name / "weights" / "2"))
    assert all(torch.equal(found[0][k], found[1][k]) for k in found[0])
    assert not all(torch.equal(found[0][k], found[2][k]) for k in found[0])


def test_sft_takes_one_adam_step_on_the_masked_loss(smoke_plan, tmp_path):
    """One update by hand: token-mean loss over the answers, clipped gradient, Adam without decay."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from retain_core.training.encode import encode_exchanges

    arm = spec(smoke_plan, tmp_path, updates=1)
    train(arm, smoke_plan.base_path, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(smoke_plan.base_path)
    tokenizer = AutoTokenizer.from_pretrained(smoke_plan.base_path)
    rows = encode_exchanges(tokenizer, Countdown(World(smoke_plan.world)).expert(arm.config, 0, 16))
    total, tokens = 0.0, 0
    for row in rows:
        logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1].log_softmax(-1)
        for position, label in enumerate(row["labels"][1:]):
            if label != IGNORED:
                total, tokens = total - logits[position, label], tokens + 1
    (total / tokens).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0).step()
    after = weights(tmp_path / "weights" / "1")
    moved = {k: v for k, v in model.state_dict().items() if k in after}
    gaps = torch.cat([(after[k] - moved[k]).abs().flatten() for k in after])
    assert float(gaps.quantile(0.99)) < 2e-5


def test_reward_reads_the_verifier_and_cuts_earn_nothing(smoke_plan):
    problem = next(Countdown(World(smoke_plan.world)).problems(0))

    right = countdown.solutions(*problem.key)[0]
    reward = Reward("true", 0, stop_token=3, problems={problem.prompt: problem})
    prompts = [user_turn(problem.prompt)] * 3
    completions = [[{"role": "assistant", "content": text}] for text in (right, right, "1 + 1")]
    assert reward(prompts, completions, [[5, 3], [5, 5], [5, 3]]) == [1.0, 0.0, 0.0]
    assert reward.tokens == 6
    assert Reward("constant", 0, 3, {})(prompts, completions, [[5]] * 3) == [1.0, 1.0, 1.0]
    coin = Reward("random", 0, 3, {})
    flips = [x for _ in range(200) for x in coin(prompts, completions, [[5]] * 3)]
    assert 0.4 < sum(flips) / len(flips) < 0.6


@pytest.mark.parametrize(("name", "rounds"), [("self_sft", 1), ("iterative_sft", 2)])
def test_self_sampling_refreshes_as_often_as_it_says(smoke_plan, tmp_path, monkeypatch, name, rounds):
    """The smoke base solves nothing, so every answer counts as right here; all else is real."""
    monkeypatch.setattr("retain_core.lab.targets.Countdown.accepts", lambda self, key, answer: True)
    dials = {"staleness": 2} if name == "iterative_sft" else {}
    record = train(spec(smoke_plan, tmp_path, name, updates=4, oversample=2, **dials), smoke_plan.base_path, tmp_path)
    refreshes = [point["step"] for point in record.curve if point["name"] == "pool"]
    assert refreshes == [0, 2][:rounds]
    assert record.sequences == 64
    assert 0 < record.unique_prompts <= 64
    assert record.style_distance > 0
    assert record.tokens_trained > 0
    assert record.tokens_generated > 0


def test_style_distance_is_the_bases_loss_on_the_text(smoke_plan, tmp_path):
    distance = {}
    for name in ("sft", "sft_in_style", "base_mixture"):
        arm = spec(smoke_plan, tmp_path, name, updates=1)
        distance[name] = train(arm, smoke_plan.base_path, tmp_path / name).style_distance
    assert distance["sft"] > distance["sft_in_style"] > distance["base_mixture"] > 0


def test_no_right_sample_is_said_clearly(smoke_plan, tmp_path, monkeypatch):
    from retain_core.errors import RetainError

    monkeypatch.setattr("retain_core.lab.targets.Countdown.accepts", lambda self, key, answer: False)
    with pytest.raises(RetainError, match="too little support"):
        train(spec(smoke_plan, tmp_path, "self_sft"), smoke_plan.base_path, tmp_path)


def test_recorder_measures_the_way(smoke_plan, tmp_path):
    record = train(spec(smoke_plan, tmp_path, updates=3), smoke_plan.base_path, tmp_path)
    distance, path = record.distances[3]
    before, after = weights(smoke_plan.base_path), weights(tmp_path / "weights" / "3")
    by_hand = sum(float(((after[k] - before[k]).double() ** 2).sum()) for k in after) ** 0.5
    assert distance == pytest.approx(by_hand, rel=1e-4)
    assert path >= distance - 1e-6


def test_every_loss_bearing_option_is_ours(tmp_path):
    common = {"out": tmp_path, "learning_rate": 1e-4, "seed": 0, "updates": 1, "batch": 8, "precise": True}
    dials = {"normaliser": "sequence", "clip": 0.1, "group_size": 4, "temperature": 1.0, "mask_truncated": False}
    grpo = configs.grpo_config(dials, 14, **common)
    expected = {
        "loss_type": "grpo", "scale_rewards": "none", "beta": 0.0, "num_iterations": 1, "steps_per_generation": 1,
        "epsilon": 0.1, "gradient_accumulation_steps": 1, "bf16": False, "gradient_checkpointing": False,
        "top_k": 0, "top_p": 1.0, "weight_decay": 0.0, "max_grad_norm": 1.0,
    }  # fmt: skip
    assert {k: getattr(grpo, k) for k in expected} == expected
    sft = configs.sft_config(**common)
    assert (sft.loss_type, sft.completion_only_loss, sft.packing, sft.bf16) == ("nll", True, False, False)
    assert SimpleNamespace(**vars(sft)).lr_scheduler_type == "constant"
