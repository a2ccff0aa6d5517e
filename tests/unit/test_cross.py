"""Crossed study files: which studies they stand for, and that bad ones are refused with file, line and field."""

import pytest

from retain_core.cross import Family, family_of, load_studies
from retain_core.errors import InputError
from retain_core.study_file import load_study
from tests.conftest import ROOT

GOOD = """\
study: wide
cross:
  base: [lab/smoke, lab/tiny]
  seed: [3, 0]
base: {habit: 0.5}
target: countdown
retention:
  - countdown
  - {benchmark: addition, near: true}
  - facts
methods: [sft, grpo]
learning_rates: [1.0e-4]
seeds: [0]
"""
NAMES = ["wide-smoke-s3", "wide-smoke-s0", "wide-tiny-s3", "wide-tiny-s0"]


def load(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return load_studies(path)


def plain(text):
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(("cross", "  base:", "  seed:")))


def test_a_crossed_file_is_one_ordinary_study_a_combination_sizes_outermost(tmp_path):
    file = load(tmp_path, GOOD)
    assert (file.name, file.crossed, [s.study for s in file.studies]) == ("wide", True, NAMES)
    assert [(s.base.model, s.base.seed, s.base.habit) for s in file.studies] == [
        (f"lab/{size}", seed, 0.5) for size in ("smoke", "tiny") for seed in (3, 0)
    ]
    assert file.steps_up() == [("lab/smoke", "lab/tiny", "countdown")]
    assert [s.study for s in file.of("lab/tiny", "countdown")] == NAMES[2:]


def test_a_combination_is_the_study_that_could_have_been_written_by_hand(tmp_path):
    crossed = load(tmp_path, GOOD).studies[2]
    by_hand = plain(GOOD).replace("study: wide", "study: wide-tiny-s3").replace("  - countdown\n", "")
    path = tmp_path / "by_hand.yaml"
    path.write_text(by_hand.replace("{habit: 0.5}", "{model: lab/tiny, seed: 3, habit: 0.5}"))
    assert load_study(path) == crossed
    assert load_studies(path).studies == (crossed,)


def test_only_what_is_crossed_is_in_the_name(tmp_path):
    seeds = GOOD.replace("  base: [lab/smoke, lab/tiny]\n", "").replace("{habit: 0.5}", "lab/smoke")
    assert [s.study for s in load(tmp_path, seeds).studies] == ["wide-s3", "wide-s0"]
    target = GOOD.replace("  seed: [3, 0]", "  target: [countdown]").replace("target: countdown\nret", "ret")
    assert [s.study for s in load(tmp_path, target).studies] == ["wide-smoke-countdown", "wide-tiny-countdown"]


def test_the_target_of_a_combination_is_not_its_retention_benchmark(tmp_path):
    assert {tuple(r.benchmark for r in s.retention) for s in load(tmp_path, GOOD).studies} == {("addition", "facts")}


def test_near_may_say_to_which_targets(tmp_path):
    text = GOOD.replace("  seed: [3, 0]", "  target: [countdown]").replace("target: countdown\nret", "ret")
    study = load(tmp_path, text.replace("near: true", "near: [countdown]")).studies[0]
    assert study.retention[0].near is True
    with pytest.raises(InputError, match=r"study.yaml:8: retention.1.near: 'facts' is no target of this file"):
        load(tmp_path, text.replace("near: true", "near: [facts]"))


def test_a_model_folder_is_named_by_its_last_part(tmp_path):
    folder = GOOD.replace("lab/smoke, lab/tiny", "/models/Big 1.5B").replace("  seed: [3, 0]\n", "")
    assert [s.study for s in load(tmp_path, folder.replace("base: {habit: 0.5}\n", "")).studies] == ["wide-big-1-5b"]
    with pytest.raises(InputError, match="two bases would give studies of the name wide-x"):
        load(tmp_path, folder.replace("/models/Big 1.5B", "/a/x, /b/x").replace("base: {habit: 0.5}\n", ""))


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("  seed:", "  sed:", 4, "cross.sed: unknown key 'sed'; did you mean 'seed'?"),
        ("[3, 0]", "[3, -1]", 4, "cross.seed.1: input should be greater than or equal to 0"),
        ("[3, 0]", "[3, 3]", 2, "cross: seed says the same thing twice"),
        ("[3, 0]", "[]", 4, "cross.seed: tuple should have at least 1 item"),
        ("lab/tiny]", "lab/tinny]", 3, "cross.base.1: unknown lab base 'lab/tinny'; did you mean 'lab/tiny'?"),
        ("lab/tiny]", "some/folder]", 3, "cross.base.1: 'habit' is a dial of lab bases only"),
        ("{habit: 0.5}", "lab/tiny", 5, "base: the models are under `cross`"),
        ("{habit: 0.5}", "{habit: 0.5, seed: 1}", 5, "base.seed: the seeds of the base are under `cross`"),
        ("{habit: 0.5}", "[lab/tiny]", 5, "base: a base is the name of a model or a mapping"),
        ("{habit: 0.5}", "{habbit: 0.5}", 5, "base.habbit: unknown key 'habbit'; did you mean 'habit'?"),
        ("[3, 0]", "[3, 0]\n  target: [countdown]", 7, "target: the targets are under `cross`"),
        ("target: countdown", "target: facts", 6, "facts has no verifier"),
        ("  - facts", "  - fact", 10, "retention.2: unknown benchmark 'fact'; did you mean 'facts'?"),
    ],
)
def test_bad_files_are_refused_with_line_and_field(tmp_path, old, new, line, words):
    assert old in GOOD
    with pytest.raises(InputError) as error:
        load(tmp_path, GOOD.replace(old, new, 1))
    assert f"study.yaml:{line}: " in str(error.value)
    assert words in str(error.value)


def test_a_misspelt_cross_is_an_unknown_key(tmp_path):
    with pytest.raises(InputError, match=r"study.yaml:10: cros: unknown key 'cros'; did you mean 'cross'\?"):
        load(tmp_path, plain(GOOD).replace("  - countdown\n", "").replace("{habit: 0.5}", "lab/tiny") + "cros: {}\n")


def test_a_crossed_target_without_verifier_is_refused_at_its_place(tmp_path):
    text = GOOD.replace("  seed: [3, 0]", "  target: [countdown, facts]").replace("target: countdown\nret", "ret")
    with pytest.raises(InputError, match=r"study.yaml:4: cross.target.1: facts has no verifier"):
        load(tmp_path, text)


def test_where_one_study_is_asked_for_a_crossed_file_is_refused(tmp_path):
    (tmp_path / "study.yaml").write_text(GOOD)
    with pytest.raises(InputError, match="crosses several studies"):
        load_study(tmp_path / "study.yaml")


def test_a_study_tells_its_family_by_its_name(tmp_path):
    for study in load(tmp_path, GOOD).studies:
        assert family_of(study.model_dump(mode="json")) == Family("wide", study.base.model, "countdown")
    lab = load_study(ROOT / "studies" / "lab.yaml").model_dump(mode="json")
    assert family_of(lab) == Family("lab", "lab/tiny", "countdown")


def test_the_shipped_crossed_study_loads():
    file = load_studies(ROOT / "studies" / "lab-full.yaml")
    assert (file.name, file.sizes) == ("lab-full", ["lab/mini", "lab/tiny"])
    assert [s.study for s in file.studies][:2] == ["lab-full-mini-s2-countdown", "lab-full-mini-s2-new_format"]
