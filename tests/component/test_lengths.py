"""Rows that are too long for the base or the study: counted and refused before anything runs, or left out and counted."""

import json
import shutil

import duckdb
import pytest

from retain_core.cards import CARDS, Demand, card_lines, refuse_too_small
from retain_core.errors import InputError, RetainError
from retain_core.evaluation.size import EvaluationSize
from retain_core.own.items import prepare_items, read_items
from retain_core.plan import plan_study
from retain_core.store import Store
from retain_core.study_file import load_study
from retain_core.training.encode import encode_prompts, read_tokenizer
from retain_core.training.memory import Shape, evaluation_peak
from retain_core.training.size import TrainingSize
from tests.conftest import run_plain
from tests.tiny import write_tiny

QWEN = Shape(1536, 28, 1536, 256, 8960, 151_936, tied=True, biases=True)
STUDY = """
study: long
base: {base}
target: {{name: echo, train: train.jsonl, items: items.jsonl, verifier: "verify:right", longest_answer: 12}}
retention: [{retention}]
methods: [sft]
controls: [learning_rate_0]
learning_rates: [1.0e-3]
seeds: [0]
budget: {{updates: 2, sequences_per_update: 16}}
checkpoints: 1
{more}
"""
REQUESTS = "{benchmark: asked, requests: requests.jsonl, longest_answer: 20}"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("models") / "base", ["say a word", "a word"], positions=128)


@pytest.fixture
def rows():
    """Part -> rows of its file, 40 each; a long one takes more than the base reads."""
    short = {part: [{"prompt": f"{part} {i}", "answer": f"word {i}"} for i in range(40)] for part in ("train", "items")}
    short["requests"] = [{"prompt": f"ask {i}", "harmful": bool(i % 2)} for i in range(40)]
    return short


