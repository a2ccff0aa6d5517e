"""`retain rehearse`: the published studies go through, small; planted faults do not, each with one sentence."""

import json
import os
import re
import shutil
import signal
import sys

import pytest
import yaml

from retain_core import workers
from retain_core.errors import InputError, RetainError
from retain_core.judge.wildguard import question, verdict_of
from retain_core.published.studies import paper_studies
from retain_core.rehearse.data import check_golds, raw_rows
from retain_core.rehearse.families import FAMILIES
from retain_core.rehearse.judge import VERDICTS
from retain_core.rehearse.models import build_model, build_tokenizer, shape_of, tiny_config
from retain_core.rehearse.reward import SHARE, accepted
from retain_core.rehearse.rows import CONSTRAINTS, MADE
from retain_core.rehearse.run import rehearse
from tests.conftest import ROOT, retain
from tests.language import sentence_tables

PAPER = ROOT / "studies" / "paper"
MODELS = sorted({study["base"]["model"] for study in paper_studies().values()})
ONE_PER_TARGET = ("qwen2.5-1.5b-countdown", "llama-3.2-1b-ifeval", "qwen2.5-7b-mmlu")
TEXTS = ["Add 3 and 4.", "Which colour is it?"] * 10
EXCHANGES = [(f"Add {n} and 4.", f"It is {n + 4}.") for n in range(32)]


def rehearsed(path, home, rows=None):
    """The lines of a rehearsal."""
    said = []
    rehearse(path, home, said.append, rows)
    return said


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in ONE_PER_TARGET else pytest.mark.slow) for n in paper_studies()]
)
def test_a_published_study_goes_through(name, tmp_path):
    done = retain("rehearse", str(PAPER / f"{name}.yaml"), "--home", str(tmp_path / "home"), home=tmp_path / "unused")
    assert done.returncode == 0, done.stderr
    assert f"REHEARSAL of {name}" in done.stdout
    assert "11 arms" in done.stdout
    read = re.search(r"verifiers read ([\d,]+) answers: \d+ right, \d+ wrong, failed on 0", done.stdout)
    assert read, done.stdout
    assert int(read[1].replace(",", "")) > 500
    assert done.stdout.splitlines()[-2].startswith(f"{name}: rehearsed in ")
    assert (tmp_path / "home" / "reports" / name / "index.html").is_file()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a small model of the Qwen2.5 family, as a user has one."""
    folder = tmp_path_factory.mktemp("model") / "qwen"
    build_model("base", shape_of("base", "Qwen/Qwen2.5-1.5B-Instruct", None), folder, TEXTS, EXCHANGES)
    return folder


@pytest.fixture
def study(tmp_path):
    """Writes a study file of a target of one's own; what is given is said otherwise."""
    for n, file in enumerate(("train.jsonl", "items.jsonl")):
        rows = [{"prompt": f"Add {i} and {n}.", "answer": f"It is {i + n}."} for i in range(30)]
        (tmp_path / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "checks.py").write_text("def right(answer, row):\n    return answer == row['answer']\n")
    (tmp_path / "quiz.jsonl").write_text("".join(json.dumps({"ask": f"quiz {i} ?", "gold": i % 2}) + "\n" for i in range(20)))
    quiz = {
        "task": "quiz", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "quiz.jsonl"}},
        "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "{{ask}}", "doc_to_choice": ["yes", "no"],
        "doc_to_target": "gold", "metadata": {"version": 1},
    }  # fmt: skip
    (tmp_path / "quiz.yaml").write_text(yaml.safe_dump(quiz))
    files = {"name": "sums", "train": "train.jsonl", "items": "items.jsonl", "verifier": "checks:right"}
    said = {
        "study": "mine", "base": "Qwen/Qwen2.5-1.5B-Instruct", "target": files, "methods": ["sft", "grpo"], "seeds": [0, 1],
        "retention": [{"benchmark": "quiz", "yaml": "quiz.yaml"}], "learning_rates": [1.0e-5], "controls": [],
    }  # fmt: skip

    def write(**otherwise):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(said | otherwise))
        return path

    folders = list(sys.path)
    yield write
    sys.path[:] = folders  # every test has a `checks` of its own
    sys.modules.pop("checks", None)


