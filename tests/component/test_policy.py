"""On-policy methods: advantages, normaliser, clipping, the KL penalty, PPO and failing verifiers, each against hand work."""

import copy
import signal

import pytest
import torch
from transformers import AutoModelForCausalLM, TrainerCallback

from retain_core.errors import RetainError
from retain_core.lab.targets import Countdown
from retain_core.lab.world import World
from retain_core.methods import DIALS, NAMED, Method
from retain_core.training import rewards as rewards_module
from retain_core.training.encode import user_turn
from retain_core.training.kl import kl_penalty, log_ratio
from retain_core.training.policy.advantages import gae, group_advantages, rewards_at_the_end, whiten
from retain_core.training.rewards import Reward
from retain_core.training.train import prepare
from tests.component import golden

pytestmark = pytest.mark.usefixtures("one_thread")
GROUPS = ("reinforce", "rloo", "grpo", "dr_grpo")
REWARDED = pytest.mark.usefixtures("rewarded")


def by_content(answer: str) -> bool:
    return sum(map(ord, answer)) % 2 == 0


@pytest.fixture
def rewarded(monkeypatch):
    """The tiny model solves nothing: here every other answer counts as right, by its letters. All else is real."""
    monkeypatch.setattr("retain_core.lab.targets.Countdown.accepts", lambda self, key, answer: by_content(answer))


class Run:
    """A training run with what it saw: the samples of every update, the gradient, and the weights before it."""

    def __init__(self, base, out, algorithm, updates=1, learning_rate=1e-3, change=None, **dials):
        label = f"{algorithm}1"
        spec = golden.arm_spec(label, {"algorithm": algorithm, **dials}, updates, learning_rate)
        self.trainer, self.count = prepare(spec, base, out)
        self.trainer.args.max_grad_norm = 1e9
        if change:
            change(self.trainer)
        self.inputs, self.gradients, self.models = [], [], []
        loss, run = self.trainer._compute_loss, self

        def watched(model, inputs):
            run.inputs.append(inputs)
            run.models.append({k: v.clone() for k, v in model.state_dict().items()})
            return loss(model, inputs)

        class Watch(TrainerCallback):
            def on_pre_optimizer_step(self, args, state, control, model, **_):
                run.gradients.append(flat(p.grad for p in model.parameters()))

        self.trainer._compute_loss = watched
        self.trainer.add_callback(Watch())
        self.trainer.train()
        self.curve = self.trainer.state.log_history
        self.weights = flat(self.trainer.model.parameters())

    def points(self, name):
        return [entry[name] for entry in self.curve if name in entry]


@pytest.fixture
def run(base, tmp_path):
    def start(algorithm, **options):
        return Run(base, tmp_path, algorithm, **options)

    return start


def flat(tensors) -> torch.Tensor:
    return torch.cat([t.detach().reshape(-1) for t in tensors]).clone()


def answers(inputs):
    """Prompt ids and answer ids of each sample, without padding; counted or not."""
    rows = zip(inputs["prompt_ids"], inputs["prompt_mask"], inputs["completion_ids"], inputs["completion_mask"], strict=True)
    return [(p[pm.bool()].tolist(), c[cm.bool()].tolist()) for p, pm, c, cm in rows]


def log_probabilities(model, prompt, answer, temperature=1.0):
    """log p of every word at every position of one answer: tokens x vocabulary, without padding or batch."""
    logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return (logits / temperature).log_softmax(-1)


def of_tokens(logs, answer):
    return logs[torch.arange(len(answer)), torch.tensor(answer)]


def gradient_of(model, loss) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return flat(torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters())


def model_at(base, state=None):
    model = AutoModelForCausalLM.from_pretrained(base)
    if state:
        model.load_state_dict(state)
    return model


def assert_same_gradient(found, expected):
    assert expected.norm() > 1e-4
    assert float((found - expected).norm() / expected.norm()) < 1e-4


# ---------------------------------------------------------------------------------------------- advantages


