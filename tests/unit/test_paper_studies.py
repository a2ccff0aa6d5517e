"""The study files of the published study are what their template gives, and say what the paper did."""

import pytest

from retain_core.cross import load_studies
from retain_core.published.studies import paper_studies, study_text
from retain_core.study import CHECKPOINT_RATIO
from tests.conftest import ROOT

FOLDER = ROOT / "studies" / "paper"
STUDIES = paper_studies()
PROMPTS = {"rlvr_ifeval": 13_000, "mmlu_cot": 12_000, "countdown_cot": 10_000}


def test_there_are_four_models_and_three_targets_and_the_files_are_what_the_template_gives():
    assert len({study["base"]["model"] for study in STUDIES.values()}) == 4
    assert {study["target"] for study in STUDIES.values()} == set(PROMPTS)
    assert len(STUDIES) == 12
    assert {path.stem: path.read_text() for path in FOLDER.glob("*.yaml")} == {n: study_text(s) for n, s in STUDIES.items()}


@pytest.mark.parametrize("name", STUDIES)
def test_every_file_is_a_study_with_all_methods(name):
    study = load_studies(FOLDER / f"{name}.yaml", fetched=False).studies[0]
    assert study.study == name
    by_label = {method.label: method for method in study.methods}
    assert list(by_label) == [
        "sft", "sft_in_style", "self_sft", "iterative_sft", "reinforce", "grpo", "grpo_kl0.05", "sft_traces"
    ]  # fmt: skip
    assert all(method.learning_rates is None and method.seeds is None for method in study.methods), "one grid for all"
    assert len(study.seeds) >= 3
    assert 5e-6 in study.learning_rates, "RL's rate"
    assert max(study.learning_rates) == (1e-4 if "1b" in name or "1.5b" in name else 5e-5), "SFT's rate"
    for label in ("reinforce", "grpo", "grpo_kl0.05"):
        dials = by_label[label].config()
        assert (dials["group_size"], dials["temperature"], dials["clip"], dials["staleness"]) == (5, 0.8, None, 1)
    assert by_label["grpo_kl0.05"].config()["kl_estimator"] == "k2"
    assert study.base.revision is None, "a revision is what `retain prefetch --pin` found, never made up"
    assert study.data.revisions == {}


@pytest.mark.parametrize("name", STUDIES)
def test_the_budget_is_two_passes_of_32_prompts_and_the_curve_holds_the_budget_of_sft(name):
    study, prompts = STUDIES[name], PROMPTS[STUDIES[name]["target"]]
    updates, sequences = study["budget"]["updates"], study["budget"]["sequences_per_update"]
    assert updates == 2 * prompts // 32
    assert sequences == 32 * 5
    steps = [updates / CHECKPOINT_RATIO**k for k in range(study["checkpoints"])]
    assert steps[2] * sequences < 2 * prompts < steps[1] * sequences, "the paper's two epochs of SFT"
    samples = updates * sequences / 8 * next(m["oversample"] for m in study["methods"] if "pool" in m)
    assert samples == pytest.approx(5 * prompts, rel=0.01), "five samples a prompt"


def test_the_five_benchmarks_of_the_paper_are_watched_by_every_study():
    for study in STUDIES.values():
        names = [entry if isinstance(entry, str) else entry["benchmark"] for entry in study["retention"]]
        published = {*PROMPTS, "math_cot", "wildjailbreak", "wildguardtest"} - {study["target"]}
        assert len(published) == 5
        assert published <= set(names)
        assert study["target"] != "mmlu_cot" or "mmlu" not in names, "its items are trained on"
