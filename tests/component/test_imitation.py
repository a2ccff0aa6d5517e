"""The SFT family and offline preference: what a batch holds, what the loss is, and where the text comes from."""

from collections import Counter
from itertools import islice

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, TrainerCallback, set_seed
from trl import SFTTrainer

from retain_core.arm import _train_and_evaluate
from retain_core.arms import ArmSpec, Checkpoint
from retain_core.errors import RetainError
from retain_core.lab import countdown
from retain_core.lab.spec import lab_spec
from retain_core.lab.targets import Countdown
from retain_core.lab.world import World
from retain_core.methods import NAMED, Method
from retain_core.store import Store
from retain_core.training import traces as traces_module
from retain_core.training.encode import IGNORED, encode_exchanges
from retain_core.training.frozen import FrozenBase
from retain_core.training.imitation import expert
from retain_core.training.imitation.own import SMALL_POOL
from retain_core.training.kl import kl_penalty
from retain_core.training.preference import GROUP, sampled_pairs, simpo_loss
from retain_core.training.traces import make_traces, read_traces
from retain_core.training.train import prepare, train
from tests.component import golden
from tests.component.golden import by_content
from tests.conftest import tree

pytestmark = pytest.mark.usefixtures("one_thread")
BATCH = golden.SEQUENCES
WORLD = lab_spec("smoke")


@pytest.fixture(scope="module")
def model(base):
    return AutoModelForCausalLM.from_pretrained(base).eval()


@pytest.fixture(scope="module")
def target():
    return Countdown(World(WORLD))


@pytest.fixture
def rewarded(monkeypatch):
    """The tiny model solves nothing: here one answer in four counts as right, by its letters. All else is real."""
    monkeypatch.setattr("retain_core.lab.targets.Countdown.accepts", lambda self, key, answer: by_content(answer))


def arm(label="sft", updates=1, learning_rate=1e-3, **dials) -> ArmSpec:
    return golden.arm_spec(label, NAMED[label] | dials, updates, learning_rate)


class Batches(TrainerCallback):
    """A training run that keeps every batch and how many tokens its loss is divided by."""

    def __init__(self, spec, base, out, traces=None):
        self.trainer, self.count = prepare(spec, base, out, traces)
        self.seen, self.divisors, self.gradients = [], [], []
        compute = self.trainer.compute_loss

        def watched(model, inputs, return_outputs=False, num_items_in_batch=None):
            self.seen.append({k: dict(v) if k == "penalised" else v.clone() for k, v in inputs.items()})
            self.divisors.append(num_items_in_batch)
            return compute(model, inputs, return_outputs, num_items_in_batch)

        self.trainer.compute_loss = watched
        self.trainer.add_callback(self)
        self.trainer.train()
        self.record = self.count(self.trainer)

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients.append({k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None})

    def values(self, name):
        return [entry[name] for entry in self.trainer.state.log_history if name in entry]


def prompts(tokenizer, batch) -> list[str]:
    """The prompt of each row."""
    texts = [tokenizer.decode(ids) for ids in batch["input_ids"]]
    return [text.split("<|user|>")[1].split("<|assistant|>")[0].strip() for text in texts]


def of_target(tokenizer, batch) -> list[bool]:
    return [prompt.startswith("make ") for prompt in prompts(tokenizer, batch)]


