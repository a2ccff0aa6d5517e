"""Batches that fit into memory give the answers of whole ones, and the lab's are as whole as they were."""

import copy
import shutil
from dataclasses import fields

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from retain_core import passes
from retain_core.arms import ArmSpec
from retain_core.errors import InputError
from retain_core.evaluation.benchmarks import BENCHMARKS
from retain_core.evaluation.divergence import Divergences, kl_along, load_model
from retain_core.evaluation.evaluate import Evaluator, evaluation_settings
from retain_core.evaluation.exact import exact_items, exact_scores
from retain_core.evaluation.floor import Nuisance, nuisances, usual
from retain_core.evaluation.harness import RecordingLM, ask
from retain_core.evaluation.size import AS_THE_LAB, EvaluationSize
from retain_core.plan import plan_study
from retain_core.store import Store
from retain_core.study_file import load_study
from retain_core.training.encode import encode_prompts
from retain_core.training.frozen import FrozenBase
from retain_core.training.held import frozen_base, reading
from retain_core.training.kl import kl_penalty, log_ratio
from retain_core.training.sampling import sample_ids
from retain_core.training.size import TrainingSize
from tests.conftest import run_plain
from tests.tiny import write_tiny

HALVED = EvaluationSize(dtype="bfloat16")
KINDS = ("addition", "places", "heldout_loss", "new_facts")
"""Benchmarks that generate, choose by log-likelihood, and measure a loss."""
NATS, SHARE = 1e-5, 1e-4
"""What another batch may change of a KL (nats an answer) and of a probability (of itself), in float32."""


@pytest.fixture(scope="module")
def items(smoke_plan):
    return smoke_plan.dataset.file("items")


@pytest.fixture(scope="module")
def other(base_model):
    """The base with noise on every weight."""
    model, noise = copy.deepcopy(base_model[0]), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=noise))
    return model.eval()


@pytest.fixture(scope="module")
def drawn(smoke_plan):
    """Prompts and the base's answers to them."""
    import pyarrow.parquet as pq

    rows = pq.read_table(smoke_plan.base_samples.file("samples.parquet")).to_pylist()
    return [row["prompt"] for row in rows], [row["answer"] for row in rows]


class Watched(RecordingLM):
    """Notes how many tokens every pass held, its answers included."""

    held: list

    def _model_call(self, inps, *more, **options):
        self.held.append((len(inps), inps.numel()))
        return super()._model_call(inps, *more, **options)

    def _model_generate(self, context, max_length, *more, **options):
        self.held.append((len(context), len(context) * max_length))
        return super()._model_generate(context, max_length, *more, **options)


def asked(base_model, items, name, at_once):
    """(answers, passes as (rows, tokens)) of the base."""
    lm = Watched(*base_model, at_once=at_once)
    lm.held = []
    return ask(lm, BENCHMARKS[name], str(items)), lm.held


@pytest.mark.parametrize("name", KINDS)
def test_another_budget_gives_the_same_answers_and_is_kept(base_model, items, name):
    whole, passes_made = asked(base_model, items, name, None)
    assert max(rows for rows, _ in passes_made) == 400
    for at_once in (2000, 300):
        found, held = asked(base_model, items, name, at_once)
        assert max(tokens for _, tokens in held) <= at_once
        assert len(held) > 1.5 * len(passes_made)
        for one, two in zip(whole, found, strict=True):
            assert (one.doc_id, one.response, one.n_tokens, one.finish_reason) == (
                two.doc_id, two.response, two.n_tokens, two.finish_reason
            )  # fmt: skip
            assert two.scores == pytest.approx(one.scores, rel=SHARE)


def test_a_single_row_may_be_longer_than_the_budget(base_model, items):
    found, held = asked(base_model, items, "places", 3)
    assert {rows for rows, _ in held} == {1}
    assert [a.response for a in found] == [a.response for a in asked(base_model, items, "places", None)[0]]