def test_advantages_by_hand():
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    expected = {
        "none": [1, 0, 0, 1, 1, 0, 0, 0],
        "mean": [0.5, -0.5, -0.5, 0.5, 0.75, -0.25, -0.25, -0.25],
        "leave_one_out": [2 / 3, -2 / 3, -2 / 3, 2 / 3, 1, -1 / 3, -1 / 3, -1 / 3],
        "mean_std": [0.5 / (3**-0.5 + 1e-4)] + [-0.5 / (3**-0.5 + 1e-4)] * 2 + [0.5 / (3**-0.5 + 1e-4)]
        + [0.75 / 0.5001] + [-0.25 / 0.5001] * 3,
    }  # fmt: skip
    for kind, values in expected.items():
        assert group_advantages(rewards, kind, 4).tolist() == pytest.approx(values, abs=1e-6), kind


def test_leave_one_out_compares_with_the_others_alone():
    rewards = torch.rand(3, 5, dtype=torch.float64)
    found = group_advantages(rewards.view(-1), "leave_one_out", 5).view(3, 5)
    for row, values in zip(found, rewards, strict=True):
        others = [values[i] - torch.cat([values[:i], values[i + 1 :]]).mean() for i in range(5)]
        assert row.tolist() == pytest.approx([float(o) for o in others])


@pytest.mark.parametrize("kind", ["mean", "leave_one_out", "mean_std"])
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, 1 / 3])
def test_equal_rewards_have_advantages_of_exactly_zero(kind, reward):
    assert group_advantages(torch.full((21,), reward), kind, 7).tolist() == [0.0] * 21


def test_gae_by_hand():
    """gamma .9, lambda .5: delta = (0 + .9 x .4 - .2, 0 + .9 x .6 - .4, 1 - .6); the second answer has one token."""
    rewards = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    values = torch.tensor([[0.2, 0.4, 0.6], [0.3, 9.0, 9.0]])
    counted = torch.tensor([[1, 1, 1], [1, 0, 0]])
    last = 0.4
    second = 0.14 + 0.45 * last
    first = 0.16 + 0.45 * second
    found = gae(rewards, values, counted, 0.9, 0.5)
    assert found.flatten().tolist() == pytest.approx([first, second, last, 0.7, 0, 0])


def test_gae_between_its_two_ends():
    torch.manual_seed(0)
    rewards, values = torch.rand(4, 6), torch.rand(4, 6)
    counted = (torch.arange(6) < torch.tensor([6, 1, 3, 0])[:, None]).int()
    rewards = rewards * counted
    to_come = rewards.flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(gae(rewards, values, counted, 1.0, 1.0), (to_come - values) * counted)
    following = torch.cat([(values * counted)[:, 1:], torch.zeros(4, 1)], dim=1)
    torch.testing.assert_close(gae(rewards, values, counted, 0.7, 0.0), (rewards + 0.7 * following - values) * counted)


def test_the_reward_stands_at_the_last_token():
    counted = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 0]])
    assert rewards_at_the_end(torch.tensor([2.0, 3.0, 4.0]), counted).tolist() == [[0, 2, 0], [0, 0, 3], [0, 0, 0]]


def test_whitening_is_over_the_tokens_that_count():
    counted = torch.tensor([[1, 1, 0], [1, 1, 1]])
    found = whiten(torch.tensor([[1.0, 2.0, 99.0], [3.0, 4.0, 5.0]]), counted)
    kept = found[counted.bool()]
    assert float(kept.mean()) == pytest.approx(0, abs=1e-6)
    assert float(kept.var(correction=0)) == pytest.approx(1, abs=1e-5)
    assert found[0, 2] == 0
    assert whiten(torch.full((2, 3), 0.3), counted).abs().max() < 1e-3
    assert whiten(torch.ones(2, 3), torch.zeros(2, 3)).tolist() == [[0.0] * 3] * 2


# ---------------------------------------------------------------------------------------------- the KL penalty


def test_kl_estimators_against_loops():
    torch.manual_seed(0)
    policy, base = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    tokens, counted = torch.randint(5, (2, 3)), torch.tensor([[1, 1, 0], [1, 1, 1]])
    logs = {"p": policy.log_softmax(-1), "b": base.log_softmax(-1)}
    for estimator in ("k2", "k3", "exact"):
        answers_found = []
        for row in range(2):
            found = []
            for t in range(int(counted[row].sum())):
                p, b = (logs[k][row, t] for k in "pb")
                x = float(p[tokens[row, t]] - b[tokens[row, t]])
                exact = sum(float(p[v].exp() * (p[v] - b[v])) for v in range(5))
                found.append({"k2": x * x / 2, "k3": torch.e ** (-x) - 1 + x, "exact": exact}[estimator])
            answers_found.append(sum(found) / len(found))
        assert float(kl_penalty(policy, base, tokens, counted, estimator)) == pytest.approx(sum(answers_found) / 2, rel=1e-5)


