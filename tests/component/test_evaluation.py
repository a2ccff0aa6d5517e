"""Our evaluation of a checkpoint is lm-eval's, with what lm-eval throws away."""

from itertools import combinations

import pyarrow.parquet as pq
import pytest

from retain_core.canonical import hash64
from retain_core.evaluation.answers import ANSWERS, SCORES, item_hash, split_of
from retain_core.evaluation.benchmarks import BENCHMARKS
from retain_core.evaluation.evaluate import Evaluator, plans_of
from retain_core.evaluation.harness import RecordingLM, ask, task_manager
from retain_core.lab.world import TARGETS

GENERATED = ("countdown", "addition", "sorting", "facts", "safety", "new_facts", "new_format")


@pytest.fixture(scope="module")
def items(smoke_plan):
    return str(smoke_plan.dataset.file("items"))


@pytest.fixture(scope="module")
def lm(base_model):
    return RecordingLM(*base_model)


SAMPLED = ("addition_sampled", "facts_sampled")
IN_STEPS = "countdown_steps"
"""Of another world than the smoke study's."""


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name not in (*SAMPLED, IN_STEPS)])
def test_scores_are_lm_evals_own_to_the_last_digit(base_model, lm, items, name):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    model, tokenizer = base_model
    harness = BENCHMARKS[name].harness_name
    plain = simple_evaluate(
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=400, max_length=64, device="cpu"), tasks=[harness],
        task_manager=task_manager(items), apply_chat_template=True, log_samples=True, bootstrap_iters=0,
    )  # fmt: skip
    theirs = {s["doc"]["doc_id"]: {m: float(s[m]) for m in s["metrics"] if m != "parsed"} for s in plain["samples"][harness]}
    ours = {a.doc_id: a.scores for a in ask(lm, BENCHMARKS[name], items)}
    assert ours == theirs
    assert len(ours) == (520 if name in TARGETS else 400)


@pytest.mark.parametrize("name", GENERATED)
def test_length_and_end_of_every_answer_are_known(lm, items, name):
    answers = ask(lm, BENCHMARKS[name], items)
    for answer in answers:
        assert answer.finish_reason in ("stop", "length")
        words = len(answer.response.split())
        assert answer.n_tokens >= words + (answer.finish_reason == "stop")
        assert (answer.n_tokens == 16) or answer.finish_reason == "stop"
        assert answer.parsed is not None


@pytest.mark.parametrize("name", SAMPLED)
def test_sampled_answers_are_all_kept_and_drawn_alike_each_time(lm, items, name):
    answers = ask(lm, BENCHMARKS[name], items)
    assert ask(lm, BENCHMARKS[name], items) == answers
    by_item = {}
    for answer in answers:
        by_item.setdefault(answer.doc_id, []).append(answer)
    assert len(by_item) == 400
    assert len({answer.response for answer in answers}) > 1
    for drawn in by_item.values():
        assert [answer.repeat for answer in drawn] == list(range(8))
        right = [answer.response.strip() == answer.target for answer in drawn]
        assert [answer.scores["acc"] for answer in drawn] == [float(r) for r in right]
        fours = [any(chosen) for chosen in combinations(right, 4)]
        assert drawn[0].scores["pass_at_4"] == pytest.approx(sum(fours) / len(fours), abs=1e-12)
        assert drawn[0].scores["distinct"] == len({answer.response.strip() for answer in drawn}) / 8
        assert all(set(answer.scores) == {"acc"} for answer in drawn[1:])


def test_sampled_and_greedy_ask_the_same_items(lm, items):
    asked = [
        [(a.doc_id, a.prompt, a.target, a.cluster) for a in ask(lm, BENCHMARKS[name], items)]
        for name in ("facts", "facts_sampled")
    ]
    assert asked[0] == sorted(set(asked[1]))


def test_multiple_choice_keeps_the_choice_made(lm, items):
    answers = ask(lm, BENCHMARKS["places"], items)
    assert all(a.response for a in answers)
    assert all((a.response == a.target) == bool(a.scores["acc"]) for a in answers)


def test_two_checkpoints_never_share_an_answer(base_model, smoke_plan, items, tmp_path):
    """The same evaluator, asked about two models in turn, answers for each as a fresh one does."""
    import torch
    from transformers import AutoModelForCausalLM

    from retain_core.store import Store

    model, tokenizer = base_model
    other = AutoModelForCausalLM.from_pretrained(smoke_plan.base_path)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    store = Store(tmp_path / "artifacts")
    store.prepare()
    shared = Evaluator(store, smoke_plan.dataset, smoke_plan.base_path)
    models = [RecordingLM(model, tokenizer), RecordingLM(other.eval(), tokenizer)]
    for name in ("facts", "countdown", "places"):
        in_turn = [shared.answers(lm, BENCHMARKS[name]) for lm in (*models, models[0])]
        fresh = [Evaluator(store, smoke_plan.dataset, smoke_plan.base_path).answers(lm, BENCHMARKS[name]) for lm in models]
        assert in_turn[0] == fresh[0] == in_turn[2]
        assert in_turn[1] == fresh[1]
        assert in_turn[0] != in_turn[1]


def test_the_files_of_an_evaluation(smoke_plan):
    plan, artifact = next((p, a) for p, a in smoke_plan.base_evaluations if p.benchmark == "countdown")
    answers, scores = pq.read_table(artifact.file(ANSWERS)), pq.read_table(artifact.file(SCORES))
    assert answers.num_rows == 520
    assert set(scores["metric"].to_pylist()) == {"acc", "exact"}
    assert answers["cluster"].null_count == 0
    for row in answers.slice(0, 20).to_pylist():
        assert row["item"] == item_hash("countdown", row["prompt"], row["target"])
        assert row["prompt_hash"] == hash64(row["prompt"])
        assert row["split"] == split_of(row["item"])
    halves = answers["split"].to_pylist()
    assert 0.4 < halves.count("select") / len(halves) < 0.6
    assert artifact.meta["settings"] == plan.settings


def test_settings_tell_evaluations_apart():
    plans = [plans_of({"base": "x"}, [BENCHMARKS["facts"]], "data", threads)[0] for threads in (1, 2)]
    assert plans[0].key != plans[1].key
    assert plans_of({"base": "y"}, [BENCHMARKS["facts"]], "data", 1)[0].key != plans[0].key