def test_kl_of_whole_batches_is_to_the_bit_what_it_was(base_model, other, drawn):
    """The formula as it stood before there were budgets, 200 sequences at a time."""
    base, tokenizer = base_model
    prompts, answers = drawn
    encoded, expected = encode_prompts(tokenizer, prompts), []
    for start in range(0, len(encoded), 200):
        heads, tails = encoded[start : start + 200], answers[start : start + 200]
        longest = max(len(h) + len(t) for h, t in zip(heads, tails, strict=True))
        ids = torch.tensor([h + t + [0] * (longest - len(h) - len(t)) for h, t in zip(heads, tails, strict=True)])
        place = torch.arange(longest)
        ends = torch.tensor([len(h) + len(t) for h, t in zip(heads, tails, strict=True)])[:, None]
        starts = torch.tensor([len(h) for h in heads])[:, None]
        mask, counted = (place < ends).long(), (place >= starts - 1) & (place < ends - 1)
        with torch.no_grad():
            log_p, log_q = (m(input_ids=ids, attention_mask=mask).logits.float().log_softmax(-1) for m in (base, other))
        expected += ((log_p.exp() * (log_p - log_q)).sum(-1).double() * counted).sum(1).clamp(min=0).tolist()
    assert [nats for nats, _ in kl_along(base, other, tokenizer, prompts, answers)] == expected


def seen(model):
    """(every batch that a model reads from now on, as (rows, tokens), and how many logits it makes at a time)."""
    read, made = [], []

    def note(_module, args, kwargs):
        ids = kwargs.get("input_ids", args[0] if args else None)
        read.append((len(ids), ids.numel()))

    model.base_model.register_forward_pre_hook(note, with_kwargs=True)
    model.get_output_embeddings().register_forward_hook(lambda _m, _i, out: made.append(out.numel()))
    return read, made


@pytest.mark.parametrize("at_once", [10_000, 500, 1])
def test_kl_in_parts_is_that_of_whole_batches_and_no_part_is_too_large(base_model, other, drawn, at_once, monkeypatch):
    tokenizer, base = base_model[1], copy.deepcopy(base_model[0])
    prompts, answers = (side[::4] for side in drawn)
    whole = kl_along(base, other, tokenizer, prompts, answers)
    read, made = seen(base)
    words = len(tokenizer)
    monkeypatch.setattr(passes, "LOGITS_AT_ONCE", 600 * words)
    found = kl_along(base, other, tokenizer, prompts, answers, at_once)
    assert [tokens for _, tokens in found] == [tokens for _, tokens in whole]
    assert [nats for nats, _ in found] == pytest.approx([nats for nats, _ in whole], abs=NATS)
    assert all(rows == 1 or tokens <= at_once for rows, tokens in read)
    assert max(made[2:]) <= 600 * words, "beside the two tokens that tell whether the model is in two parts"
    assert at_once > 500 or len(read) >= 5


@pytest.mark.parametrize("at_once", [4000, 300, 20])
def test_exact_scores_in_parts_are_those_of_whole_batches(base_model, items, at_once, monkeypatch):
    model, tokenizer = base_model
    chosen = exact_items(tokenizer, items / "countdown.jsonl")[:60]
    whole = exact_scores(model, chosen)
    assert min(whole.values()) > 0
    monkeypatch.setattr(passes, "LOGITS_AT_ONCE", 100 * len(tokenizer))
    assert exact_scores(model, chosen, at_once) == pytest.approx(whole, rel=SHARE)


def test_what_the_base_finds_likely_in_parts(base, tokenizer, monkeypatch):
    exchanges = [("2 + 3", word) for word in ("5", "5 5 5 5", "red", "1 2 3")] * 40
    whole = FrozenBase(base, tokenizer, 16)
    expected = whole.log_likelihoods(exchanges)
    assert whole._at_once is None
    parts = FrozenBase(base, tokenizer, 16)
    parts._at_once = 90
    monkeypatch.setattr(passes, "LOGITS_AT_ONCE", 10 * len(tokenizer))
    assert parts.log_likelihoods(exchanges) == pytest.approx(expected, abs=NATS)


def test_sampling_keeps_the_budget_and_a_large_one_draws_what_none_does(base_model, drawn):
    model, tokenizer = copy.deepcopy(base_model[0]), base_model[1]
    prompts = drawn[0]
    read, _ = seen(model)
    found = {}
    for at_once in (None, 10**6, 600):
        torch.manual_seed(0)
        read.clear()
        found[at_once] = sample_ids(model, tokenizer, prompts, temperature=1.0, max_new_tokens=16, at_once=at_once)
        rows = max(rows for rows, _ in read)
        longest = max(map(len, encode_prompts(tokenizer, prompts))) + 16
        assert rows == (len(prompts) if at_once != 600 else rows)
    assert rows <= 600 // 17
    assert rows * longest < 600 + longest * 20
    assert found[None] == found[10**6] != found[600]
    assert len(found[600]) == len(prompts)


