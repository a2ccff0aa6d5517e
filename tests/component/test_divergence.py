"""KL to the base along sampled answers: against a plain loop, and as the warehouse tells it."""

import copy

import pyarrow.parquet as pq
import pytest

from retain_core.arms import weights_key
from retain_core.canonical import hash64
from retain_core.evaluation.divergence import (
    ROWS,
    SAMPLES,
    SEQUENCES_PER_PASS,
    DivergencePlan,
    Divergences,
    kl_along,
    load_model,
    prompts_of,
    sample_base,
)
from retain_core.evaluation.size import DIVERGENCE_PROMPTS
from retain_core.lab.dataset import prepare_dataset
from retain_core.plan import plan_study
from retain_core.store import Store, key_of
from retain_core.training.encode import encode_prompts
from retain_core.training.sampling import sample_ids


@pytest.fixture(scope="module")
def store(finished_home):
    return Store(finished_home / "artifacts", read_only=True)


@pytest.fixture(scope="module")
def drawn(smoke_plan):
    """The base's answers: prompts, prompt, answer."""
    return pq.read_table(smoke_plan.base_samples.file(SAMPLES)).to_pylist()


@pytest.fixture(scope="module")
def other(base_model):
    """The base with noise on every weight."""
    import torch

    model, noise = copy.deepcopy(base_model[0]), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=noise))
    return model.eval()


@pytest.fixture(scope="module")
def some(drawn):
    """A few of both sets, of many lengths: prompts and answers, one answer cut before its stop token."""
    chosen = [*drawn[:12], *drawn[-12:]]
    answers = [row["answer"] for row in chosen]
    answers[0] = answers[0][:-1] or answers[0]
    return [row["prompt"] for row in chosen], answers


def one_by_one(p, q, tokenizer, prompts, answers):
    """Every position's KL(p || q) in nats, one sequence at a time, nothing padded."""
    import torch

    found = []
    for head, tail in zip(encode_prompts(tokenizer, prompts), answers, strict=True):
        ids = torch.tensor([head + tail])
        with torch.no_grad():
            log_p, log_q = (model(input_ids=ids).logits[0].double().log_softmax(-1) for model in (p, q))
        places = range(len(head) - 1, len(head) + len(tail) - 1)
        found.append([float((log_p[t].exp() * (log_p[t] - log_q[t])).sum()) for t in places])
    return found


def test_the_batched_sum_is_that_of_a_plain_loop(base_model, other, some):
    base, tokenizer = base_model
    lengths = {len(answer) for answer in some[1]}
    assert len(lengths) > 2, "padding has something to hide"
    for p, q in ((base, other), (other, base)):
        expected = one_by_one(p, q, tokenizer, *some)
        found = kl_along(p, q, tokenizer, *some)
        assert [tokens for _, tokens in found] == [len(answer) for answer in some[1]]
        assert [nats for nats, _ in found] == pytest.approx([sum(row) for row in expected], abs=1e-5)
        assert min(sum(row) for row in expected) > 1e-3


def test_the_stop_token_counts_and_the_prompt_does_not(base_model, other, some):
    base, tokenizer = base_model
    prompts, answers = some
    whole = [i for i, answer in enumerate(answers) if answer[-1] == tokenizer.eos_token_id and len(answer) > 1]
    assert whole
    expected = one_by_one(base, other, tokenizer, prompts, answers)
    full = kl_along(base, other, tokenizer, prompts, answers)
    for i in whole:
        ((without, tokens),) = kl_along(base, other, tokenizer, [prompts[i]], [answers[i][:-1]])
        assert full[i][0] - without == pytest.approx(expected[i][-1], abs=1e-5)
        assert full[i][1] == tokens + 1
        ((first, _),) = kl_along(base, other, tokenizer, [prompts[i]], [answers[i][:1]])
        assert first == pytest.approx(expected[i][0], abs=1e-5)


def test_more_sequences_than_fit_into_a_pass(base_model, other, some):
    base, tokenizer = base_model
    prompts, answers = some
    times = SEQUENCES_PER_PASS // len(prompts) + 1
    once, many = (kl_along(base, other, tokenizer, prompts * n, answers * n) for n in (1, times))
    assert [nats for nats, _ in many] == pytest.approx([nats for nats, _ in once] * times, abs=1e-5)