@pytest.fixture
def load(tmp_path, models, rows):
    """Reads the study with these rows."""

    def read(more="", retention="sorting"):
        base = shutil.copytree(models, tmp_path / "base", dirs_exist_ok=True)
        (tmp_path / "verify.py").write_text("def right(answer, row):\n    return answer == row.get('answer')\n")
        for part, found in rows.items():
            (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
        (tmp_path / "study.yaml").write_text(STUDY.format(base=base, retention=retention, more=more))
        return load_study(tmp_path / "study.yaml")

    return read


def tokens(folder, prompt):
    (ids,) = encode_prompts(read_tokenizer(folder), [prompt])
    return len(ids)


@pytest.mark.parametrize("part", ["train", "items", "requests"])
def test_long_rows_are_counted_refused_and_left_out_where_the_study_says_so(load, rows, models, part):
    more, retention = ("\njudge: {model: " + str(models) + "}", REQUESTS) if part == "requests" else ("", "sorting")
    for place, length in ((3, 130), (7, 200), (20, 160)):
        rows[part][place]["prompt"] = f"{place} " + "x y " * length
    room = 20 if part == "requests" else 12
    most = tokens(models, rows[part][7]["prompt"]) + room
    with pytest.raises(InputError) as caught:
        load(more, retention)
    said = str(caught.value)
    assert (
        f"{part}.jsonl:8: 3 of 40 rows take more tokens with the answer than are allowed, this one the most, {most:,}" in said
    )
    assert (
        "the base reads 128; set a smaller `longest_answer`, shorten them or leave them out with `data: {bad_rows: 0.075}`"
        in said
    )
    with pytest.raises(InputError, match="3 of 40 rows take more"):
        load("data: {bad_rows: 0.05}" + more, retention)
    study = load("data: {bad_rows: 0.075}" + more, retention)
    name = "asked" if part == "requests" else part
    assert [(where, row.line) for where, _, row in study.own.left_out()] == [(name, 4), (name, 8), (name, 21)]
    assert study.own.left_out()[1][2].reason == f"takes {most} tokens with its answer, and 128 are allowed"
    assert "3 bad rows left out, the first is line 4" in "\n".join(study.own.notes())


def test_the_limit_of_a_study_is_to_the_token(load, rows, models):
    rows["train"][5]["prompt"] = "x y z " * 15
    exactly = tokens(models, rows["train"][5]["prompt"]) + 12
    assert 60 < exactly < 128
    assert load(f"data: {{max_length: {exactly}}}").own.left_out() == []
    with pytest.raises(
        InputError, match=rf"train.jsonl:6: 1 of 40 rows takes .* {exactly}: `data: {{max_length: {exactly - 1}}}`"
    ):
        load(f"data: {{max_length: {exactly - 1}}}")
    study = load(f"data: {{max_length: {exactly - 1}, bad_rows: 0.1}}")
    assert [row.line for _, _, row in study.own.left_out()] == [6]
    whole = load()
    assert study.own.target.training_identity() != whole.own.target.training_identity(), "other rows, other arms"
    assert study.own.target.evaluation_identity() == whole.own.target.evaluation_identity()
    assert load("data: {max_length: 100000}").own.target.content("train") == whole.own.target.content("train")


def test_an_answer_counts_where_it_is_longer_than_what_is_sampled(load, rows):
    rows["train"][2]["answer"] = "x y z " * 60
    with pytest.raises(InputError, match=r"train.jsonl:3: 1 of 40 rows takes"):
        load()


def test_malformed_and_long_rows_share_the_tolerance(load, rows):
    rows["train"][2]["prompt"], rows["train"][3]["prompt"] = "", "x y " * 200
    with pytest.raises(InputError, match=r"train.jsonl:4: 1 of 40 rows takes .*bad_rows: 0.05"):
        load("data: {bad_rows: 0.025}")
    assert [row.line for _, _, row in load("data: {bad_rows: 0.05}").own.left_out()] == [3, 4]


def test_rows_of_the_lab_have_no_such_limit(load, tmp_path):
    load()
    text = (tmp_path / "study.yaml").read_text().replace(str(tmp_path / "base"), "lab/smoke")
    (tmp_path / "study.yaml").write_text(text + "data: {max_length: 50}\n")
    with pytest.raises(InputError, match=r"data\.max_length is for a base that is none of the lab's"):
        load_study(tmp_path / "study.yaml")


@pytest.mark.slow
def test_what_is_left_out_is_not_trained_on_not_asked_and_stands_in_the_warehouse(load, rows, tmp_path):
    rows["train"][3]["prompt"], rows["items"][9]["prompt"] = "x y " * 200, "y x " * 200
    study = load("data: {bad_rows: 0.1}")
    assert "x y " * 200 not in [row["prompt"] for _, row in study.own.target.rows("train")]
    store = Store(tmp_path / "artifacts")
    store.prepare()
    prepare_items(store, study.benchmarks()[:1])
    assert len(read_items(store, study.benchmarks()[0])) == 39
    assert run_plain(tmp_path / "study.yaml", tmp_path / "home") == {}
    with duckdb.connect(str(tmp_path / "home" / "warehouse.duckdb"), read_only=True) as con:
        assert con.execute("SELECT part, line FROM left_out ORDER BY ALL").fetchall() == [("items", 10), ("train", 4)]
        assert con.execute("SELECT DISTINCT n FROM evaluations WHERE benchmark = 'echo'").fetchall() == [(39,)]


def test_answers_of_an_expert_that_are_too_long_are_left_out_too(load, rows, tmp_path):
    from retain_core.own.files import seal
    from retain_core.own.lengths import without_long
    from retain_core.own.target import FileTarget

    study = load()
    answers = [{"prompt": row["prompt"], "answer": "x y z " * (60 if i == 4 else 1)} for i, row in enumerate(rows["train"])]
    (tmp_path / "off_style.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    target = study.own.target.model_copy(update={"experts": {"off_style": seal([tmp_path / "off_style.jsonl"])}})
    own = study.own.model_copy(update={"target": target})
    with pytest.raises(InputError, match=r"off_style.jsonl:5: 1 of 40 rows takes"):
        without_long(study, own)
    tolerant = study.model_copy(update={"data": study.data.model_copy(update={"bad_rows": 0.05})})
    found = without_long(tolerant, own)
    assert [(part, row.line) for part, _, row in found.left_out()] == [("off_style", 5)]
    assert found.content() != own.content()
    said = FileTarget(found.target, read_tokenizer(tmp_path / "base")).expert({}, seed=0, count=39)
    assert len({prompt for prompt, _ in said}) == 39
    assert rows["train"][4]["prompt"] not in [prompt for prompt, _ in said]


def test_one_item_is_no_benchmark(load, rows, tmp_path):
    rows["items"] = rows["items"][:1]
    store = Store(tmp_path / "artifacts")
    store.prepare()
    with pytest.raises(RetainError, match="echo has 1 item, and a drop is a mean over items: give it more"):
        prepare_items(store, load().benchmarks()[:1])


# The memory of an evaluation


def arms(study, tmp_path):
    return tuple({arm.spec.method: arm.spec for arm in plan_study(study, Store(tmp_path / "artifacts")).arms}.values())


def test_the_plan_counts_what_an_evaluation_takes(load, tmp_path):
    def line(size):
        some = [spec.model_copy(update={"evaluation": size}) for spec in arms(load(), tmp_path)]
        demand = Demand(QWEN, 3500, tuple(some))
        return demand, card_lines(demand)[-1]

    half, told = line(EvaluationSize(dtype="bfloat16", batch_tokens=60_000))
    assert "evaluation in bfloat16, passes of up to 60,000 tokens" in told
    assert 2 * 2 * QWEN.parameters < half.evaluation < 20e9
    assert "too much for" not in told
    whole, told = line(EvaluationSize(batch_tokens=120_000))
    assert whole.evaluation > 2 * half.evaluation - 10e9
    assert f"too much for {CARDS[0].name} (`evaluation: {{dtype: bfloat16}}` or `evaluation: {{batch_tokens: 30000}}`)" in told
    unlimited, _ = line(EvaluationSize())
    assert unlimited.evaluation > CARDS[-1].memory, "400 rows of 3,500 tokens with 150,000 logits each"
    with pytest.raises(
        InputError, match=r"evaluation takes about \d+ GB and the accelerator here has 24: set `evaluation: {dtype"
    ):
        refuse_too_small(whole, [], CARDS[0].memory)
    refuse_too_small(half, [TrainingSize(micro_batch=1, activation_checkpointing=True)], 10**12)


def test_more_tokens_or_more_bits_take_more_memory():
    tokens = (1000, 10_000, 100_000)
    half, whole = (
        [evaluation_peak(QWEN, EvaluationSize(dtype=dtype, batch_tokens=most), 3500) for most in tokens]
        for dtype in ("bfloat16", "float32")
    )
    for peaks in (half, whole):
        assert peaks == sorted(set(peaks))
    assert all(more > 1.4 * less for less, more in zip(half, whole, strict=True))


def test_a_base_held_in_bf16_takes_half(load, tmp_path):
    from retain_core.cards import peak

    (spec, *_) = arms(load(), tmp_path)
    penalised = spec.model_copy(update={"config": {**spec.config, "kl": 0.1}})
    sizes = [TrainingSize(micro_batch=1, activation_checkpointing=True, frozen=frozen) for frozen in ("fp32", "bf16")]
    whole, half = (peak(QWEN, size, 1024, penalised) for size in sizes)
    assert whole - half == 2 * QWEN.parameters
    assert peak(QWEN, sizes[0], 1024, spec) == peak(QWEN, sizes[1], 1024, spec), "no base, no difference"