class Biased(LlamaForCausalLM):
    """Does to its logits what nobody knows."""

    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        out.logits = out.logits + torch.arange(out.logits.shape[-1]) / 100
        return out


def gemma(**shape):
    """Gemma 2, whose logits are capped behind the output layer."""
    made = Gemma2ForCausalLM(Gemma2Config(**shape, head_dim=16, num_key_value_heads=1, final_logit_softcapping=0.5))
    with torch.no_grad():
        made.lm_head.weight.mul_(20)
    return made


@pytest.mark.parametrize(
    "build",
    [
        gemma,
        lambda **shape: GraniteForCausalLM(GraniteConfig(**shape, logits_scaling=3.0)),
        lambda **shape: CohereForCausalLM(CohereConfig(**shape, logit_scale=0.25)),
        lambda **shape: Biased(LlamaConfig(**shape)),
    ],
    ids=["gemma", "granite", "cohere", "unknown"],
)
def test_models_that_do_more_to_their_logits_are_read_as_they_are(build, base_model, drawn, monkeypatch):
    tokenizer = base_model[1]
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
             "vocab_size": len(tokenizer)}  # fmt: skip
    one, two = (build(**shape).eval() for _ in range(2))
    ids = torch.randint(5, len(tokenizer), (3, 9))
    with torch.no_grad():
        parts = passes.read(one, ids, whole=False)
        assert torch.equal(parts.logits(slice(0, 9)), one(input_ids=ids).logits)
        bare = one.get_output_embeddings()(one.base_model(input_ids=ids).last_hidden_state)
        assert not torch.allclose(bare, one(input_ids=ids).logits, atol=1e-3), "it does something"
    assert (parts.states.shape[-1] == 32) == (not isinstance(one, Biased)), "states where the family is known, else logits"
    monkeypatch.setattr(passes, "LOGITS_AT_ONCE", 100 * len(tokenizer))
    prompts, answers = (side[::20] for side in drawn)
    whole, split = (kl_along(one, two, tokenizer, prompts, answers, at_once) for at_once in (None, 100))
    assert [nats for nats, _ in split] == pytest.approx([nats for nats, _ in whole], abs=NATS)
    assert min(nats for nats, _ in whole) > 1e-4


# The KL penalty


@pytest.mark.parametrize("estimator", ["k2", "k3", "exact"])
@pytest.mark.parametrize("temperature", [1.0, 0.8])
def test_a_penalty_in_parts_is_to_the_bit_the_whole_one(estimator, temperature, monkeypatch):
    torch.manual_seed(0)
    policy, base = torch.randn(4, 23, 50, requires_grad=True), torch.randn(4, 23, 50)
    tokens, counted = torch.randint(50, (4, 23)), torch.randint(2, (4, 23))
    found = []
    for most in (passes.LOGITS_AT_ONCE, 4 * 5 * 50):
        monkeypatch.setattr(passes, "LOGITS_AT_ONCE", most)
        monkeypatch.setattr("retain_core.training.kl.LOGITS_AT_ONCE", most)
        penalty = kl_penalty(policy, base, tokens, counted, estimator, temperature)
        (gradient,) = torch.autograd.grad(penalty, policy)
        found.append((penalty.detach(), gradient, log_ratio(policy, base, tokens, temperature).detach()))
    whole, parts = found
    assert all(torch.equal(one, two) for one, two in zip(whole, parts, strict=True))
    log_p, log_q = ((side / temperature).log_softmax(-1) for side in (policy.detach(), base))
    assert torch.allclose(whole[2], (log_p - log_q).gather(-1, tokens[..., None])[..., 0], atol=1e-6)