def test_a_model_does_not_differ_from_itself(base_model, some):
    base, tokenizer = base_model
    assert {nats for nats, _ in kl_along(base, copy.deepcopy(base), tokenizer, *some)} == {0.0}


def test_the_two_directions_differ(base_model, other, some):
    base, tokenizer = base_model
    there, back = (kl_along(*pair, tokenizer, *some) for pair in ((base, other), (other, base)))
    assert sum(n for n, _ in there) != pytest.approx(sum(n for n, _ in back), rel=1e-3)


def test_a_model_that_broke_has_no_kl_instead_of_none_to_speak_of(base_model, some):
    import torch

    base, tokenizer = base_model
    broken = copy.deepcopy(base)
    with torch.no_grad():
        broken.lm_head.weight.fill_(float("nan"))
    assert all(nats != nats for nats, _ in kl_along(base, broken, tokenizer, *some))


# What a study stores


def divergences(plan):
    """Checkpoint -> rows of its divergence artifact."""
    return {
        arm.spec.checkpoint(*checkpoint): pq.read_table(artifact.file(ROWS)).to_pylist()
        for arm in plan.arms
        for checkpoint, pairs in arm.evaluations.items()
        for p, artifact in pairs
        if p.kind == "divergence"
    }


def test_forward_runs_along_the_same_answers_for_every_checkpoint(smoke_plan, store, drawn):
    assert len(store.keys("base_samples")) == 1
    lengths = [("target" if i < DIVERGENCE_PROMPTS else "retention", len(row["answer"])) for i, row in enumerate(drawn)]
    found = divergences(smoke_plan)
    assert len(found) == 3 * 2
    for rows in found.values():
        forward = [(r["prompts"], r["tokens"]) for r in rows if r["direction"] == "forward"]
        assert forward == lengths
    pairs = [pair for arm in smoke_plan.arms for found in arm.evaluations.values() for pair in found]
    assert {a.inputs["samples"] for p, a in pairs if p.kind == "divergence"} == {smoke_plan.base_samples.key}


def test_what_is_stored_is_the_kl_of_the_trained_checkpoint_from_the_base(smoke_plan, store, drawn):
    arm = next(a for a in smoke_plan.arms if a.spec.method == "sft")
    base, tokenizer = load_model(smoke_plan.base_path)
    tuned, _ = load_model(store.get("weights", weights_key(arm.spec, 4)).path)
    rows = divergences(smoke_plan)[arm.spec.checkpoint(4)]
    stored = {d: {(r["prompts"], r["item"]): r["nats"] for r in rows if r["direction"] == d} for d in ("forward", "reverse")}
    for chosen in (drawn[:6], drawn[-6:]):
        prompts, answers = [r["prompt"] for r in chosen], [r["answer"] for r in chosen]
        forward = one_by_one(base, tuned, tokenizer, prompts, answers)
        for row, expected in zip(chosen, forward, strict=True):
            assert stored["forward"][row["prompts"], hash64(row["prompt"])] == pytest.approx(sum(expected), abs=1e-5)
    from transformers import set_seed

    targets = [r["prompt"] for r in drawn if r["prompts"] == "target"]
    set_seed(0)
    own = sample_ids(tuned, tokenizer, targets, temperature=1.0, max_new_tokens=16)
    assert own != [r["answer"] for r in drawn if r["prompts"] == "target"], "reverse runs along the checkpoint's own answers"
    reverse = one_by_one(tuned, base, tokenizer, targets[:6], own[:6])
    for prompt, expected in zip(targets, reverse, strict=False):
        assert stored["reverse"]["target", hash64(prompt)] == pytest.approx(sum(expected), abs=1e-5)