def kl(p, q):
    return (p.exp() * (p - q)).sum()


def expectation(policy_logits, term):
    """The mean of a term over the policy's own samples of one token: a sum over the vocabulary, so without noise."""
    weights = policy_logits.softmax(-1).detach()
    return sum(weights[v] * term(torch.tensor([[v]])) for v in range(len(weights)))


def gradient(logits, value):
    return torch.autograd.grad(value, logits, retain_graph=True)[0]


def test_what_the_estimators_are_right_about():
    """k3 and exact are unbiased, k2 is not; k2 and exact have the gradient of KL(policy || base), k3 that of the reverse."""
    torch.manual_seed(1)
    logits, base = torch.randn(6, dtype=torch.float32, requires_grad=True), torch.randn(6)
    p, b = logits.log_softmax(-1), base.log_softmax(-1)
    ones = torch.ones(1, 1)
    mean = {
        e: expectation(logits, lambda y, e=e: kl_penalty(logits[None, None], base[None, None], y, ones, e))
        for e in ("k2", "k3", "exact")
    }
    true = float(kl(p, b).detach())
    assert [float(mean[e]) for e in ("k3", "exact")] == pytest.approx([true, true], rel=1e-5)
    assert abs(float(mean["k2"]) - true) > 0.05 * true
    forward, reverse = gradient(logits, kl(p, b)), gradient(logits, kl(b, p))
    assert not torch.allclose(forward, reverse, atol=0.02)
    torch.testing.assert_close(gradient(logits, mean["k2"]), forward, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradient(logits, mean["exact"]), forward, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradient(logits, mean["k3"]), reverse, atol=1e-5, rtol=1e-4)


def test_as_a_cost_only_the_log_ratio_has_the_gradient_of_the_kl():
    torch.manual_seed(2)
    base = torch.randn(6)
    logits = (base + 0.1 * torch.randn(6)).requires_grad_()
    wanted = gradient(logits, kl(logits.log_softmax(-1), base.log_softmax(-1)))

    def as_cost(cost):
        surrogate = expectation(logits, lambda y: cost(y).detach() * logits.log_softmax(-1)[y[0, 0]])
        return gradient(logits, surrogate.sum())

    ones = torch.ones(1, 1)
    ratio = as_cost(lambda y: log_ratio(logits[None, None], base[None, None], y)[0, 0])
    torch.testing.assert_close(ratio, wanted, atol=1e-6, rtol=1e-4)
    for estimator in ("k2", "k3"):
        found = as_cost(lambda y, e=estimator: kl_penalty(logits[None, None], base[None, None], y, ones, e))
        assert found.norm() < 0.1 * wanted.norm()


@pytest.mark.parametrize("estimator", ["k2", "k3", "exact"])
def test_at_the_base_no_estimator_pulls(estimator):
    torch.manual_seed(3)
    logits = torch.randn(4, 5, 50, requires_grad=True)
    penalty = kl_penalty(logits, logits.detach().clone(), torch.randint(50, (4, 5)), torch.ones(4, 5), estimator)
    penalty.backward()
    assert float(penalty) == 0
    assert float(logits.grad.abs().max()) == 0


# ---------------------------------------------------------------------------------------------- one update by hand


def by_hand(model, inputs, advantages, normaliser, temperature=1.0):
    """The loss of a strictly on-policy update from its definition, sample by sample."""
    total = 0.0
    for (prompt, answer), advantage in zip(answers(inputs), advantages, strict=True):
        if answer:
            sums = (advantage * of_tokens(log_probabilities(model, prompt, answer, temperature), answer)).sum()
            total = total - sums / (len(answer) if normaliser == "sequence" else Countdown.longest_answer)
    return total / len(inputs["completion_ids"])


def rewards_of(inputs, tokenizer):
    """The reward of each sample by its text; a cut answer earns nothing."""
    found = []
    for ids, mask in zip(inputs["completion_ids"], inputs["completion_mask"], strict=True):
        row = ids[mask.bool()].tolist()
        finished = row[-1:] == [tokenizer.eos_token_id]
        found.append(float(finished and by_content(tokenizer.decode(row, skip_special_tokens=True))))
    return found