def token_logs(model, batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Log probability of each next token and whether it carries loss, row by row without padding effects."""
    rows, kept = [], []
    for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
        length = int(mask.sum())
        logs = model(ids[None, :length]).logits[0, :-1].log_softmax(-1)
        rows.append(logs.gather(-1, ids[1:length, None])[:, 0])
        kept.append(labels[1:length] != IGNORED)
    return torch.cat(rows), torch.cat(kept)


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# ------------------------------------------------------------------ golden trajectories


@pytest.mark.parametrize("label", golden.OFFLINE)
def test_golden_trajectories(base, label):
    """Tolerances and how to refresh: tests/component/golden.py."""
    golden.check(label, base)


# ------------------------------------------------------------------ the loss


def test_without_extras_it_is_trls_own_trainer(base, tokenizer, tmp_path):
    spec = arm(updates=3)
    train(spec, base, tmp_path / "ours")
    ours, _ = prepare(spec, base, tmp_path / "again")
    plain = SFTTrainer(model=str(base), args=ours.args, train_dataset=ours.train_dataset, processing_class=tokenizer)
    plain.train()
    plain.model.save_pretrained(tmp_path / "plain")
    assert same(weights(tmp_path / "ours" / "weights" / "3"), weights(tmp_path / "plain"))


def test_dft_gradient_by_hand(base, model, tmp_path):
    """Each token's gradient is that of -log p, times p."""
    run = Batches(arm("dft"), base, tmp_path)
    logs, kept = token_logs(model, run.seen[0])
    model.zero_grad()
    (-(logs.detach().exp() * logs)[kept].sum() / kept.sum()).backward()
    by_hand = dict(model.named_parameters())
    norm = torch.stack([p.grad.norm() for p in by_hand.values()]).norm()
    for name, gradient in run.gradients[0].items():
        assert torch.allclose(gradient, by_hand[name].grad / max(1.0, float(norm)), atol=2e-6), name
    model.zero_grad()


def test_sgd_takes_the_plain_step(base, tmp_path):
    spec = arm(optimizer="sgd", learning_rate=0.1)
    run = Batches(spec, base, tmp_path)
    before = AutoModelForCausalLM.from_pretrained(base).state_dict()
    for name, weight in run.trainer.model.named_parameters():
        assert torch.allclose(weight, before[name] - 0.1 * run.gradients[0][name], atol=1e-7)


# ------------------------------------------------------------------ KL to the base


def test_kl_0_needs_no_reference_model(base, tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("a reference was loaded")

    monkeypatch.setattr("retain_core.training.frozen.frozen_base", refuse)
    for label in ("sft", "dft"):
        run = Batches(arm(label), base, tmp_path)
        assert run.trainer.extras.base is None
        assert run.values("kl") == []
    with pytest.raises(AssertionError, match="a reference was loaded"):
        prepare(arm(kl=0.1), base, tmp_path)


@pytest.mark.parametrize("estimator", ["k2", "k3", "exact"])
def test_the_kl_penalty_counts_answers_and_no_prompt(base, model, tmp_path, estimator):
    """By hand, row by row, on weights that moved: the mean over the tokens of an answer, then over answers."""
    run = Batches(arm(updates=2, kl=0.7, kl_estimator=estimator, learning_rate=1e-2), base, tmp_path)
    trainer, batch = run.trainer, run.seen[1]
    rows = []
    for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
        length = int(mask.sum())
        begin = int((labels != IGNORED).nonzero()[0]) - 1
        both = [m(ids[None, :length]).logits[:, begin:-1].detach() for m in (trainer.model, model)]
        answer = ids[None, begin + 1 : length]
        rows.append(kl_penalty(*both, answer, torch.ones_like(answer), estimator))
    by_hand = float(torch.stack(rows).mean())
    assert by_hand > 0
    inputs = {k: dict(v) if k == "penalised" else v for k, v in batch.items()}
    with_kl = trainer.compute_loss(trainer.model, inputs, num_items_in_batch=run.divisors[1])
    without = SFTTrainer.compute_loss(
        trainer, trainer.model, {k: v for k, v in batch.items() if k != "penalised"}, num_items_in_batch=run.divisors[1]
    )
    assert float(with_kl - without) == pytest.approx(0.7 * by_hand, rel=1e-4)
    assert run.values("kl")[0] == pytest.approx(0, abs=1e-6)
    assert run.values("kl")[1] > 1e-4


def test_kl_on_retention_prompts_is_along_the_bases_answers_to_them(base, tokenizer, tmp_path):
    run = Batches(arm(updates=2, kl=0.5, kl_prompts="retention", learning_rate=1e-2), base, tmp_path)
    for batch in run.seen:
        assert all(of_target(tokenizer, batch))
        assert not any(of_target(tokenizer, batch["penalised"]))
        assert len(batch["penalised"]["input_ids"]) == BATCH
    assert prompts(tokenizer, run.seen[0]["penalised"]) != prompts(tokenizer, run.seen[1]["penalised"])
    assert run.values("kl")[1] > run.values("kl")[0]
    assert run.record.tokens_generated > 0


def test_kl_on_the_targets_text_leaves_the_replay_out(base, tokenizer, tmp_path):
    run = Batches(arm(updates=2, kl=0.5, replay=0.25), base, tmp_path)
    for batch in run.seen:
        assert prompts(tokenizer, batch["penalised"]) == prompts(tokenizer, batch)[:12]


def test_kl_holds_the_model_near_the_base(base, tmp_path):
    moved = []
    for kl in (0.0, 20.0):
        record = train(arm(updates=8, kl=kl), base, tmp_path / str(kl))
        moved.append(next(p["value"] for p in reversed(record.curve) if p["name"] == "loss"))
    assert moved[1] > moved[0]


# ------------------------------------------------------------------ replay and masked sequences


@pytest.mark.parametrize("source", ["mixture", "own"])
def test_replay_is_an_exact_share_of_every_batch(base, tokenizer, target, tmp_path, source):
    run = Batches(arm(updates=3, replay=0.25, replay_source=source), base, tmp_path)
    for batch in run.seen:
        assert of_target(tokenizer, batch) == [True] * 12 + [False] * 4
    replayed = [ids for batch in run.seen for ids in batch["input_ids"][12:]]
    expected = list(islice(target.retention(0), 12))
    assert [p for batch in run.seen for p in prompts(tokenizer, batch)[12:]] == [prompt for prompt, _ in expected]
    answers = [tokenizer.decode(ids).split("<|assistant|>")[1].split("<|end|>")[0].strip() for ids in replayed]
    assert (answers == [answer for _, answer in expected]) == (source == "mixture")
    assert run.record.sequences == 48
    assert (run.record.tokens_generated > 0) == (source == "own")


def test_replay_that_leaves_no_target_is_refused(base, tmp_path):
    with pytest.raises(RetainError, match="leaves none for the target"):
        prepare(arm(replay=0.99), base, tmp_path)


def test_useful_share_masks_sequences_and_divides_by_all_tokens(base, model, tmp_path):
    full, part = (Batches(arm(updates=2, useful_share=share), base, tmp_path) for share in (1.0, 0.25))
    for whole, masked in zip(full.seen, part.seen, strict=True):
        assert torch.equal(whole["input_ids"], masked["input_ids"])
        carries = (masked["labels"] != IGNORED).any(dim=1)
        assert int(carries.sum()) == 4
        assert torch.equal(masked["labels"][carries], whole["labels"][carries])
    assert [int(d) for d in part.divisors] == [int((b["labels"] != IGNORED).sum()) for b in full.seen]
    logs, kept = token_logs(model, part.seen[0])
    assert part.values("loss")[0] == pytest.approx(float(-logs[kept].sum() / part.divisors[0]), abs=1e-4)
    assert part.record.tokens_trained == sum(int((b["labels"] != IGNORED).sum()) for b in part.seen)
    drawn = [(b["labels"] != IGNORED).any(dim=1).tolist() for b in part.seen]
    assert drawn[0] != drawn[1]


# ------------------------------------------------------------------ LoRA


def test_lora_begins_as_the_base_and_is_saved_as_plain_weights(base, model, tokenizer, target, tmp_path):
    spec = arm(updates=3, lora_rank=2, learning_rate=1e-2)
    rows = encode_exchanges(tokenizer, target.expert(spec.config, 0, 4))
    ids = [torch.tensor([row["input_ids"]]) for row in rows]
    trainer, _ = prepare(spec, base, tmp_path / "begin")
    assert all(torch.equal(trainer.model(i).logits, model(i).logits) for i in ids)
    assert {name.split(".")[-3] for name, p in trainer.model.named_parameters() if p.requires_grad} <= {"lora_A", "lora_B"}

    out = tmp_path / "out"
    run = Batches(spec, base, out)
    record = train(spec, base, out)
    assert {p.name for p in (out / "weights" / "3").iterdir()} >= {"model.safetensors", "config.json", "tokenizer.json"}
    assert not list((out / "weights" / "3").glob("adapter*"))
    loaded = AutoModelForCausalLM.from_pretrained(out / "weights" / "3").eval()
    assert all(torch.allclose(loaded(i).logits, run.trainer.model(i).logits, atol=1e-4) for i in ids)
    assert not all(torch.allclose(loaded(i).logits, model(i).logits, atol=1e-2) for i in ids)
    before, after = weights(base), weights(out / "weights" / "3")
    assert before.keys() == after.keys()
    by_hand = sum(float(((after[k] - before[k]).double() ** 2).sum()) for k in after) ** 0.5
    assert record.distances[3][0] == pytest.approx(by_hand, rel=1e-3)
    changed = {k for k in after if not torch.equal(after[k], before[k])}
    assert changed == {k for k in after if "_proj" in k}


@pytest.mark.usefixtures("rewarded")
@pytest.mark.parametrize("label", ["self_sft", "simpo", "dpo", "grpo"])
def test_lora_at_rate_0_leaves_every_method_at_the_base(base, tmp_path, label):
    train(arm(label, lora_rank=4, learning_rate=0.0), base, tmp_path)
    assert same(weights(base), weights(tmp_path / "weights" / "1"))


# ------------------------------------------------------------------ what text


def test_frozen_prompts_are_one_a_problem():
    count = len(World(WORLD).train_problems)
    for frozen, most in (("frozen", 1), ("varied", 2)):
        target = Countdown(World(WORLD), frozen)
        seen: dict[tuple, set[str]] = {}
        for problem in islice(target.problems(0), 4 * count):
            seen.setdefault(problem.key, set()).add(problem.prompt)
        assert max(map(len, seen.values())) == most
        assert len(seen) == count
    frozen = Countdown(World(WORLD), "frozen")
    for problem in islice(frozen.problems(1), 50):
        numbers, value = problem.key
        assert problem.prompt == countdown.prompt(tuple(sorted(numbers)), value)
    asked = {prompt for prompt, _ in frozen.expert(arm().config, 0, count)}
    assert asked == {problem.prompt for problem in islice(frozen.problems(0), count)}


@pytest.mark.usefixtures("rewarded")
@pytest.mark.parametrize("label", ["sft", "self_sft", "grpo", "dpo"])
def test_every_method_can_have_frozen_prompts(base, tokenizer, tmp_path, label):
    trainer, _ = prepare(arm(label, updates=2, prompts="frozen"), base, tmp_path)
    if label == "self_sft":
        asked = [next(trainer._problems).prompt for _ in range(40)]
    elif label == "sft":
        asked = prompts(tokenizer, {"input_ids": trainer.train_dataset["input_ids"]})
    else:
        asked = [turn[-1]["content"] for turn in trainer.train_dataset["prompt"]]
    listed = [[int(n.replace(" ", "")) for n in prompt.split(" from ")[1].split(" , ")] for prompt in asked]
    assert len(listed) >= 4
    assert all(numbers == sorted(numbers) for numbers in listed)


@pytest.mark.usefixtures("rewarded")
def test_only_solvable_keeps_the_problems_that_the_base_solves(base, tokenizer, target):
    """Solved is told by sampling again with the same stream, problem by problem."""
    set_seed(0)
    only = expert.solvable(FrozenBase(base, tokenizer, Countdown.longest_answer), target, seed=0, most=30)
    problems = list(islice(target.problems(0), 30))
    set_seed(0)
    asked = [p for p in problems for _ in range(expert.SOLVING_SAMPLES)]
    answers = FrozenBase(base, tokenizer, Countdown.longest_answer).sample([p.prompt for p in asked], 1.0)
    right = Counter()
    for problem, (text, finished) in zip(asked, answers, strict=True):
        right[problem.key] += finished and by_content(text)
    assert set(only) == {key for key, count in right.items() if count}
    assert 0 < len(only) < 30
    wanted = {(tuple(sorted(numbers)), value) for numbers, value in only}
    for prompt, answer in target.expert(arm().config, 0, 100, only):
        used, _, claimed = countdown.parse(answer)
        assert (tuple(sorted(used)), claimed) in wanted, prompt


def test_a_base_that_solves_nothing_has_no_solvable_problem(base, tmp_path, monkeypatch):
    monkeypatch.setattr("retain_core.lab.targets.Countdown.accepts", lambda self, key, answer: False)
    with pytest.raises(RetainError, match="too little support"):
        prepare(arm(only_solvable=True), base, tmp_path)


def test_lowest_kl_is_the_bases_likeliest_right_answer(base, model, tokenizer, target):
    problems = list(islice(target.problems(3), 12))
    chosen = expert.likeliest(FrozenBase(base, tokenizer, Countdown.longest_answer), target, problems)
    several = 0
    for problem, (prompt, answer) in zip(problems, chosen, strict=True):
        assert prompt == problem.prompt
        scores = {}
        for right in countdown.valid_answers(*problem.key):
            row = encode_exchanges(tokenizer, [(prompt, right)])[0]
            logs = model(torch.tensor([row["input_ids"]])).logits[0, :-1].double().log_softmax(-1)
            scores[right] = sum(float(logs[i, t]) for i, t in enumerate(row["labels"][1:]) if t != IGNORED)
        assert answer == max(scores, key=scores.get)
        found = FrozenBase(base, tokenizer, Countdown.longest_answer).log_likelihoods([(prompt, right) for right in scores])
        assert found == pytest.approx(list(scores.values()), abs=1e-4)
        several += len(scores) > 2
    assert several >= 3


@pytest.mark.usefixtures("rewarded")
def test_pools_are_fresh_or_small(base, tmp_path):
    """A fresh pool repeats no sampled answer; of a small one each answer is trained on `SMALL_POOL` times."""
    for pool, times in (("fresh", 1), ("small", SMALL_POOL)):
        trainer, _ = prepare(arm("self_sft", updates=8, pool=pool), base, tmp_path)
        drawn: Counter[int] = Counter()
        draw = trainer._draw

        def watched(draw=draw, drawn=drawn):
            row = draw()
            drawn[id(row)] += 1
            return row

        trainer._draw = watched
        trainer.train()
        assert set(drawn.values()) == {times}
        assert sum(drawn.values()) == 8 * BATCH


@pytest.mark.usefixtures("rewarded")
def test_staleness_is_the_updates_between_refreshes(base, tmp_path):
    record = train(arm("iterative_sft", updates=5, staleness=2), base, tmp_path)
    assert [p["step"] for p in record.curve if p["name"] == "pool"] == [0, 2, 4]
    assert arm("iterative_sft").config["staleness"] == 20


# ------------------------------------------------------------------ traces of RL


def traced(base, updates=3, **dials) -> ArmSpec:
    return golden.arm_spec("t", {"algorithm": "sft", "expert": "traces", "traces_of": "grpo", **dials}, updates)


@pytest.mark.usefixtures("rewarded")
def test_traces_are_the_rewarded_samples_and_made_once(base, tmp_path, monkeypatch):
    made = [make_traces(traced(base), base, Store(tmp_path / name)) for name in "ab"]
    text = [artifact.file("traces.jsonl").read_bytes() for artifact in made]
    assert text[0] == text[1]
    assert made[0].key == made[1].key
    answers = read_traces(made[0].path)
    assert len(answers) == made[0].meta["samples"] > 0
    assert all(by_content(answer) for _, answer in answers)
    assert len(answers) < made[0].meta["tokens_generated"]

    def refuse(*_):
        raise AssertionError("RL ran again")

    monkeypatch.setattr(traces_module, "record", refuse)
    again = make_traces(traced(base, traces_order="shuffled", loss="dft"), base, Store(tmp_path / "a"))
    assert again.key == made[0].key
    for other in ({"traces_of": "reinforce"}, {"lora_rank": 2}, {"prompts": "frozen"}):
        with pytest.raises(AssertionError, match="RL ran again"):
            make_traces(traced(base, **other), base, Store(tmp_path / "a"))


@pytest.mark.usefixtures("rewarded")
def test_traces_are_learned_in_the_order_in_which_they_were_produced(base, tokenizer, tmp_path):
    artifact = make_traces(traced(base), base, Store(tmp_path / "s"))
    text = expert.stretched(read_traces(artifact.path), 3 * BATCH)
    rows = [row["input_ids"] for row in encode_exchanges(tokenizer, text)]
    orders = {}
    for order in ("produced", "shuffled"):
        run = Batches(traced(base, traces_order=order), base, tmp_path, artifact)
        orders[order] = [
            ids[: int(mask.sum())].tolist()
            for batch in run.seen
            for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        ]
        assert run.record.tokens_generated == artifact.meta["tokens_generated"]
    assert orders["produced"] == rows
    assert orders["shuffled"] != rows
    assert sorted(orders["shuffled"]) == sorted(rows)


def test_stretching_keeps_the_order_and_repeats_evenly():
    text = [(str(i), "") for i in range(7)]
    for count in (3, 7, 20, 70):
        found = [int(prompt) for prompt, _ in expert.stretched(text, count)]
        assert found == sorted(found)
        assert len(found) == count
        if count >= 7:
            assert set(Counter(found).values()) <= {count // 7, -(-count // 7)}


@pytest.mark.usefixtures("rewarded")
def test_an_arm_makes_its_own_traces_and_the_next_uses_them(base, tmp_path, monkeypatch):
    store = Store(tmp_path / "home")

    def run(spec):
        _train_and_evaluate(spec, store, evaluator=None, missing={Checkpoint(3): []}, base=base, work=tmp_path / spec.key)

    run(traced(base))
    assert len(store.keys("traces")) == len(store.keys("arm")) == 1
    before = tree(store.root / "traces")
    monkeypatch.setattr(traces_module, "record", None)
    run(traced(base, traces_order="shuffled"))
    assert len(store.keys("arm")) == 2
    assert tree(store.root / "traces") == before


# ------------------------------------------------------------------ preference


@pytest.mark.usefixtures("rewarded")
def test_pairs_are_a_right_and_a_wrong_answer_of_the_base_to_one_problem(base, tokenizer, target):
    set_seed(0)
    pairs = sampled_pairs(FrozenBase(base, tokenizer, Countdown.longest_answer), target.problems(0), 20, 1.0, 0)
    set_seed(0)
    problems = [p for p in islice(target.problems(0), 10) for _ in range(GROUP)]
    answers = FrozenBase(base, tokenizer, Countdown.longest_answer).sample([p.prompt for p in problems], 1.0)
    by_hand, cut = [], 0
    for i in range(10):
        group = answers[i * GROUP : (i + 1) * GROUP]
        right = [text for text, finished in group if finished and by_content(text)]
        wrong = [text for text, finished in group if finished and not by_content(text)]
        cut += sum(not finished for _, finished in group)
        by_hand += [(problems[i * GROUP].prompt, right[k], wrong[k]) for k in range(min(len(right), len(wrong)))]
    assert cut > 0
    assert len(by_hand) > 5
    assert pairs[: len(by_hand)] == by_hand[:20]
    assert len(pairs) == 20


def test_no_pair_is_said_clearly(base, tmp_path, monkeypatch):
    monkeypatch.setattr("retain_core.lab.targets.Countdown.accepts", lambda self, key, answer: False)
    with pytest.raises(RetainError, match="no preference to learn"):
        prepare(arm("dpo"), base, tmp_path)


def test_few_pairs_start_over(base, tokenizer, target, monkeypatch):
    first = next(target.problems(0)).key
    monkeypatch.setattr(
        "retain_core.lab.targets.Countdown.accepts", lambda self, key, answer: key == first and by_content(answer)
    )
    set_seed(0)
    pairs = sampled_pairs(FrozenBase(base, tokenizer, Countdown.longest_answer), target.problems(0), 40, 1.0, 0)
    assert len(pairs) == 40
    assert len(set(pairs)) <= GROUP // 2


def sequence_logs(model, batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed log probability of each answer, and its tokens; the first half of the rows are right answers."""
    logs, tokens = [], []
    for ids, answer, mask in zip(batch["input_ids"], batch["completion_mask"], batch["attention_mask"], strict=True):
        length = int(mask.sum())
        found = model(ids[None, :length]).logits[0, :-1].log_softmax(-1).gather(-1, ids[1:length, None])[:, 0]
        logs.append(found[answer[1:length] == 1].sum())
        tokens.append(answer.sum())
    return torch.stack(logs), torch.stack(tokens)


@pytest.mark.usefixtures("rewarded")
@pytest.mark.parametrize(("label", "dials"), [("dpo", {"beta": 0.3}), ("simpo", {"beta": 1.5, "gamma": 0.4})])
def test_preference_losses_by_hand(base, model, tokenizer, tmp_path, label, dials):
    run = Batches(arm(label, updates=2, learning_rate=1e-2, **dials), base, tmp_path)
    first = run.seen[0]
    texts = [tokenizer.decode(ids[mask == 1]) for ids, mask in zip(first["input_ids"], first["completion_mask"], strict=True)]
    assert len(texts) == BATCH
    assert [by_content(t.removesuffix("<|end|>").strip()) for t in texts] == [True] * 8 + [False] * 8
    assert all(t.endswith("<|end|>") for t in texts)

    moved = run.trainer.model.eval()
    batch = run.seen[1]
    policy, tokens = sequence_logs(moved, batch)
    reference, _ = sequence_logs(model, batch)
    score = policy / tokens if label == "simpo" else policy - reference
    right, wrong = score.chunk(2)
    by_hand = -torch.nn.functional.logsigmoid(dials["beta"] * (right - wrong) - dials.get("gamma", 0)).mean()
    found = run.trainer._compute_loss(moved, dict(batch), False)
    assert float(found) == pytest.approx(float(by_hand), rel=1e-4)
    if label == "dpo":
        assert run.values("loss")[0] == pytest.approx(float(torch.log(torch.tensor(2.0))), abs=1e-5)
    else:
        assert run.trainer.ref_model is None
        assert float(simpo_loss(right, wrong, **dials)) == pytest.approx(float(by_hand), rel=1e-6)
    assert run.record.sequences == 2 * BATCH
    assert run.record.tokens_trained == sum(int(b["completion_mask"].sum()) for b in run.seen)


# ------------------------------------------------------------------ dials


@pytest.mark.parametrize(
    ("dials", "words"),
    [
        ({"algorithm": "sft", "expert": "traces"}, "belong together"),
        ({"algorithm": "sft", "traces_of": "grpo"}, "belong together"),
        ({"algorithm": "sft", "expert": "traces", "traces_of": "self_sft"}, "learns from no reward"),
        ({"algorithm": "sft", "expert": "base_mixture", "only_solvable": True}, "has none of its own"),
        ({"algorithm": "sft", "replay": 1.0}, "less than 1"),
        ({"algorithm": "sft", "useful_share": 0.0}, "greater than 0"),
        ({"algorithm": "sft", "kl_prompts": "retention", "kl_estimator": "k3"}, "only kl_estimator: exact"),
        ({"algorithm": "dpo", "gamma": 0.5}, "dpo has no dial 'gamma'"),
        ({"algorithm": "external", "model": "x", "lora_rank": 4}, "external has no dial 'lora_rank'"),
    ],
)
def test_dials_that_make_no_sense_are_refused(dials, words):
    with pytest.raises(ValidationError, match=words):
        Method(label="m", **dials)


def test_defaults_are_spelled_out_in_what_an_arm_is_made_of():
    assert Method(label="a", algorithm="dpo").config()["beta"] == 0.1
    assert Method(label="a", algorithm="simpo").config()["beta"] == 2.0
    assert Method(label="a", algorithm="sft").config()["kl_estimator"] == "exact"
    assert Method(label="a", algorithm="simpo").unit() == (2, "a pair")
    assert Method(label="a", algorithm="sft", expert="traces", traces_of="grpo").unit() == (8, "group_size")
