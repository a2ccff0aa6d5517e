"""What counts as another look at the declared contrast, and what does not."""

import json

import pytest

from retain_core.errors import InputError
from retain_core.revisions import declare, more_seeds, revisions_of, studies
from retain_core.run import declare_all
from retain_core.settings import Settings
from retain_core.stats.sequential import look_levels
from retain_core.store import Store, key_of
from retain_core.study import Study

PRIMARY = {"contrast": ["grpo", "sft"], "predict": "<", "at": "last"}


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "artifacts")
    store.prepare()
    return store


def study(seeds=(0, 1), **changes) -> Study:
    said = {
        "study": "s", "base": "lab/smoke", "target": "countdown", "retention": ["addition", "places"],
        "methods": ["sft", "grpo"], "learning_rates": [1e-3], "seeds": list(seeds), "primary": PRIMARY,
        "budget": {"updates": 4, "sequences_per_update": 16},
    }  # fmt: skip
    return Study.model_validate(said | changes)


def see(store, revision) -> None:
    """The results of this text are shown: a summary of it is kept."""
    inputs = {"study": "s", "spec_hash": revision.spec_hash, "analysis": "x"}
    with store.create("summary", key_of(inputs), inputs) as draft:
        (draft.path / "rows.json").write_text("[]")


def current(store):
    return next(r for r in revisions_of(store, "s") if r.current)


def run(store, text, seen=True):
    declare(store, text)
    if seen:
        see(store, current(store))
    return current(store).looks


def test_the_first_text_is_one_look(store):
    assert run(store, study()) == (2,)
    assert [(r.number, r.current) for r in revisions_of(store, "s")] == [(1, True)]
    assert studies(store) == ["s"]


def test_seeds_added_after_the_results_were_seen_are_another_look(store):
    run(store, study())
    assert run(store, more_seeds(study(), 1)) == (2, 3)
    assert run(store, more_seeds(study(), 3)) == (2, 3, 5)


def test_a_file_edited_by_hand_counts_the_same(store):
    run(store, study())
    assert run(store, study(seeds=(7, 1, 0))) == (2, 3)


def test_seeds_added_before_any_result_was_seen_are_no_look(store):
    run(store, study(), seen=False)
    assert run(store, more_seeds(study(), 1)) == (3,)
    assert run(store, more_seeds(study(), 2), seen=False) == (3, 4)
    assert run(store, more_seeds(study(), 4)) == (3, 6), "the text with four seeds was never looked at"


def test_the_fourth_look_is_refused_and_nothing_changes(store):
    for count in (0, 1, 2):
        run(store, more_seeds(study(), count) if count else study())
    before = revisions_of(store, "s")
    with pytest.raises(InputError, match=r"s: its contrast was looked at 3 times already.*another name"):
        declare(store, more_seeds(study(), 3))
    assert revisions_of(store, "s") == before
    assert len(look_levels(list(before[-1].looks), 3)) == 3


def test_declaring_the_same_again_changes_nothing(store):
    run(store, study())
    run(store, more_seeds(study(), 1))
    before = (store.root / "studies" / "s.json").read_bytes()
    declare(store, more_seeds(study(), 1))
    assert (store.root / "studies" / "s.json").read_bytes() == before


def test_going_back_makes_the_earlier_text_current_again_with_its_own_looks(store):
    run(store, study())
    run(store, more_seeds(study(), 1))
    assert run(store, study()) == (2,)
    assert [(r.number, r.current) for r in revisions_of(store, "s")] == [(1, True), (2, False)]
    assert run(store, more_seeds(study(), 1)) == (2, 3)


@pytest.mark.parametrize(
    "other",
    [
        {"keep": "all"}, {"controls": ["learning_rate_0"]}, {"probes": ["heldout_loss"]}, {"checkpoints": 2},
        {"methods": ["sft", "grpo", "self_sft"]}, {"execution": {"threads_per_arm": 2}},
    ],
)  # fmt: skip
def test_what_has_nothing_to_do_with_the_contrast_hides_no_look(store, other):
    run(store, study())
    assert run(store, study(seeds=(0, 1, 2), **other)) == (2, 3)