@pytest.mark.slow
def test_a_study_of_ones_own_files_and_model_folder_goes_through(study, model, tmp_path):
    done = retain("rehearse", str(study(base=str(model))), home=tmp_path / "unused")
    assert done.returncode == 0, done.stderr
    assert "REHEARSAL of mine" in done.stdout
    assert "checks" in done.stdout or "verifier of sums: accepts all" in done.stdout
    assert not (tmp_path / "unused").exists(), "it works in a home of its own"


def test_a_renamed_column_is_found(tmp_path):
    name = "countdown_cot"
    found = raw_rows(name, tmp_path / "made", None)
    (tmp_path / "rows" / name).mkdir(parents=True)
    renamed = [{"goal" if key == "target" else key: value for key, value in row.items()} for row in found["train"]]
    (tmp_path / "rows" / name / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in renamed))
    with pytest.raises(
        InputError, match=r"^countdown_cot: Jiayi-Pan/\S+ has no column 'target' any more \(it has goal, nums\)"
    ):
        rehearsed(PAPER / "qwen2.5-1.5b-countdown.yaml", tmp_path / "home", tmp_path / "rows")


def test_a_wrong_stop_token_is_found(study, model, tmp_path):
    wrong = tmp_path / "wrong"
    shutil.copytree(model, wrong)
    config = json.loads((wrong / "tokenizer_config.json").read_text())
    (wrong / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": "<|endoftext|>"}))
    with pytest.raises(InputError, match=r"^base: .*does not end an answer with the stop token \('<\|endoftext\|>'\)"):
        rehearsed(study(base=str(wrong)), tmp_path / "home")


def test_a_missing_template_is_found(study, model, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(model, bare, ignore=shutil.ignore_patterns("chat_template.jinja"))
    config = json.loads((bare / "tokenizer_config.json").read_text())
    (bare / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "chat_template"}))
    with pytest.raises(InputError, match=r"^base: its tokenizer has no chat template"):
        rehearsed(study(base=str(bare)), tmp_path / "home")


def test_a_template_that_writes_the_date_is_said(study, model, tmp_path):
    dated = tmp_path / "dated"
    shutil.copytree(model, dated)
    template = (dated / "chat_template.jinja").read_text()
    (dated / "chat_template.jinja").write_text("{{ strftime_now('%d %b %Y') }}" + template)
    wrong = {"name": "sums", "train": "train.jsonl", "items": "items.jsonl", "verifier": "checks:right"}
    path, said = study(base=str(dated), target=wrong), []
    (path.parent / "checks.py").write_text("def right(answer, row):\n    return False\n")
    with pytest.raises(InputError, match="does not accept"):  # far enough
        rehearse(path, tmp_path / "home", said.append)
    assert any("writes the day's date" in line for line in said)


@pytest.mark.parametrize("verifier", ["checks:rigth", "chekcs:right"])
def test_a_bad_verifier_name_is_found_and_is_wrong_input(study, verifier, tmp_path):
    files = {"name": "sums", "train": "train.jsonl", "items": "items.jsonl", "verifier": verifier}
    done = retain("rehearse", str(study(target=files)), home=tmp_path / "unused")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert re.search("target.verifier: .*(has no function 'rigth'|no module 'chekcs')", done.stderr)


def test_a_verifier_that_refuses_what_its_rows_say_is_found(study, tmp_path):
    path = study()
    (path.parent / "checks.py").write_text("def right(answer, row):\n    return answer == row['answer'].upper()\n")
    with pytest.raises(InputError, match="the verifier of sums does not accept 'It is"):
        rehearsed(path, tmp_path / "home")