def test_a_penalty_in_parts_keeps_no_distributions_for_the_backward_pass(monkeypatch):
    rows, positions, words = 2, 64, 1000
    policy, base = torch.randn(rows, positions, words, requires_grad=True), torch.randn(rows, positions, words)
    tokens, counted = torch.randint(words, (rows, positions)), torch.ones(rows, positions)
    kept = {}
    for most in (passes.LOGITS_AT_ONCE, rows * 4 * words):
        monkeypatch.setattr(passes, "LOGITS_AT_ONCE", most)
        monkeypatch.setattr("retain_core.training.kl.LOGITS_AT_ONCE", most)
        saved = {}
        given = {t.untyped_storage().data_ptr() for t in (policy, base, tokens)}

        def pack(tensor, saved=saved, given=given):
            if tensor.untyped_storage().data_ptr() not in given:
                saved[tensor.untyped_storage().data_ptr()] = tensor, tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            kl_penalty(policy, base, tokens, counted, "exact")
        kept[most] = sum(size for _, size in saved.values())
    whole, parts = kept.values()
    assert whole >= 4 * rows * positions * words
    assert parts < whole / 50


# The base held in bf16


@pytest.fixture(scope="module")
def released_in_bf16(base, tmp_path_factory):
    """The base as a maker would release it: every weight a bf16 number."""
    folder = tmp_path_factory.mktemp("released") / "base"
    shutil.copytree(base, folder)
    load_model(base, "bfloat16")[0].save_pretrained(folder)
    return folder


def test_a_base_held_in_bf16_says_to_the_bit_what_one_in_fp32_says(released_in_bf16, tokenizer):
    whole, half = (frozen_base(released_in_bf16, bf16) for bf16 in (False, True))
    assert {p.dtype for p in whole.parameters()} == {torch.float32}
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    ids = torch.randint(5, len(tokenizer), (4, 20))
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            expected = whole(input_ids=ids).logits
        with reading(half):
            found = half(input_ids=ids).logits
    assert torch.equal(found, expected)
    with torch.no_grad(), reading(whole):
        assert not torch.equal(whole(input_ids=ids).logits, expected), "in fp32 nothing is rounded"


def test_a_base_held_in_bf16_samples_scores_and_is_penalised_against(released_in_bf16, tokenizer, tmp_path, one_thread):
    from retain_core.training.train import train
    from tests.component import golden

    held = FrozenBase(released_in_bf16, tokenizer, 16, bf16=True)
    whole = FrozenBase(released_in_bf16, tokenizer, 16)
    exchanges = [("2 + 3", "5"), ("2 + 3", "1 2 3")]
    assert held.log_likelihoods(exchanges) == pytest.approx(whole.log_likelihoods(exchanges), rel=0.02)
    assert len(held.sample(["2 + 3"] * 3, 1.0)) == 3
    curves = {}
    for frozen in ("fp32", "bf16"):
        size = TrainingSize(dtype="bf16", frozen=frozen)
        for label in ("grpo", "sft_kl", "sft_kl_retention"):
            spec = golden.arm_spec(label, golden.METHODS[label], updates=2, size=size)
            record = train(spec, released_in_bf16, tmp_path / f"{frozen}-{label}")
            curves[frozen, label] = [p["value"] for p in record.curve if p["name"] == "kl"]
    assert curves["bf16", "grpo"] == curves["fp32", "grpo"], "the same penalty from half the memory"
    for label in ("sft_kl", "sft_kl_retention"):
        assert curves["bf16", label] == pytest.approx(curves["fp32", label], rel=0.05, abs=2e-3)


def test_holding_the_base_in_bf16_is_part_of_the_key_and_acts_in_bf16_only():
    from tests.component import golden

    plain, held = (golden.arm_spec("sft", golden.METHODS["sft"], size=TrainingSize(frozen=f)) for f in ("fp32", "bf16"))
    assert "size" not in plain.inputs()
    assert held.inputs()["size"] == {"frozen": "bf16"}
    assert TrainingSize(frozen="bf16").base_in_bf16(precise=False)
    assert not TrainingSize(frozen="bf16").base_in_bf16(precise=True)
    assert not TrainingSize(frozen="bf16", dtype="fp32").base_in_bf16(precise=False)


# As a setting of a study

TEXT = """
study: sized
base: {base}
target: {{name: echo, train: train.jsonl, items: items.jsonl, verifier: "verify:right", longest_answer: 12}}
retention: [sorting]
methods: [grpo, self_sft]
learning_rates: [1.0e-3]
seeds: [0]
budget: {{updates: 2, sequences_per_update: 16}}
checkpoints: 1
{more}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny base, and a target."""
    folder = tmp_path_factory.mktemp("study")
    write_tiny(folder / "base", ["say a word", "a word"])
    (folder / "verify.py").write_text("def right(answer, row):\n    return answer == row['answer']\n")
    rows = "".join(f'{{"prompt": "say word {i}", "answer": "word {i}"}}\n' for i in range(60))
    (folder / "train.jsonl").write_text(rows)
    (folder / "items.jsonl").write_text(rows.replace("say word", "please say word"))
    return folder


