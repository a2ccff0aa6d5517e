"""Study files: what they mean, and that bad ones are refused in one sentence with file, line and field."""

import pytest
import yaml

from retain_core.arms import arm_name, rate_text
from retain_core.cross import load_studies
from retain_core.errors import InputError
from retain_core.plan import plan_study
from retain_core.store import Store
from retain_core.study import Study
from retain_core.study_file import load_study
from tests.conftest import ROOT

GOOD = """\
study: tiny
base: lab/smoke
target: countdown
retention:
  - {benchmark: addition, near: true}
  - facts
methods:
  - sft
  - {label: mine, algorithm: grpo, kl: 0.05}
learning_rates: [1.0e-4, 3.0e-4]
seeds: [0, 1]
"""


def load(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return load_study(path)


def test_shipped_studies_load():
    for path in sorted((ROOT / "studies").glob("*.yaml")):
        assert load_studies(path).name == path.stem


def test_a_study_spells_out_methods_times_rates_times_seeds(tmp_path):
    study = load(tmp_path, GOOD)
    arms = {arm.spec.arm for arm in plan_study(study, Store(tmp_path / "none")).arms}
    assert {a for a in arms if "/sft-" in a} == {f"tiny/sft-lr{r}-s{s}" for r in ("1e-4", "3e-4") for s in (0, 1)}
    assert len([a for a in arms if "/mine-" in a]) == 4
    assert "tiny/learning_rate_0-lr0-s0" in arms
    assert "tiny/constant_reward-lr3e-4-s0" in arms


def test_checkpoints_halve_down_from_the_last(tmp_path):
    study = load(tmp_path, GOOD + "budget: {updates: 100}\ncheckpoints: 4\n")
    assert study.checkpoint_steps() == [6, 16, 40, 100]
    assert load(tmp_path, GOOD + "budget: {updates: 2}\ncheckpoints: 4\n").checkpoint_steps() == [1, 2]


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (("  - sft\n", "  - sfft\n"), 8, "methods.0: unknown method 'sfft'; did you mean 'sft'?"),
        (("  - facts\n", "  - fact\n"), 6, "unknown benchmark 'fact'; did you mean 'facts'?"),
        (("target: countdown", "target: facts"), 3, "facts has no verifier"),
        (("target: countdown", "target: countdwn"), 3, "unknown benchmark 'countdwn'; did you mean 'countdown'?"),
        (("label: mine", "label: sft"), 7, "labelled 'sft'"),
        (("kl: 0.05", "kll: 0.05"), 9, "unknown key 'kll'; did you mean 'kl'?"),
        (("algorithm: grpo, kl: 0.05", "algorithm: sft, group_size: 4"), 9, "sft has no dial 'group_size'"),
        (("algorithm: grpo", "algorithm: grppo"), 9, "methods.1: unknown algorithm 'grppo'; did you mean 'grpo'?"),
        (("kl: 0.05", "kl: much"), 9, "valid number"),
        (("seeds: [0, 1]", "seeds: [0, x]"), 11, "seeds.1"),
        (("seeds: [0, 1]", "seeds: [0, 1]\nseedz: 3"), 12, "unknown key 'seedz'; did you mean 'seeds'?"),
        (("lab/smoke", "lab/smok"), 2, "unknown lab base 'lab/smok'; did you mean 'lab/smoke'?"),
        (("[1.0e-4, 3.0e-4]", "[-1.0e-4]"), 10, "cannot be negative"),
        (("[1.0e-4, 3.0e-4]", "[.nan]"), 10, "cannot be negative"),
        (("[1.0e-4, 3.0e-4]", "[3.0e-4, 0.0003]"), 10, "the same learning rate is listed twice"),
        (("seeds: [0, 1]", "seeds: [1, 1]"), 11, "the same seed is listed twice"),
        (("seeds: [0, 1]", "seeds: [-1]"), 11, "a seed cannot be negative"),
        (("label: mine", "label: base"), 9, "the base model's own"),
        (("seeds: [0, 1]", "seeds: [0"), 12, "not valid YAML"),
        (("seeds: [0, 1]", "seeds: [0, 1]\nprimary: {contrast: [sft, gro], at: last}"), 1, "primary.contrast"),
        (("seeds: [0, 1]", "seeds: [0, 1]\nprimary: {contrast: [sft, mine]}"), 12, "at: last"),
        (("seeds: [0, 1]", "seeds: [0, 1]\ncontrols: [nothing]"), 12, "unknown control 'nothing'"),
        (("seeds: [0, 1]", "seeds: [0, 1]\nbudget: {sequences_per_update: 60}"), 1, "multiple of group_size"),
        (("seeds: [0, 1]", "seeds: [0, 1]\ntarget_files: {name: a, train: t, items: i, verifier: v:r}"), 12, "unknown key"),
        (("seeds: [0, 1]", "seeds: [0, 1]\nown: {}"), 12, "own: unknown key 'own'"),
        (("seeds: [0, 1]", "seeds: [0, 1]\nprobes: [facts]"), 12, "not a loss probe"),
        (("seeds: [0, 1]", "seeds: [0, 1]\ninterpolate: [0.5, 1.0]"), 12, "lies between 0 (the base) and 1"),
        (("seeds: [0, 1]", "seeds: [0, 1]\ninterpolate: [0]"), 12, "lies between 0 (the base) and 1"),
        (("seeds: [0, 1]", "seeds: [0, 1]\ninterpolate: [.nan]"), 12, "lies between 0 (the base) and 1"),
        (("seeds: [0, 1]", "seeds: [0, 1]\ninterpolate: [0.5, 0.50]"), 12, "the same alpha is listed twice"),
        (("seeds: [0, 1]", "seeds: [0, 1]\ninterpolate:\n- 0.5\n- half"), 14, "valid number"),
        (
            ("label: mine, algorithm: grpo, kl: 0.05}", "label: sft_interpolated, algorithm: grpo}\ninterpolate: [0.5]"),
            1,
            "'sft_interpolated' is what `interpolate` calls the blends of sft",
        ),
        (
            ("seeds: [0, 1]", "seeds: [0, 1]\nprimary: {contrast: [mine_interpolated, sft], at_gain: 0.1}"),
            1,
            "needs `interpolate:",
        ),
        (
            ("seeds: [0, 1]", "seeds: [0, 1]\ninterpolate: [0.5]\nprimary: {contrast: [mine_interpolated, sft], at: last}"),
            1,
            "mine_interpolated ends in mine itself",
        ),
    ],
)
def test_bad_studies_name_file_line_and_field(tmp_path, change, line, words):
    assert change[0] in GOOD
    with pytest.raises(InputError) as caught:
        load(tmp_path, GOOD.replace(*change))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'study.yaml'}:{line}: "), message
    assert words in message
    assert "\n" not in message


