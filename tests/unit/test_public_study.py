"""Studies that name public data: what they may say, where the data are looked for, and what they are told apart by."""

import json

import pytest
import yaml

from retain_core import settings as settings_module
from retain_core.errors import InputError
from retain_core.judge.benchmark import items_of
from retain_core.public.catalogue import PUBLIC
from retain_core.public.convert import PublicSizes
from retain_core.public.folder import counts_lines, folder_of, is_there, read_counts, write_public
from retain_core.study import Study
from retain_core.study_file import load_study, read_study
from tests.conftest import ROOT
from tests.language import sentence_tables
from tests.public import raw_rows

TEXT = """
study: small                  # a comment
base: lab/smoke
target: countdown_cot
retention: [rlvr_ifeval, {benchmark: mmlu_cot, near: true}, math_cot, wildjailbreak, wildguardtest, facts]
methods: [grpo, self_sft]
controls: [learning_rate_0]
learning_rates: [1.0e-3]
seeds: [0]
judge: {model: allenai/wildguard}
data:
  longest_answer: 8
  sizes:
    countdown_cot: {train: 12, items: 6}
    rlvr_ifeval: {train: 12, items: 6}
    mmlu_cot: {train: 12}
    math_cot: {items: 6}
"""
NAMES = list(PUBLIC)


@pytest.fixture(scope="module", autouse=True)
def tables(tmp_path_factory):
    sentence_tables(tmp_path_factory.mktemp("nltk_data"))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RETAIN_HOME", str(tmp_path / "home"))
    settings_module.settings.cache_clear()
    yield tmp_path / "home"
    settings_module.settings.cache_clear()


def study_file(folder, text=TEXT):
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def fill(home, study_path):
    """Write the folders that a study asks for."""
    study = read_study(study_path, fetched=False)
    data = study.study(study.raw).data
    for name in NAMES:
        write_public(home, name, raw_rows(name, 40), data.revisions.get(name), data.sizes.get(name), commit="c0ffee")


def test_without_its_data_a_study_is_one_sentence_and_with_them_it_has_all_benchmarks(tmp_path, home):
    path = study_file(tmp_path)
    with pytest.raises(
        InputError, match=r"^countdown_cot: Jiayi-Pan/Countdown-Tasks-3to4 is not in .*`retain prefetch STUDY.yaml`"
    ):
        load_study(path)
    fill(home, path)
    study = load_study(path)
    named = {b.name: b for b in study.benchmarks()}
    assert list(named) == ["countdown_cot", *NAMES[1:], "facts"]
    assert named["mmlu_cot"].choices == 4
    assert named["countdown_cot"].metrics == ("acc", "lenient")
    assert study.own.target.longest_answer == 8
    assert [m.label for m in study.all_methods()] == ["grpo", "self_sft", "learning_rate_0"]
    assert study.all_methods()[-1].algorithm == "grpo"  # nothing to imitate
    assert len(study.own.target.rows("train")) == 12
    assert Study.model_validate(json.loads(study.model_dump_json())) == study


def test_every_count_is_said(tmp_path, home):
    path = study_file(tmp_path)
    fill(home, path)
    lines = load_study(path).own.public_lines()
    assert len(lines) == 6
    assert lines[0] == (
        "countdown_cot: 12 training prompts and 6 items of 40 rows of Jiayi-Pan/Countdown-Tasks-3to4; "
        "commit c0ffee (not pinned); 22 not needed; the published study: 10,000 and 1,000"
    )
    assert "2 left out because its prompt has no label" in lines[-1]
    assert lines[2].startswith("mmlu_cot: 12 training prompts and 28 items of 40 rows of cais/mmlu")


def test_a_study_is_told_apart_by_the_rows_and_not_by_where_they_lie(tmp_path, home, monkeypatch):
    path = study_file(tmp_path)
    fill(home, path)
    before = load_study(path)
    monkeypatch.setenv("RETAIN_HOME", str(tmp_path / "other"))
    settings_module.settings.cache_clear()
    fill(tmp_path / "other", path)
    assert load_study(path).spec_hash() == before.spec_hash()
    write_public(tmp_path / "other", "math_cot", raw_rows("math_cot", 40)
                 | {"test": raw_rows("math_cot", 50)["test"][10:]}, None, PublicSizes(items=6))  # fmt: skip
    assert load_study(path).spec_hash() != before.spec_hash()