@pytest.fixture(scope="module")
def study(folder):
    """Writes a study of that target, and returns it; a shape is that of another base."""

    def write(more="", **shape):
        base = folder / "base"
        if shape:
            base = folder / "-".join(f"{k}{v}" for k, v in shape.items())
            shutil.copytree(folder / "base", base, dirs_exist_ok=True)
            made = load_model(folder / "base")[0].config
            made.update(shape)
            made.save_pretrained(base)
        (folder / "study.yaml").write_text(TEXT.format(base=base, more=more))
        return load_study(folder / "study.yaml")

    return write


def planned(study, tmp_path):
    return plan_study(study, Store(tmp_path / "artifacts"))


def test_a_study_that_says_nothing_is_what_it_was(smoke_plan, study, tmp_path):
    assert smoke_plan.evaluation == AS_THE_LAB
    plan = planned(study(), tmp_path)
    assert plan.evaluation == AS_THE_LAB, "a tiny model of one's own has whole batches too"
    for settings in [p.settings for p, _ in smoke_plan.base_evaluations] + [p.settings for p, _ in plan.base_evaluations]:
        assert (settings["dtype"], settings["batch_size"]) == ("float32", 400)
        assert not {"batch_tokens", "softmax_dtype"} & set(settings)
    assert "evaluation" not in plan.divergence_settings.inputs()
    for arm in plan.arms:
        assert arm.spec.sampled_at_once is None
        assert "sampled_at_once" not in arm.spec.inputs()
    assert study().spec_hash() == study("evaluation: {dtype: float32}").spec_hash()


def test_precision_and_budget_are_in_every_key_and_the_same_for_base_and_arms(study, tmp_path):
    plans = [
        planned(study(more), tmp_path) for more in ("", "evaluation: {dtype: bfloat16}", "evaluation: {batch_tokens: 900}")
    ]
    evaluations = [[p.key for p, _ in plan.base_evaluations] for plan in plans]
    assert len({key for keys in evaluations for key in keys}) == 3 * len(evaluations[0])
    assert len({plan.support_key for plan in plans}) == 3
    assert len({plan.study.spec_hash() for plan in plans}) == 3
    assert len({str(plan.divergence_settings.inputs()) for plan in plans}) == 3
    for plan in plans:
        base = {p.benchmark: p.settings for p, _ in plan.base_evaluations}
        for arm in plan.arms:
            pairs = [p for found in arm.evaluations.values() for p, _ in found]
            assert {p.benchmark: p.settings for p in pairs if p.kind == "evaluation"} == base
            assert {p.settings for p in pairs if p.kind == "divergence"} == {plan.divergence_settings}
            assert ArmSpec.model_validate_json(arm.spec.model_dump_json()) == arm.spec
    assert plans[1].base_evaluations[0][0].settings["softmax_dtype"] == "float32"
    assert [arm.spec.key for arm in plans[0].arms] == [arm.spec.key for arm in plans[1].arms], "nothing is trained again"


def test_a_large_base_brings_its_own_budget(study, tmp_path):
    plan = planned(study(hidden_size=4096, num_hidden_layers=32, max_position_embeddings=32_768), tmp_path)
    assert 1000 < plan.evaluation.batch_tokens < 100_000
    assert plan.base_evaluations[0][0].settings["batch_tokens"] == plan.evaluation.batch_tokens
    told = {arm.spec.method: arm.spec.inputs().get("sampled_at_once") for arm in plan.arms}
    assert told["self_sft"] == plan.evaluation.batch_tokens
    assert told["grpo"] is None, "TRL samples for it"
    half = planned(study("evaluation: {dtype: bfloat16}", hidden_size=4096, num_hidden_layers=32,
                         max_position_embeddings=32_768), tmp_path)  # fmt: skip
    assert half.evaluation.batch_tokens == pytest.approx(2 * plan.evaluation.batch_tokens, abs=1)
    assert {arm.spec.inputs().get("sampled_at_once") for arm in half.arms} == set(told.values())