def compared(inputs, rewards, kind):
    """The advantages of a shuffled batch from their definition."""
    prompts = [tuple(p) for p, _ in answers(inputs)]
    found = []
    for i, prompt in enumerate(prompts):
        group = torch.tensor([rewards[j] for j, other in enumerate(prompts) if other == prompt])
        others = torch.tensor([rewards[j] for j, other in enumerate(prompts) if other == prompt and j != i])
        assert len(group) == 8
        by_kind = {
            "none": rewards[i], "mean": rewards[i] - group.mean(), "leave_one_out": rewards[i] - others.mean(),
            "mean_std": (rewards[i] - group.mean()) / (group.std() + 1e-4),
        }  # fmt: skip
        found.append(float(by_kind[kind]))
    return found


@REWARDED
@pytest.mark.parametrize(
    ("algorithm", "dials", "kind", "normaliser"),
    [
        ("reinforce", {}, "none", "sequence"),
        ("reinforce", {"advantage": "mean"}, "mean", "sequence"),
        ("rloo", {}, "leave_one_out", "sequence"),
        ("grpo", {}, "mean_std", "sequence"),
        ("grpo", {"temperature": 0.7}, "mean_std", "sequence"),
        ("dr_grpo", {}, "mean", "constant"),
    ],
)
def test_the_gradient_of_an_update_by_hand(run, base, tokenizer, algorithm, dials, kind, normaliser):
    done = run(algorithm, **dials)
    (inputs,) = done.inputs
    rewards = rewards_of(inputs, tokenizer)
    assert len(set(rewards)) == 2
    advantages = compared(inputs, rewards, kind)
    assert inputs["advantages"].tolist() == pytest.approx(advantages, abs=1e-5)
    model = model_at(base)
    loss = by_hand(model, inputs, advantages, normaliser, dials.get("temperature", 1.0))
    assert_same_gradient(done.gradients[0], gradient_of(model, loss))
    assert done.points("reward")[0] == pytest.approx(sum(rewards) / len(rewards))


@REWARDED
@pytest.mark.parametrize("normaliser", ["sequence", "constant"])
def test_reinforce_is_sft_on_the_rewarded_samples(run, base, tokenizer, normaliser):
    """With the constant normaliser exactly the token-mean likelihood, times rewarded tokens / (samples x longest answer)."""
    done = run("reinforce", normaliser=normaliser)
    (inputs,) = done.inputs
    rewarded = [row for row, r in zip(answers(inputs), rewards_of(inputs, tokenizer), strict=True) if r]
    assert 0 < len(rewarded) < len(inputs["completion_ids"])
    model = model_at(base)
    sequences = [torch.tensor([p + a]) for p, a in rewarded]
    labels = [torch.tensor([[-100] * len(p) + a]) for p, a in rewarded]
    means = [model(ids, labels=wanted).loss for ids, wanted in zip(sequences, labels, strict=True)]
    tokens = [len(a) for _, a in rewarded]
    batch = len(inputs["completion_ids"])
    if normaliser == "constant":
        token_mean = sum(m * n for m, n in zip(means, tokens, strict=True)) / sum(tokens)
        loss = token_mean * sum(tokens) / (batch * Countdown.longest_answer)
    else:
        loss = sum(means) / len(means) * len(means) / batch
    assert_same_gradient(done.gradients[0], gradient_of(model, loss))


@REWARDED
def test_masked_cut_answers_carry_no_loss_but_stay_in_their_group(run, base, tokenizer):
    done = run("grpo", mask_truncated=True, temperature=1.5)
    (inputs,) = done.inputs
    cut = [not answer for _, answer in answers(inputs)]
    assert 0 < sum(cut) < len(cut)
    advantages = compared(inputs, rewards_of(inputs, tokenizer), "mean_std")
    assert inputs["advantages"].tolist() == pytest.approx(advantages, abs=1e-5)
    model = model_at(base)
    assert_same_gradient(done.gradients[0], gradient_of(model, by_hand(model, inputs, advantages, "sequence", 1.5)))
    record = done.count(done.trainer)
    assert record.tokens_trained == int(inputs["completion_mask"].sum()) < record.tokens_generated