def test_missing_file_and_not_a_mapping(tmp_path):
    with pytest.raises(InputError, match="cannot read the study file"):
        load_study(tmp_path / "nowhere.yaml")
    with pytest.raises(InputError, match="is a mapping"):
        load(tmp_path, "- sft\n")


def test_missing_base_and_external_models(tmp_path):
    study = load(tmp_path, GOOD.replace("lab/smoke", "nowhere/model"))
    with pytest.raises(InputError, match="no model at 'nowhere/model'"):
        plan_study(study, Store(tmp_path / "none"))
    external = GOOD.replace("- sft\n", "- {label: theirs, algorithm: external, model: ./gone}\n")
    with pytest.raises(InputError, match=r"no model at '\./gone'"):
        plan_study(load(tmp_path, external), Store(tmp_path / "none"))


def test_pickled_weights_are_refused(tmp_path):
    model = tmp_path / "pickled"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    study = load(tmp_path, GOOD.replace("lab/smoke", str(model)))
    with pytest.raises(InputError, match="safetensors"):
        plan_study(study, Store(tmp_path / "none"))


def test_the_hash_sees_meaning_not_layout(tmp_path):
    study = load(tmp_path, GOOD)
    shuffled = yaml.safe_dump(yaml.safe_load(GOOD), sort_keys=True)
    assert load(tmp_path, shuffled).spec_hash() == study.spec_hash()
    assert load(tmp_path, GOOD.replace("3.0e-4", "3.1e-4")).spec_hash() != study.spec_hash()


def test_a_study_has_a_json_schema_and_survives_json():
    study = load_study(ROOT / "studies" / "lab.yaml")
    assert Study.model_validate_json(study.model_dump_json()) == study
    assert "methods" in Study.model_json_schema()["properties"]


@pytest.mark.parametrize(("rate", "text"), [(3e-4, "3e-4"), (2.5e-5, "2.5e-5"), (1.0, "1e0"), (0.0, "0"), (1e-10, "1e-10")])
def test_rates_in_names(rate, text):
    assert rate_text(rate) == text
    assert arm_name("lab", "grpo", rate, 1) == f"lab/grpo-lr{text}-s1"


def test_interpolation_is_of_trained_methods_and_not_of_what_they_trained_to(tmp_path):
    plain = load(tmp_path, GOOD)
    blended = load(tmp_path, GOOD + "interpolate: [0.5, 0.25]\nprimary: {contrast: [mine_interpolated, sft], at_gain: 0.1}\n")
    assert blended.interpolate == (0.25, 0.5)
    before, after = (plan_study(study, Store(tmp_path / "none")).arms for study in (plain, blended))
    assert [arm.spec.key for arm in before] == [arm.spec.key for arm in after]
    for old, new in zip(before, after, strict=True):
        more = [] if new.spec.role == "control" else ["160~0.25", "160~0.5"]
        assert [str(c) for c in new.spec.checkpoints] == [*map(str, old.spec.steps), *more]
        keys = {p.key for pairs in new.evaluations.values() for p, _ in pairs}
        assert len(keys) == new.missing_evaluations
        assert {p.key for pairs in old.evaluations.values() for p, _ in pairs} <= keys