def test_alphas_are_part_of_the_question_where_blends_are_compared_only(store):
    blends = {"primary": {"contrast": ["grpo_interpolated", "sft"], "at_gain": 0.1}, "interpolate": [0.5]}
    run(store, study(**blends))
    assert run(store, study(seeds=(0, 1, 2), **blends)) == (2, 3)
    assert run(store, study(seeds=(0, 1, 2, 3), **blends | {"interpolate": [0.25, 0.5]})) == (4,)
    other = Store(store.root.parent / "other")
    other.prepare()
    run(other, study())
    assert run(other, study(seeds=(0, 1, 2), interpolate=[0.5])) == (2, 3)


@pytest.mark.parametrize(
    "other",
    [
        {"primary": {**PRIMARY, "margin": 0.03}},
        {"retention": ["places"]},
        {"budget": {"updates": 8, "sequences_per_update": 16}},
    ],
)
def test_another_question_begins_anew(store, other):
    run(store, study())
    assert run(store, study(seeds=(0, 1, 2), **other)) == (3,)


def test_other_seeds_are_no_look_at_the_same_ones(store):
    run(store, study())
    assert run(store, study(seeds=(5, 6, 7))) == (3,)


def test_without_a_declared_contrast_there_is_nothing_to_look_at(store):
    run(store, study(primary=None))
    assert run(store, study(seeds=(0, 1, 2), primary=None)) == (3,)


def test_more_seeds_number_on_from_the_highest():
    assert more_seeds(study(seeds=(4, 2)), 2).seeds == (4, 2, 5, 6)
    assert more_seeds(study(), 1).model_dump(exclude={"seeds"}) == study().model_dump(exclude={"seeds"})


def test_the_time_of_declaring_is_kept(store):
    run(store, study())
    path = store.root / "studies" / "s.json"
    first = json.loads(path.read_text())[0]["declared_at"]
    run(store, more_seeds(study(), 1))
    run(store, study())
    assert json.loads(path.read_text())[0]["declared_at"] == first


@pytest.mark.parametrize(
    ("name", "count", "told"), [("nothing", 1, "no study 'nothing' was run in"), ("s", 0, "--seeds says how many")]
)
def test_extend_says_what_is_wrong(tmp_path, monkeypatch, name, count, told):
    from flows.commands import extend_study
    from retain_core.settings import settings

    monkeypatch.setenv("RETAIN_HOME", str(tmp_path))
    settings.cache_clear()
    store = Store(tmp_path / "artifacts")
    store.prepare()
    run(store, study())
    with pytest.raises(InputError, match=told):
        extend_study(name, count)
    settings.cache_clear()


def test_studies_of_one_run_are_all_declared_before_the_first_arm(tmp_path):
    config = Settings(home=tmp_path)
    two = [study(), Study.model_validate({**study().model_dump(), "study": "t"})]
    declare_all(two, config)
    store = Store(config.artifacts)
    assert studies(store) == ["s", "t"]
    before = {name: revisions_of(store, name) for name in ("s", "t")}
    declare_all(two[::-1], config)
    assert {name: revisions_of(store, name) for name in ("s", "t")} == before
    assert not list(store.keys("arm"))


def test_nothing_is_declared_when_one_of_several_studies_is_wrong(tmp_path):
    config = Settings(home=tmp_path)
    gone = Study.model_validate({**study().model_dump(), "study": "t", "base": str(tmp_path / "gone")})
    for two, said in (([study(), gone], "no model at"), ([study(), study((0, 1, 2))], "two of the files are the study 's'")):
        with pytest.raises(InputError, match=said):
            declare_all(two, config)
        assert studies(Store(config.artifacts)) == []