@pytest.mark.parametrize("algorithm", ["rloo", "grpo", "dr_grpo"])
@pytest.mark.parametrize("kl_prompts", ["target", "retention"])
def test_equal_rewards_make_no_update(run, base, algorithm, kl_prompts):
    done = run(algorithm, updates=2, reward="constant", kl=0.5, kl_prompts=kl_prompts, learning_rate=1e-2)
    assert torch.equal(done.weights, flat(model_at(base).parameters()))
    assert done.points("kl") == [0.0, 0.0]


@pytest.mark.parametrize(
    ("algorithm", "dials"), [("reinforce", {}), ("reinforce", {"advantage": "mean", "reward": "constant"}), ("grpo", {})]
)
def test_without_a_right_answer_or_with_equal_ones_nothing_moves(run, base, monkeypatch, algorithm, dials):
    """Raw rewards of 0 everywhere, or a baseline that takes all of them away: no update, and no NaN in the curve."""
    monkeypatch.setattr("retain_core.lab.targets.Countdown.accepts", lambda self, key, answer: False)
    done = run(algorithm, updates=2, learning_rate=1e-2, **dials)
    assert torch.equal(done.weights, flat(model_at(base).parameters()))
    assert done.points("reward") == [1.0 if "reward" in dials else 0.0] * 2
    assert done.points("grad_norm") == [0.0, 0.0]
    assert all(abs(loss) < 1e-6 for loss in done.points("loss"))


# ---------------------------------------------------------------------------------------------- staleness and clipping


@REWARDED
def test_on_policy_the_ratio_is_exactly_1(run):
    """The narrowest clip changes no bit, and no earlier policy is kept."""
    narrow, without = run("grpo", updates=3, clip=1e-6), run("grpo", updates=3, clip=None)
    assert torch.equal(narrow.weights, without.weights)
    assert narrow.points("clip_share") == [0.0] * 3
    assert all("old_per_token_logps" not in inputs for inputs in narrow.inputs)


