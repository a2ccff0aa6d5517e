"""What a study brings of its own: bad files are refused in one sentence, keys follow the content and nothing else."""

import json
import shutil

import pytest

from retain_core.analysis.bases import _family as family
from retain_core.arms import TEMPLATE_VERSION
from retain_core.errors import InputError, RetainError
from retain_core.lab.dataset import LAB_VERSION
from retain_core.own.files import locate, module_file, seal
from retain_core.own.rows import read_rows
from retain_core.plan import plan_study
from retain_core.revisions import declare, revisions_of
from retain_core.store import Store
from retain_core.study import Study
from retain_core.study_file import load_study
from tests.conftest import ROOT

EXAMPLE = ROOT / "examples" / "own_method"


@pytest.fixture
def example(tmp_path):
    """A copy of the example that a test may spoil."""
    copy = tmp_path / "mine"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def edit(folder, file, old, new):
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))


def refused(folder):
    with pytest.raises(InputError) as caught:
        load_study(folder / "study.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def keys(study):
    """arm -> key, benchmark -> keys of the base's evaluation."""
    plan = plan_study(study, Store(ROOT / "nowhere"))
    arms = {arm.spec.method: arm.spec.key for arm in plan.arms}
    return arms, {p.benchmark: p.key for p, _ in plan.base_evaluations}


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("study.yaml", "verifier:right", "verifyer:right", "target.verifier: there is no module 'verifyer' in "),
        ("study.yaml", "verifier:right", "verifier:wright", "verifier.py has no function 'wright'"),
        ("study.yaml", '"verifier:right"', "verifier", "'verifier' is no entry point in the group retain.verifiers"),
        ("study.yaml", "verifier:right", "verifier.py:right()", "does not read `module:function`"),
        ("study.yaml", "method:build", "methods:build", "method best_of_4: there is no module 'methods'"),
        ("study.yaml", "train: train.jsonl", "train: gone.jsonl", "cannot read "),
        ("study.yaml", "train: train.jsonl, ", "", "study.yaml:4: target.train: field required"),
        ("study.yaml", "train: train", "tran: t, train: train", "target.tran: unknown key 'tran'; did you mean 'train'?"),
        ("study.yaml", "name: another_color", "name: addition", "addition is a benchmark of the lab"),
        ("study.yaml", "[learning_rate_0]", "[style_placebo]", "control style_placebo needs a target of the lab"),
        ("study.yaml", "- sft ", "- sft_in_style ", "expert in_style needs a target of the lab"),
        ("study.yaml", "- sft ", "- {label: s, algorithm: sft, replay: 0.5} ", "s: replay needs text to retain"),
        ("study.yaml", "- sft ", "- {label: s, algorithm: grpo, kl: 1, kl_prompts: retention} ", "needs text to retain"),
        ("study.yaml", "- sft ", "- {label: s, algorithm: sft, prompts: frozen} ", "yaml:9: methods.0.prompts: prompts frozen"),
        (
            "study.yaml",
            "- sft ",
            "- {label: s, algorithm: sft, solution: canonical} ",
            "methods.0.solution: solution canonical needs",
        ),
        ("study.yaml", "base:", "own: {}\nbase:", "study.yaml:3: own: unknown key 'own'"),
        ("study.yaml", "base:", "target_files: {}\nbase:", "target_files: unknown key 'target_files'"),
        ("study.yaml", ', trainer: "method:build"', "", "custom needs `trainer:`"),
        ("study.yaml", "tries: 4}", "tries: 4}, lora_rank: 2", "custom has no dial 'lora_rank'"),
        ("study.yaml", "metric: acc", "metric: f1", "manners.yaml: has no metric 'f1'; it has acc"),
        ("study.yaml", "yaml: manners.yaml", "yaml: gone.yaml", "cannot read "),
        ("study.yaml", "benchmark: manners", "benchmark: facts", "facts is a benchmark of the lab"),
        ("study.yaml", ", yaml: manners.yaml", "", "belong to a benchmark of your own"),
        ("manners.yaml", "metadata: {version: 1}", "", "manners.yaml: `metadata: {version: 1}` is missing"),
        ("manners.yaml", "task: manners", "", "manners.yaml: `task: <name>` is missing"),
        ("manners.yaml", "task: manners", "group: manners\ntask: [a, b]", "not a group"),
        ("manners.yaml", "test_split: test", "", "neither `test_split` nor `validation_split`"),
        ("manners.yaml", "multiple_choice", "loglikelihood", "output_type loglikelihood is not supported"),
        ("manners.yaml", "multiple_choice", "generate_until\ngeneration_kwargs: {do_sample: true}", "are greedy"),
        ("manners.yaml", "gold", "!function helpers.gold", "there is no helpers.py beside it"),
        ("manners.yaml", "task: manners", "task: [manners", "manners.yaml:"),
        ("manners.yaml", "test: manners.jsonl", "test: [manners.jsonl, 'more/*.jsonl']", "'more/*.jsonl' is a pattern"),
        ("manners.yaml", "higher_is_better: true", "higher_is_better: false", "higher_is_better: false"),
        ("train.jsonl", '{"prompt"', '"prompt"', "train.jsonl:1: not valid JSON"),
        ("train.jsonl", '"prompt"', '"promt"', "train.jsonl:1: `prompt` must be a text"),
        ("train.jsonl", '"answer"', '"anwser"', "train.jsonl:1: `answer` is missing, which sft imitates"),
        ("held_out.jsonl", '"valid"', '"vlid"', "held_out.jsonl:1: `valid` is missing, but line 2 has it"),
        ("held_out.jsonl", '"valid": [', '"valid": ["x", "x", ', "held_out.jsonl:1: `valid` lists an answer twice"),
        ("held_out.jsonl", '"valid": [', '"valid": [3, ', "held_out.jsonl:1: `valid` must be a list of texts"),
        ("verifier.py", "def right(answer", "def right(answer answer", "verifier.py:6: not valid Python"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(example, file, old, new, words):
    edit(example, file, old, new)
    assert words in refused(example)


def test_a_prompt_is_trained_on_or_held_out(example):
    first = (example / "train.jsonl").read_text().splitlines()[0]
    held_out = example / "held_out.jsonl"
    held_out.write_text(f"{held_out.read_text()}\n{first}\n")
    assert f"train.jsonl:1: this prompt is a held-out item, line 150 of {held_out}" in refused(example)
    (example / "held_out.jsonl").write_text(held_out.read_text().replace(first, ""))
    (example / "train.jsonl").write_text(f"{first}\n{first}\n")
    assert "train.jsonl:2: the prompt of line 1 again" in refused(example)


def test_text_to_retain_has_answers_and_no_held_out_prompt(example):
    edit(example, "study.yaml", "train: train", "retention: text.jsonl, train: train")
    text = example / "text.jsonl"
    text.write_text('{"prompt": "x"}\n')
    assert "text.jsonl:1: `answer` is missing" in refused(example)
    text.write_text('{"prompt": "x", "answer": "y"}\n' + (example / "held_out.jsonl").read_text())
    assert "text.jsonl:2: this prompt is a held-out item" in refused(example)
    text.write_text('{"prompt": "x", "answer": "y"}\n')
    edit(example, "study.yaml", "- sft ", "- {label: s, algorithm: sft, replay: 0.5} ")
    assert load_study(example / "study.yaml").own.target.retention


def test_without_answers_the_length_must_be_said(example):
    edit(example, "study.yaml", "- sft ", "- grpo ")
    for name in ("train", "held_out"):
        rows = [json.loads(line) for line in (example / f"{name}.jsonl").read_text().splitlines()]
        bare = [{k: v for k, v in row.items() if k not in ("answer", "valid")} for row in rows]
        (example / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bare))
    assert "say how many tokens to sample, such as `longest_answer: 16`" in refused(example)


def test_a_data_set_of_the_hub_may_name_its_files_by_a_pattern(example):
    edit(example, "manners.yaml", "dataset_path: json", "dataset_path: someone/manners")
    edit(example, "manners.yaml", "test: manners.jsonl", "test: 'test-*.jsonl'")
    assert load_study(example / "study.yaml")


def test_without_answers_learning_rate_0_imitates_nothing(example):
    rows = [json.loads(line) for line in (example / "train.jsonl").read_text().splitlines()]
    rows[0].pop("answer")
    (example / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    edit(example, "study.yaml", "- sft ", "- grpo ")
    study = load_study(example / "study.yaml")
    for read in (study, Study.model_validate_json(study.model_dump_json())):
        arms = {arm.spec.method: arm.spec for arm in plan_study(read, Store(ROOT / "nowhere")).arms}
        zero = arms["learning_rate_0"]
        assert (zero.config["algorithm"], zero.learning_rate, zero.seed) == ("grpo", 0.0, 0)


def test_keys_follow_content(example, tmp_path):
    first = load_study(example / "study.yaml")
    arms, evaluations = keys(first)
    moved = tmp_path / "elsewhere"
    shutil.copytree(example, moved)
    again = load_study(moved / "study.yaml")
    assert keys(again) == (arms, evaluations)
    assert again.spec_hash() == first.spec_hash()
    touched = {
        ("verifier.py", "COLORS and", "COLORS  and"): ({"sft", "best_of_4", "learning_rate_0"}, {"another_color"}),
        ("method.py", "draw.choice", "draw .choice"): ({"best_of_4"}, set()),
        ("study.yaml", "tries: 4", "tries: 5"): ({"best_of_4"}, set()),
        ("manners.jsonl", "steal", "rob"): (set(), {"manners"}),
        ("manners.yaml", "version: 1", "version: 2"): (set(), {"manners"}),
    }
    for change, (changed_arms, changed_benchmarks) in touched.items():
        shutil.rmtree(moved)
        shutil.copytree(example, moved)
        edit(moved, *change)
        study = load_study(moved / "study.yaml")
        now_arms, now_evaluations = keys(study)
        assert {name for name in arms if now_arms[name] != arms[name]} == changed_arms, change
        assert {name for name in evaluations if now_evaluations[name] != evaluations[name]} == changed_benchmarks, change
        assert study.spec_hash() != first.spec_hash(), change


def test_a_stored_study_needs_no_files_to_be_planned(example):
    study = load_study(example / "study.yaml")
    stored = Study.model_validate_json(study.model_dump_json())
    shutil.rmtree(example)
    assert stored == study
    assert keys(stored) == keys(study)


def test_a_study_that_moved_is_found_where_it_lies_now(example, tmp_path):
    store = Store(tmp_path / "artifacts")
    store.prepare()
    (first,) = declare(store, load_study(example / "study.yaml"))
    moved = example.rename(tmp_path / "elsewhere")
    (now,) = declare(store, load_study(moved / "study.yaml"))
    assert (now.number, now.declared_at, now.spec_hash) == (1, first.declared_at, first.spec_hash)
    (kept,) = revisions_of(store, "own_method")
    assert Study.model_validate(kept.spec).own.target.train.checked() == moved / "train.jsonl"
    assert family(first.spec) == family(now.spec)
    edit(moved, "verifier.py", "COLORS and", "COLORS  and")
    assert family(load_study(moved / "study.yaml").model_dump(mode="json")) != family(now.spec)


def test_a_file_that_changes_after_reading_is_not_used(example):
    own = load_study(example / "study.yaml").own
    edit(example, "verifier.py", "COLORS and", "COLORS or")
    with pytest.raises(RetainError, match=r"verifier\.py has changed since the study was read"):
        own.target.verifier.load()


def test_a_lab_study_has_the_keys_that_it_had():
    """Files of one's own are an addition: what a lab arm and its evaluations depend on is spelled as before."""
    plan = plan_study(load_study(ROOT / "studies" / "smoke.yaml"), Store(ROOT / "nowhere"))
    inputs = plan.arms[0].spec.inputs()
    assert set(inputs) == {
        "arm", "base", "world", "target", "learning_rate", "seed", "updates", "sequences_per_update", "steps", "threads",
        "training_version", "platform", "versions",
    }  # fmt: skip
    folder = plan.arms[0].spec.base.model_copy(update={"lab": None, "chat_template": "another"})
    added = {"lab_version": LAB_VERSION, "template_version": TEMPLATE_VERSION}
    assert plan.arms[0].spec.model_copy(update={"base": folder}).inputs() == inputs | added
    settings = plan.base_evaluations[0][0].settings
    assert "template_version" not in settings
    assert settings["items"] == f"{plan.dataset_key}/countdown"
    assert settings["decoding"] == "greedy, 16 new tokens"
    assert "own" not in plan.divergence_settings.inputs()


def test_covered_files_of_a_yaml(tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / "data" / name).write_text('{"q": "x", "a": "y"}\n')
    (tmp_path / "common.yaml").write_text("output_type: generate_until\nprocess_results: !function scoring.score\n")
    (tmp_path / "scoring.py").write_text("def score(doc, results): return {'acc': 1}\n")
    (tmp_path / "it.yaml").write_text(
        "include: common.yaml\ntask: it\ndataset_path: json\n"
        "dataset_kwargs: {data_files: {test: [data/a.jsonl, data/b.jsonl]}}\n"
        "test_split: test\ndoc_to_text: q\ndoc_to_target: a\nmetric_list: [{metric: acc}]\nmetadata: {version: 1}\n"
    )
    from retain_core.own.benchmark import seal_benchmark

    found = seal_benchmark(tmp_path / "it.yaml", None, None, None)
    names = [name.removeprefix(f"{tmp_path}/") for name in found.yaml.files]
    assert names == ["it.yaml", "common.yaml", "scoring.py", "data/a.jsonl", "data/b.jsonl"]


def test_code_is_found_without_being_imported(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "loud.py").write_text("raise RuntimeError('imported')\ndef right(answer, row): return True\n")
    code = locate("x", "package.loud:right", tmp_path, "retain.verifiers")
    assert (code.module, code.folder) == ("package.loud", str(tmp_path))
    with pytest.raises(RetainError, match="raised RuntimeError: imported"):
        code.load()
    assert locate("x", "json.tool:main", tmp_path, "retain.verifiers").folder is None
    assert module_file("json.nothing", None) is None


def test_a_module_that_an_installed_one_hides_is_refused(tmp_path):
    (tmp_path / "yaml.py").write_text("def right(answer, row): return True\n")
    with pytest.raises(RetainError, match="which hides"):
        locate("x", "yaml:right", tmp_path, "retain.verifiers").load()


def test_blank_lines_are_no_rows_and_content_is_not_the_name(tmp_path):
    (tmp_path / "a.jsonl").write_text('\n{"prompt": "x\u2028y"}\n\n')
    shutil.copy(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert read_rows(tmp_path / "a.jsonl") == [(2, {"prompt": "x\u2028y"})]
    assert seal([tmp_path / "a.jsonl"]).content == seal([tmp_path / "b.jsonl"]).content
