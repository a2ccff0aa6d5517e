"""Sequences of targets in a study file: what is planned of them, and what is refused."""

import pytest
import yaml

from retain_core.cost import cost_lines
from retain_core.errors import InputError
from retain_core.plan import plan_study
from retain_core.store import Store
from retain_core.study import Study
from retain_core.study_file import load_study
from retain_core.warehouse.contents import contents_of
from tests.conftest import ROOT

STUDY = """\
study: tiny
base: lab/smoke
target: countdown
retention: [addition, facts]
methods: [sft, grpo]
controls: [learning_rate_0]
learning_rates: [1.0e-4]
seeds: [0, 1]
budget: {updates: 10, sequences_per_update: 8}
checkpoints: 2
"""
THEN = "then: [new_format, new_facts]\n"


def load(folder, text):
    path = folder / "study.yaml"
    path.write_text(text)
    return load_study(path)


@pytest.fixture
def plans(tmp_path):
    """The plan of the study with one target, and with three."""
    store = Store(tmp_path / "none")
    return plan_study(load(tmp_path, STUDY), store), plan_study(load(tmp_path, STUDY + THEN), store)


def test_methods_go_on_and_controls_do_not(plans):
    for arm in plans[1].arms:
        control = arm.spec.role == "control"
        assert arm.spec.then == (() if control else ("new_format", "new_facts"))
        assert arm.spec.steps == ((4, 10) if control else (4, 10, 14, 20, 24, 30))
        assert [arm.spec.stage(step) for step in arm.spec.steps] == ([1, 1] if control else [1, 1, 2, 2, 3, 3])
        assert tuple(b.name for b in arm.spec.benchmarks) == ("countdown", "new_format", "new_facts", "addition", "facts")


def test_external_models_are_in_no_stage(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "config.json").write_text("{}")
    (tmp_path / "theirs" / "model.safetensors").write_bytes(b"")
    text = STUDY.replace("grpo]", f"{{label: theirs, algorithm: external, model: {tmp_path / 'theirs'}}}]") + THEN
    (spec,) = [arm.spec for arm in plan_study(load(tmp_path, text), Store(tmp_path / "none")).arms if not arm.spec.trained]
    assert (spec.then, spec.steps, spec.stage(0)) == ((), (0,), None)


def test_the_key_of_an_arm_without_a_sequence_does_not_know_of_sequences(plans):
    single, sequence = ({arm.spec.arm: arm.spec for arm in plan.arms} for plan in plans)
    for name, spec in single.items():
        assert sorted(spec.inputs()) == [
            "arm", "base", "learning_rate", "platform", "seed", "sequences_per_update", "steps", "target", "threads",
            "training_version", "updates", "versions", "world",
        ]  # fmt: skip
        first, *others = sequence[name].stages()
        assert first.key == spec.key
        assert (sequence[name].key == spec.key) == (spec.role == "control")
        assert [(stage.target, stage.steps) for stage in others] == (
            [] if spec.role == "control" else [("new_format", (4, 10)), ("new_facts", (4, 10))]
        )


def test_the_order_of_the_targets_is_part_of_the_key(plans, tmp_path):
    turned = plan_study(load(tmp_path, STUDY + "then: [new_facts, new_format]\n"), Store(tmp_path / "none"))
    for a, b in zip(plans[1].arms, turned.arms, strict=True):
        assert (a.spec.key == b.spec.key) == (a.spec.role == "control")


def test_every_stage_costs(plans, tmp_path):
    single, sequence = (cost_lines([plan], Store(tmp_path / "none"), 1)[0] for plan in plans)
    assert single.startswith("cost: 5 arms, 400 sequences to train on, 40 evaluations")
    assert sequence.startswith(f"cost: 5 arms, {80 + 4 * 240:,} sequences to train on, {2 * 6 + 4 * 6 * 6} evaluations")


def test_what_the_warehouse_is_told_of_a_sequence(plans):
    tables = contents_of(plans[1], [], {}).tables
    assert [(row[1], row[2], row[3], row[6]) for row in tables["study_benchmarks"]] == [
        ("countdown", "acc", "target", 1), ("new_format", "acc", "later_target", 2), ("new_facts", "acc", "later_target", 3),
        ("addition", "acc", "retention", None), ("facts", "acc", "retention", None),
    ]  # fmt: skip
    words = [symbol for _, symbol in tables["target_symbols"]]
    assert {"answer", "=", "and", "*"} <= set(words)
    assert len(set(words)) == len(words)
    assert ['"then":["new_format","new_facts"]' in row[7] for row in tables["arms"]] == [False, *[True] * 4, False]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("then: [facts]\n", "facts has no verifier"),
        ("then: [new_fromat]\n", "unknown benchmark 'new_fromat'; did you mean 'new_format'?"),
        ("then: [countdown]\n", "countdown is learned twice"),
        ("then: [new_facts, new_facts]\n", "new_facts is learned twice"),
        (THEN + "primary: {contrast: [sft, grpo], at_gain: 0.1}\n", "compare a sequence (`then`) where it ends: `at: last`"),
    ],
)
def test_bad_sequences_are_refused_in_one_sentence(tmp_path, more, words):
    with pytest.raises(InputError) as caught:
        load(tmp_path, STUDY + more)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_target_of_your_own_is_in_no_sequence():
    raw = yaml.safe_load((ROOT / "examples" / "own_method" / "study.yaml").read_text())
    with pytest.raises(ValueError, match=r"a sequence .* is one of targets of the lab, and another_color is your own"):
        Study.model_validate({**raw, "then": ["new_format"]})


def test_a_later_target_is_no_retention_benchmark(tmp_path):
    with pytest.raises(InputError, match="new_format is a target; it cannot be a retention benchmark too"):
        load(tmp_path, STUDY.replace("[addition,", "[new_format,") + THEN)


def test_traces_are_imitated_for_one_target_only(tmp_path):
    text = STUDY.replace("grpo]", "{label: traces, algorithm: sft, expert: traces, traces_of: grpo}]")
    assert load(tmp_path, text).then == ()
    with pytest.raises(InputError, match="traces: traces are those of one target"):
        load(tmp_path, text + THEN)