@REWARDED
def test_stale_samples_come_from_one_policy_and_are_clipped(run, base):
    narrow, without = (run("grpo", updates=4, staleness=2, clip=c, learning_rate=3e-3) for c in (0.02, None))
    assert torch.equal(narrow.models[1]["model.norm.weight"], without.models[1]["model.norm.weight"])
    assert not torch.equal(narrow.weights, without.weights)
    first, second, third, fourth = narrow.points("clip_share")
    assert first == third == 0
    assert second > 0.05
    assert fourth > 0.05
    assert without.points("clip_share") == [0.0] * 4
    for update, inputs in enumerate(narrow.inputs):
        sampler = model_at(base, narrow.models[update // 2 * 2])
        for (prompt, answer), old in zip(answers(inputs), inputs["old_per_token_logps"], strict=True):
            with torch.no_grad():
                expected = of_tokens(log_probabilities(sampler, prompt, answer), answer)
            torch.testing.assert_close(old[: len(answer)], expected, atol=1e-4, rtol=1e-4)


def clipped_loss(model, inputs, clip):
    """mean over samples of mean over tokens of -min(ratio A, clip(ratio) A), sample by sample; A of samples or tokens."""
    total = 0.0
    rows = zip(answers(inputs), inputs["advantages"], inputs["old_per_token_logps"], strict=True)
    for (prompt, answer), advantage, old in rows:
        ratio = (of_tokens(log_probabilities(model, prompt, answer), answer) - old[: len(answer)]).exp()
        weight = advantage[: len(answer)] if advantage.dim() else advantage
        total = total - torch.minimum(ratio * weight, ratio.clamp(1 - clip, 1 + clip) * weight).mean()
    return total / len(inputs["completion_ids"])


@REWARDED
@pytest.mark.parametrize(("algorithm", "dials"), [("grpo", {"staleness": 2}), ("ppo", {"epochs": 2})])
def test_the_clipped_gradient_by_hand(run, base, algorithm, dials):
    done = run(algorithm, updates=2, clip=0.05, learning_rate=3e-3, **dials)
    assert done.points("clip_share")[1] > 0.05
    model = model_at(base, done.models[1])
    assert_same_gradient(done.gradients[1], gradient_of(model, clipped_loss(model, done.inputs[1], 0.05)))


@REWARDED
def test_a_whole_arm_on_one_batch_of_samples(run):
    done = run("grpo", updates=3, staleness=1000)
    assert len(done.points("reward")) == 1
    assert len(done.inputs) == 3
    record = done.count(done.trainer)
    assert record.sequences == 48
    assert record.tokens_trained == record.tokens_generated > 0


# ---------------------------------------------------------------------------------------------- the penalty in training


def test_without_kl_there_is_no_reference_model(run):
    done = run("grpo")
    assert done.trainer.base is None
    assert done.trainer.ref_model is None
    assert done.points("kl") == []


def shaken(trainer):
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in trainer.model.parameters():
            weight.add_(0.02 * torch.randn_like(weight))


@pytest.mark.parametrize(
    ("estimator", "temperature", "kl_prompts"),
    [("k2", 1.0, "target"), ("k3", 0.7, "target"), ("exact", 1.0, "target"), ("exact", 1.0, "retention")],
)
def test_the_gradient_of_the_penalty_by_hand(run, base, estimator, temperature, kl_prompts):
    """Constant rewards leave the penalty alone; the policy is moved beforehand, for at the base there is none."""
    done = run(
        "grpo", reward="constant", kl=0.3, kl_estimator=estimator, temperature=temperature, kl_prompts=kl_prompts,
        change=shaken,
    )  # fmt: skip
    model, reference = model_at(base, done.models[0]), model_at(base)
    rows = answers(done.inputs[0])
    if kl_prompts == "retention":
        ids = [(row["input_ids"], row["labels"].count(-100)) for row in done.trainer._retention]
        rows = [(row[:asked], row[asked:]) for row, asked in ids]
        assert len(rows) == 16
    total = 0.0
    for prompt, answer in rows:
        p = log_probabilities(model, prompt, answer, temperature)
        with torch.no_grad():
            b = log_probabilities(reference, prompt, answer, temperature)
        x = of_tokens(p, answer) - of_tokens(b, answer)
        tokens = {"k2": x**2 / 2, "k3": (-x).exp() - 1 + x, "exact": (p.exp() * (p - b)).sum(-1)}[estimator]
        total = total + tokens.mean()
    assert done.points("kl")[0] == pytest.approx(float(total.detach()) / len(rows), rel=1e-3)
    assert_same_gradient(done.gradients[0], gradient_of(model, 0.3 * total / len(rows)))
    assert torch.equal(flat(done.trainer.base.parameters()), flat(reference.parameters()))


def test_retention_text_is_the_bases_own_and_never_held_out(run, tokenizer):
    plain = run("grpo", updates=3, reward="random")
    done = run("grpo", updates=3, reward="random", kl=0.1, kl_prompts="retention")
    assert torch.equal(plain.inputs[0]["completion_ids"], done.inputs[0]["completion_ids"])
    rows = done.trainer._retention
    assert len(rows) == 48
    prompts = {tokenizer.decode(row["input_ids"][: row["labels"].count(-100)]) for row in rows}
    assert len(prompts) > 24
    world = World(golden.arm_spec("grpo1", NAMED["grpo"]).world)
    held_out = {item.prompt for name in ("addition", "sorting", "facts", "places", "safety") for item in world.items(name)}
    assert not [p for p in prompts if any(f" {item} " in p for item in held_out)]
    assert all(p.startswith("<|user|>") and p.endswith("<|assistant|>") for p in prompts)


# ---------------------------------------------------------------------------------------------- PPO


PLAIN_PPO = {"epochs": 1, "minibatches": 1, "discount": 1.0, "gae_lambda": 1.0, "clip": None, "whiten": False}


def with_values(trainer):
    torch.manual_seed(6)
    with torch.no_grad():
        trainer.critic.weight.copy_(0.1 * torch.randn_like(trainer.critic.weight))
        trainer.critic.bias.fill_(0.3)
    trainer.first_critic = copy.deepcopy(trainer.critic)


def value_of(critic, prompt, answer):
    """The value before each token of one answer, without padding or batch."""
    hidden = critic.body(input_ids=torch.tensor([prompt + answer])).last_hidden_state[0, len(prompt) - 1 : -1]
    return (hidden @ critic.weight + critic.bias).detach()


@REWARDED
def test_plain_ppo_with_a_value_of_0_is_reinforce_bit_for_bit(run):
    ppo, reinforce = run("ppo", **PLAIN_PPO), run("reinforce")
    assert torch.equal(ppo.weights, reinforce.weights)
    assert ppo.gradients[0].norm() > 0


@REWARDED
def test_plain_ppo_is_reinforce_with_the_value_as_baseline(run, base, tokenizer):
    done = run("ppo", change=with_values, **PLAIN_PPO)
    (inputs,) = done.inputs
    model, total = model_at(base), 0.0
    for (prompt, answer), reward in zip(answers(inputs), rewards_of(inputs, tokenizer), strict=True):
        weight = reward - value_of(done.trainer.first_critic, prompt, answer)
        total = total - (weight * of_tokens(log_probabilities(model, prompt, answer), answer)).mean()
    assert_same_gradient(done.gradients[0], gradient_of(model, total / len(inputs["completion_ids"])))


@REWARDED
def test_advantages_and_returns_of_ppo_by_hand(run, base, tokenizer):
    """The reward stands at the end, and every token costs kl x log(policy / base)."""

    def change(trainer):
        shaken(trainer)
        with_values(trainer)

    done = run("ppo", change=change, kl=0.3, discount=0.9, gae_lambda=0.8, whiten=False, temperature=0.8)
    inputs = done.inputs[0]
    model, reference = model_at(base, done.models[0]), model_at(base)
    for i, ((prompt, answer), reward) in enumerate(zip(answers(inputs), rewards_of(inputs, tokenizer), strict=True)):
        with torch.no_grad():
            logs = [of_tokens(log_probabilities(m, prompt, answer, 0.8), answer) for m in (model, reference)]
        earned = -0.3 * (logs[0] - logs[1])
        earned[-1] += reward
        values = [*value_of(done.trainer.first_critic, prompt, answer).tolist(), 0.0]
        deltas = [float(r) + 0.9 * values[t + 1] - values[t] for t, r in enumerate(earned)]
        expected = [sum((0.9 * 0.8) ** (s - t) * deltas[s] for s in range(t, len(answer))) for t in range(len(answer))]
        assert inputs["advantages"][i, : len(answer)].tolist() == pytest.approx(expected, abs=1e-4)
        wanted = [a + v for a, v in zip(expected, values, strict=False)]
        assert inputs["returns"][i, : len(answer)].tolist() == pytest.approx(wanted, abs=1e-4)
        assert inputs["advantages"][i, len(answer) :].abs().sum() == 0


def test_the_value_is_learned_beside_a_policy_that_does_not_move(run, base):
    dials = {"epochs": 4, "minibatches": 2, "gae_lambda": 1.0, "value_rate": 3e-3}
    done = run("ppo", updates=12, reward="constant", learning_rate=0.0, **dials)
    assert torch.equal(done.weights, flat(model_at(base).parameters()))
    losses = done.points("value_loss")
    assert losses[0] == pytest.approx(1.0)
    assert losses[-1] < 0.1
    assert len(done.points("reward")) == 2


def test_ppo_on_equal_rewards_stays_finite(run):
    done = run("ppo", updates=4, reward="constant", kl=0.1, mask_truncated=True)
    assert bool(torch.isfinite(done.weights).all())
    assert all(abs(entry["loss"]) < 10 for entry in done.curve if "loss" in entry)


@REWARDED
def test_ppo_takes_the_retention_penalty_in_the_loss_and_not_in_the_reward(run, tokenizer):
    plain = {"gae_lambda": 1.0, "whiten": False}
    done = run("ppo", updates=2, kl=0.3, kl_prompts="retention", change=shaken, **plain)
    first, second = done.points("kl")
    assert first > 0
    assert second > 0
    counted = done.inputs[0]["completion_mask"]
    rewards = torch.tensor(rewards_of(done.inputs[0], tokenizer))
    torch.testing.assert_close(done.inputs[0]["advantages"], rewards[:, None] * counted)


@REWARDED
def test_whitened_over_a_batch_of_samples(run):
    done = run("ppo", updates=2, minibatches=2, epochs=1)
    both = torch.cat([inputs["advantages"][inputs["completion_mask"].bool()] for inputs in done.inputs])
    assert float(both.mean()) == pytest.approx(0, abs=1e-5)
    assert float(both.var(correction=0)) == pytest.approx(1, abs=1e-3)


# ---------------------------------------------------------------------------------------------- rewards


class Item:
    """A problem whose verifier is given."""

    def __init__(self, right):
        self.right = right


def judged(*verifiers):
    """What each answer earned, and how many failed; one answer to each verifier."""
    problems = {str(i): Item(v) for i, v in enumerate(verifiers)}
    reward = Reward("true", 0, stop_token=3, problems=problems)
    prompts = [user_turn(name) for name in problems]
    texts = [[{"role": "assistant", "content": "1 + 1"}]] * len(prompts)
    return reward(prompts, texts, [[5, 3]] * len(prompts)), reward.failures


def yes(_):
    return True


def raises(_):
    raise ZeroDivisionError("oh")


def hangs(_):
    while True:
        pass


def hangs_and_catches(_):
    while True:
        try:
            while True:
                pass
        except Exception:
            continue


@pytest.mark.parametrize(
    "broken", [raises, hangs, hangs_and_catches, lambda _: None, lambda _: float("nan"), lambda _: "no number"]
)
def test_a_failing_verifier_earns_nothing_and_is_counted(monkeypatch, broken):
    monkeypatch.setattr(rewards_module, "SECONDS_PER_ANSWER", 0.05)
    assert judged(yes, broken, lambda _: 0.5, yes) == ([1.0, 0.0, 0.5, 1.0], 1)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (raises, "raised ZeroDivisionError: oh"),
        (hangs, "took longer than 0.05 s"),
        (lambda _: None, "returned None"),
        (lambda _: float("nan"), "returned nan"),
    ],
)
def test_above_a_quarter_of_a_batch_the_arm_fails(monkeypatch, broken, said):
    monkeypatch.setattr(rewards_module, "SECONDS_PER_ANSWER", 0.05)
    with pytest.raises(RetainError, match=f"failed on more than 25% of 4 samples; the last time it {said}"):
        judged(yes, broken, broken, yes)