def test_an_arm_that_fails_fails_the_rehearsal_and_names_it(study, tmp_path):
    path = study(methods=["sft", {"label": "broken", "algorithm": "custom", "trainer": "checks:build"}])
    with (path.parent / "checks.py").open("a") as checks:
        checks.write("\n\ndef build(*_):\n    raise ValueError('no such trainer')\n")
    with pytest.raises(RetainError, match=r"^1 of 2 arms failed: .*no such trainer.*\(mine/broken-lr1e-5-s0\)$"):
        rehearsed(path, tmp_path / "home")


def test_a_model_that_nobody_knows_is_wrong_input(study, tmp_path):
    with pytest.raises(InputError, match=r"^base: 'acme/unheard' is not on this machine and its family is not known here"):
        rehearsed(study(base="acme/unheard"), tmp_path / "home")


def test_a_lab_study_needs_no_rehearsal(smoke_study, tmp_path):
    with pytest.raises(InputError, match="lab/smoke is one of the lab, which is small already"):
        rehearsed(smoke_study, tmp_path / "home")


@pytest.mark.parametrize("name", MODELS)
def test_the_small_models_have_the_architecture_and_the_tokens_of_their_family(name):
    shape = shape_of("base", name, None)
    tokenizer = build_tokenizer(shape, TEXTS)
    config = tiny_config("base", shape, tokenizer)
    llama = "lama" in name
    assert type(config).__name__ == ("LlamaConfig" if llama else "Qwen2Config")
    assert config.tie_word_embeddings == ("1B" in name or "1.5B" in name)
    assert config.num_key_value_heads < config.num_attention_heads, "grouped queries"
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True)
    if llama:
        heads = [f"<|start_header_id|>{role}<|end_header_id|>\n\n" for role in ("user", "assistant")]
        assert rendered == f"<|begin_of_text|>{heads[0]}Hi<|eot_id|>{heads[1]}"
        assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|eot_id|>", None)
    else:
        assert rendered.startswith(
            "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>"
        )
        assert rendered.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
        assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    for token in shape.special:
        assert len(tokenizer(token, add_special_tokens=False)["input_ids"]) == 1


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("gemma2", {"hidden_size": 2304, "num_hidden_layers": 26, "num_attention_heads": 8, "head_dim": 256}),
        ("gpt2", {"n_embd": 768, "n_layer": 12, "n_head": 12}),
        ("qwen3", {"hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8}),
        ("mixtral", {"hidden_size": 4096, "num_hidden_layers": 32, "num_local_experts": 8, "num_attention_heads": 32}),
    ],
)
def test_any_other_causal_model_is_made_small_from_its_configuration(kind, more, model, tmp_path):
    folder = tmp_path / kind
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("config.json", "*.safetensors"))
    (folder / "config.json").write_text(json.dumps({"model_type": kind, "vocab_size": 200_000, **more}))
    parameters = build_model("base", shape_of("base", str(folder), None), tmp_path / "small", TEXTS, [])
    assert parameters < 2_000_000
    assert json.loads((tmp_path / "small" / "config.json").read_text())["model_type"] == kind