def test_a_revision_and_a_size_have_a_folder_of_their_own(tmp_path):
    small, pinned = folder_of(tmp_path, "math_cot", None, PublicSizes(items=6)), folder_of(tmp_path, "math_cot", "a" * 40)
    assert len({small, pinned, folder_of(tmp_path, "math_cot", None)}) == 3
    write_public(tmp_path, "math_cot", raw_rows("math_cot", 40), None, PublicSizes(items=6))
    assert is_there(small)
    assert not is_there(pinned)
    assert sorted(p.name for p in small.iterdir()) == ["counts.json", "items.jsonl"]
    assert len(counts_lines(read_counts(small))) == 1
    with pytest.raises(InputError):
        write_public(tmp_path, "math_cot", raw_rows("math_cot", 4), None, PublicSizes(items=6))
    assert is_there(small)  # what was there stays where the new rows are refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target": "math_cot"}, "target: math_cot is only evaluated; public targets are countdown_cot, rlvr_ifeval, mmlu_cot"),
        ({"retention": ["countdown_cot"]}, "countdown_cot is a target; it cannot be a retention benchmark too"),
        ({"retention": [{"benchmark": "math_cot", "metric": "bleu"}]}, "unknown metric of math_cot 'bleu'"),
        ({"retention": ["math_cott"]}, "unknown benchmark 'math_cott'; did you mean 'math_cot'?"),
        ({"data": {"sizes": {"math": {"items": 1}}}}, "unknown public data set 'math'; did you mean"),
        ({"data": {"sizes": {"math_cot": {"items": 0}}}}, "greater than or equal to 1"),
        ({"data": {"revisions": {"math_cot": "../../x"}}}, "'../../x' is no revision of the hub"),
        ({"controls": ["planted_harm"]}, "control planted_harm needs a target of the lab"),
        ({"then": ["countdown"]}, "a sequence (`then`) is one of targets of the lab, and countdown_cot is public data"),
        ({"methods": ["lowest_kl"]}, "expert lowest_kl is not to be had on countdown_cot"),
        ({"methods": [{"label": "a", "algorithm": "self_sft", "replay": 0.1}]}, "replay needs text to retain"),
        ({"methods": [{"label": "a", "algorithm": "grpo", "prompts": "frozen"}]}, "prompts frozen needs a target of the lab"),
        (
            {"retention": [{"benchmark": "math_cot", "yaml": "x.yaml"}]},
            "math_cot is a public data set; give yours another name",
        ),
        (
            {"methods": ["sft"]},
            "sft imitates the answers of a stronger model to countdown_cot, which are not there; fetch them",
        ),
        ({"methods": ["sft_in_style"]}, "--expert-model NAME --in-style here`"),
    ],
)
def test_what_a_study_cannot_say_of_public_data_is_one_sentence(tmp_path, home, change, words):
    fill(home, study_file(tmp_path))
    raw = yaml.safe_load(TEXT) | change
    if "data" in change:
        raw["data"] = yaml.safe_load(TEXT)["data"] | change["data"]
    with pytest.raises(InputError) as error:
        load_study(study_file(tmp_path, yaml.safe_dump(raw)))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_not_pinned_is_known(tmp_path, home):
    text = TEXT.replace("base: lab/smoke", "base: {model: acme/tiny, revision: v1}").replace(
        "data:", f"data:\n  revisions: {{math_cot: {'a' * 40}, mmlu_cot: main}}"
    )
    fill(home, study_file(tmp_path, text))
    study = load_study(study_file(tmp_path, text))
    assert study.names_the_hub()
    assert not load_study(ROOT / "studies" / "smoke.yaml").names_the_hub()
    assert study.unpinned() == [
        "base acme/tiny", "judge allenai/wildguard", "data countdown_cot", "data rlvr_ifeval", "data mmlu_cot",
        "data wildjailbreak", "data wildguardtest",
    ]  # fmt: skip
    assert read_counts(folder_of(home, *study.data.wanted("math_cot")))["revision"] == "a" * 40


def test_what_a_judge_scores_is_judged(home, tmp_path):
    path = study_file(tmp_path)
    fill(home, path)
    found = {b.name: b for b in load_study(path).benchmarks()}
    for name in ("wildjailbreak", "wildguardtest"):
        assert found[name].metrics == ("acc", "harmful_compliance", "over_refusal")
        kinds = {row["kind"] for row in items_of(found[name].own)}
        assert kinds == {"harmful", "harmless"}
        assert found[name].own.judge.model == "allenai/wildguard"
    with pytest.raises(InputError, match="wildjailbreak is scored by a judge; name one with `judge:"):
        load_study(study_file(tmp_path, TEXT.replace("judge: {model: allenai/wildguard}\n", "")))