def test_alarms_of_others_are_put_back():
    handler = signal.getsignal(signal.SIGALRM)
    before = signal.setitimer(signal.ITIMER_REAL, 300)
    try:
        judged(yes, yes)
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 290
        assert signal.getsignal(signal.SIGALRM) is handler
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)


def test_failures_are_in_the_curve(run, monkeypatch):
    seen = []

    def accepts(self, key, answer):
        seen.append(answer)
        return None if len(seen) in (2, 3) else by_content(answer)

    monkeypatch.setattr("retain_core.lab.targets.Countdown.accepts", accepts)
    done = run("reinforce", updates=2)
    assert done.points("reward_failures") == [2.0, 2.0]
    assert bool(torch.isfinite(done.weights).all())


def test_a_broken_verifier_fails_the_arm(run, monkeypatch):
    monkeypatch.setattr("retain_core.lab.targets.Countdown.accepts", raises_as_method)
    with pytest.raises(RetainError, match="raised ZeroDivisionError"):
        run("grpo")


def raises_as_method(self, key, answer):
    raise ZeroDivisionError("oh")


# ---------------------------------------------------------------------------------------------- dials and golden runs


@pytest.mark.parametrize("algorithm", [*GROUPS, "ppo"])
def test_defaults_are_spelled_out_in_the_arm(algorithm):
    config = Method(label=f"{algorithm}1", algorithm=algorithm).config()
    assert set(config) == {"algorithm", *DIALS[algorithm]}
    assert [name for name, value in config.items() if value is None] == ["lora_rank"]
    assert (config["kl"], config["clip"], config["group_size"], config["reward"]) == (0.0, 0.2, 8, "true")


def test_dials_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="only kl_estimator: exact is the KL"):
        Method(label="a", algorithm="grpo", kl=0.1, kl_prompts="retention", kl_estimator="k3")
    assert Method(label="a", algorithm="grpo", kl=0.1, kl_prompts="retention").config()["kl_estimator"] == "exact"
    for dials in (
        {"algorithm": "ppo", "staleness": 2},
        {"algorithm": "ppo", "advantage": "mean"},
        {"algorithm": "grpo", "epochs": 2},
    ):
        with pytest.raises(ValueError, match="has no dial"):
            Method(label="a", **dials)


@pytest.mark.parametrize("label", golden.ON_POLICY)
def test_golden_trajectories(base, label):
    """Tolerances and how to refresh: tests/component/golden.py."""
    golden.check(label, base)


def test_every_algorithm_has_a_golden_trajectory_with_its_kl_and_gain():
    assert {dials["algorithm"] for dials in golden.METHODS.values()} == set(DIALS) - {"custom", "external"}
    for label in golden.METHODS:
        measured = [entry["update"] for entry in golden.stored(label)["updates"] if {"gain", "kl_forward"} <= set(entry)]
        assert measured == list(golden.MEASURED), label