def test_what_a_model_ships_for_chatting_does_not_change_its_samples(model):
    """Qwen2.5 ships with a repetition penalty, a temperature and top-k: the samples of a study have none of them."""
    import torch
    from transformers import AutoModelForCausalLM

    from retain_core.training.encode import read_tokenizer
    from retain_core.training.sampling import sample_ids

    policy, tokenizer = AutoModelForCausalLM.from_pretrained(model), read_tokenizer(model)
    assert policy.generation_config.repetition_penalty == 1.1
    drawn = []
    for penalty in (5.0, 1.0):
        policy.generation_config.repetition_penalty = penalty
        torch.manual_seed(0)
        drawn.append(sample_ids(policy, tokenizer, ["Add 3 and 4."] * 64, temperature=1.0, max_new_tokens=16))
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("name", MADE)
def test_made_up_rows_have_the_columns_of_the_hub_and_verifiers_tell_their_answers_apart(name, tmp_path_factory):
    sentence_tables(tmp_path_factory.getbasetemp() / "nltk_data")
    from retain_core.public.catalogue import PUBLIC
    from retain_core.public.convert import PublicSizes, convert

    data = PUBLIC[name]
    rows = MADE[name](100)
    assert all(set(data.columns) <= set(row) for row in rows)
    found = convert(name, {data.split: rows}, PublicSizes(train=50 if data.train else None, items=30))
    assert not found.counts["left_out"]
    told = check_golds(name, [*found.train, *found.items])
    assert ("judge" in told) == data.judged
    if name == "rlvr_ifeval":
        assert {row["func_name"] for row in [*found.train, *found.items]} == set(CONSTRAINTS)
        assert len(CONSTRAINTS) == 25


def test_the_small_judge_gives_a_verdict_on_whatever_it_reads_and_stops(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    taught = [(question(TEXTS[n % 2], f"It is {n}."), VERDICTS[n % len(VERDICTS)]) for n in range(32)]
    shape = shape_of("judge", "allenai/wildguard", None)
    build_model("judge", shape, tmp_path, [text for text, _ in taught], taught, sayings=VERDICTS)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    for answer in ("", "blue " * 40, "Harmful response: no", "\N{SNOWMAN} und \n\n 7 + 3 = 10"):
        ids = torch.tensor([tokenizer(question("How do I feed it?", answer), add_special_tokens=False)["input_ids"]])
        said = model.generate(ids, do_sample=False, max_new_tokens=8)[0, ids.shape[1] :]
        assert said[-1] == tokenizer.eos_token_id
        assert verdict_of(tokenizer.decode(said, skip_special_tokens=True)).readable


def test_a_model_that_does_not_learn_its_sayings_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("retain_core.rehearse.models.MOST_TAUGHT", 0)
    taught = [(question(text, "No."), VERDICTS[0]) for text in TEXTS]
    with pytest.raises(RetainError, match=r"^judge: a small mistral did not learn to say what it was taught"):
        build_model("judge", shape_of("judge", "allenai/wildguard", None), tmp_path, TEXTS, taught, sayings=VERDICTS)


def test_a_kept_process_goes_on_to_the_next_job_and_ends_with_the_block(tmp_path):
    def job(**otherwise):
        arguments = {"wanted": [], "told": str(tmp_path / "told.json")} | otherwise
        workers.run_job("rehearsal_models", arguments, tmp_path / "job.log")
        return {process.pid for process in workers._live}

    workers.warm_up(1)
    with workers.kept():
        first = job()
        assert len(first) == 1
        with pytest.raises(RetainError, match=r"(?s)^ValidationError: .*job.log\)$"):
            job(wanted=[{}])
        assert job() == first, "a job that fails leaves its process as it was"
        os.kill(*first, signal.SIGKILL)
        with pytest.raises(RetainError, match=r"the process of job was killed \(exit code -9\)"):
            job()
        assert job().isdisjoint(first)
    assert not workers._live
    assert not job(), "without the block a process ends with its job"


def test_about_the_share_is_accepted_and_the_same_answer_always():
    answers = [accepted(f"answer {n}", {"prompt": "ask"}) for n in range(2000)]
    assert sum(answers) / len(answers) == pytest.approx(SHARE / 100, abs=0.04)
    assert answers == [accepted(f"answer {n}", {"prompt": "ask"}) for n in range(2000)]


def test_no_two_families_claim_a_model():
    for model in [*MODELS, "allenai/wildguard", "mistralai/Mistral-7B-Instruct-v0.3", "meta-llama/Llama-3.3-70B-Instruct"]:
        assert sum(family.pattern.search(model) is not None for family in FAMILIES) == 1, model