@pytest.mark.parametrize(("more", "said"), [
    ("evaluation: {dtype: float16}", "evaluation.dtype"),
    ("evaluation: {batch_tokens: 0}", "evaluation.batch_tokens"),
    ("evaluation: {batch_token: 9}", "unknown key 'batch_token'; did you mean 'batch_tokens'?"),
    ("training: {frozen: int8}", "training.frozen"),
])  # fmt: skip
def test_what_cannot_be_is_refused(study, more, said):
    with pytest.raises(InputError, match=said.replace("?", r"\?")):
        study(more)


@pytest.mark.parametrize("size", [AS_THE_LAB, HALVED, EvaluationSize(batch_tokens=900), EvaluationSize(batch_tokens=1)])
def test_every_change_of_the_noise_floor_is_one_change(size):
    plain, changed = usual(size), []
    for nuisance in nuisances(size=size):
        differing = [f.name for f in fields(Nuisance) if getattr(nuisance, f.name) != getattr(plain, f.name)]
        told = [evaluation_settings(BENCHMARKS["places"], "data", 1, "t", n) for n in (plain, nuisance)]
        keys = [key for key in told[0] | told[1] if told[0].get(key) != told[1].get(key)]
        assert len(differing) == 1 + len(keys)
        changed += keys
    if size.batch_tokens != 1:
        batch = "batch_tokens" if size.batch_tokens else "batch_size"
        assert sorted(changed) == sorted([batch, batch, "dtype", "item_order", "item_order", "threads"])


def test_a_model_is_read_and_scored_in_the_precision_of_the_study(base_model, smoke_plan, items, tmp_path):
    half, whole = usual(HALVED), usual()
    model = load_model(smoke_plan.base_path, half.read_as)[0]
    assert {p.dtype for p in half.applied_to(model).parameters()} == {torch.bfloat16}
    lm = RecordingLM(model, base_model[1], softmax=half.softmax)
    assert lm.softmax_dtype == torch.float32
    assert RecordingLM(*base_model, softmax=whole.softmax).softmax_dtype is None
    plain = RecordingLM(*base_model)
    rough, fine = ({a.doc_id: a.scores for a in ask(one, BENCHMARKS["heldout_loss"], str(items))} for one in (lm, plain))
    gaps = [abs(rough[i]["nats_per_token"] - fine[i]["nats_per_token"]) for i in fine]
    assert 0 < max(gaps) < 0.1
    other = next(n for n in nuisances(size=HALVED) if n.name == "other_dtype")
    assert (other.dtype, other.read_as, other.softmax) == ("float32", "float32", "float32")
    store = Store(tmp_path / "artifacts")
    store.prepare()
    answers = Evaluator(store, smoke_plan.dataset, smoke_plan.base_path, half).answers(lm, BENCHMARKS["countdown"])
    assert len(answers) == 520
    assert all(0 <= a.scores["exact"] <= 1 for a in answers)
    samples = smoke_plan.base_samples
    assert {p.dtype for p in Divergences(smoke_plan.base_path, samples, HALVED)._base.parameters()} == {torch.bfloat16}


@pytest.mark.slow
def test_a_study_runs_with_precision_and_budget_from_the_base_to_the_page(tmp_path, folder):
    import duckdb

    shutil.copytree(folder, tmp_path / "run")
    text = TEXT.format(base=tmp_path / "run" / "base", more="evaluation: {dtype: bfloat16, batch_tokens: 700}")
    (tmp_path / "run" / "study.yaml").write_text(text.replace("[grpo, self_sft]", "[sft]\ncontrols: [learning_rate_0]"))
    assert run_plain(tmp_path / "run" / "study.yaml", tmp_path / "home") == {}
    with duckdb.connect(str(tmp_path / "home" / "warehouse.duckdb"), read_only=True) as con:
        told = con.execute("SELECT DISTINCT settings->>'dtype', settings->>'batch_tokens' FROM evaluations").fetchall()
        assert told == [("bfloat16", "700")]
        moved = "SELECT DISTINCT \"drop\", lost, gained FROM forgetting WHERE method = 'learning_rate_0'"
        assert con.execute(moved).fetchall() == [(0, 0, 0)]
        assert con.execute("SELECT count(*) FROM divergences WHERE nats_per_token > 0").fetchone()[0] > 0