def test_the_warehouse_averages_as_it_says(warehouse, smoke_plan):
    found = divergences(smoke_plan)
    told = warehouse.execute("SELECT checkpoint, prompts, direction, nats_per_token, nats_per_sequence, n FROM divergences")
    rows = told.fetchall()
    assert len(rows) == 3 * 2 * 2 * 2
    for checkpoint, prompts, direction, per_token, per_sequence, n in rows:
        mine = [r for r in found[checkpoint] if (r["prompts"], r["direction"]) == (prompts, direction)]
        assert n == len(mine) == DIVERGENCE_PROMPTS
        assert per_token == pytest.approx(sum(r["nats"] for r in mine) / sum(r["tokens"] for r in mine))
        assert per_sequence == pytest.approx(sum(r["nats"] for r in mine) / n)
    by_name = {(c, p, d): nats for c, p, d, nats, _, _ in rows}
    for checkpoint in {c for c, *_ in rows}:
        forward, reverse = (by_name[checkpoint, "target", d] for d in ("forward", "reverse"))
        plane = warehouse.execute("SELECT kl_forward, kl_reverse FROM gain_drop WHERE checkpoint = ?", [checkpoint]).fetchone()
        assert plane == (forward, reverse)
        if "learning_rate_0" in checkpoint:
            assert (forward, reverse) == (0, 0)
        elif "sft" in checkpoint:
            assert forward != reverse
            assert min(forward, reverse) > 0


def test_the_bases_answers_are_drawn_alike_again(smoke_plan, drawn, tmp_path):
    fresh = Store(tmp_path / "artifacts")
    fresh.prepare()
    prepare_dataset(fresh, smoke_plan.world)
    settings, items = smoke_plan.divergence_settings, smoke_plan.dataset.file("items")
    sample_base(fresh, smoke_plan.base_path, settings)
    again = fresh.get("base_samples", key_of(settings.inputs()))
    assert pq.read_table(again.file(SAMPLES)).to_pylist() == drawn
    prompts = prompts_of(fresh, settings)
    assert [len(p) for p in prompts.values()] == [DIVERGENCE_PROMPTS] * 2
    sources = [(items / f"{name}.jsonl").read_text() for name in ("addition", "places")]
    assert all(prompt in sources[i % 2] for i, prompt in enumerate(prompts["retention"])), "retention benchmarks take turns"


def test_a_study_says_how_many_prompts(smoke_plan, store):
    few = plan_study(smoke_plan.study.model_copy(update={"divergence_prompts": 3}), store)
    whole, chosen = (prompts_of(store, plan.divergence_settings) for plan in (smoke_plan, few))
    assert chosen == {name: prompts[:3] for name, prompts in whole.items()}
    assert few.base_samples is None, "they are other answers"
    assert few.study.spec_hash() != smoke_plan.study.spec_hash()
    of_arms = {plan.settings for arm in few.arms for pairs in arm.evaluations.values() for plan, _ in pairs[-1:]}
    assert of_arms == {few.divergence_settings}


def test_another_vocabulary_gives_a_reason_instead_of_rows(smoke_plan, base_model, tmp_path):
    fresh = Store(tmp_path / "artifacts")
    fresh.prepare()
    tokenizer = copy.deepcopy(base_model[1])
    tokenizer.add_tokens(["unheard-of"])
    plan = DivergencePlan({"model": "theirs"}, smoke_plan.divergence_settings)
    measure = Divergences(smoke_plan.base_path, smoke_plan.base_samples)
    measure.measure(fresh, plan, base_model[0], tokenizer)
    artifact = fresh.get("divergence", plan.key)
    assert pq.read_table(artifact.file(ROWS)).num_rows == 0
    assert "another vocabulary" in artifact.meta["reason"]


def test_a_checkpoint_without_rows_has_no_kl_in_the_plane(home):
    import duckdb

    with duckdb.connect(str(home / "warehouse.duckdb")) as con:
        con.execute("""DELETE FROM divergence_items WHERE divergence_id IN
            (SELECT divergence_id FROM named_divergences WHERE checkpoint LIKE 'smoke/grpo%')""")
        found = dict(con.execute("SELECT method, max(kl_forward) FROM gain_drop GROUP BY method").fetchall())
    assert found["grpo"] is None
    assert found["sft"] > 0
    assert found["base"] == 0
