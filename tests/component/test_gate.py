"""`retain gate` for real: on lm-eval's files, and on a model that a study did not train."""

import json
import shutil

import duckdb
import pytest

from retain_core import run
from retain_core.compare.command import compare
from retain_core.errors import InputError
from retain_core.gate.command import gate_text
from retain_core.gate.study import declared_margin, gate_model, gate_study
from retain_core.run import open_study
from retain_core.study_file import load_study
from tests.conftest import ROOT, retain, settings_at

BASE, TUNED = "docs/examples/base", "docs/examples/tuned"


@pytest.mark.parametrize(
    ("arguments", "code", "first"),
    [
        ([BASE, TUNED], 3, "REJECT"),
        ([BASE, BASE], 4, "INCONCLUSIVE"),
        ([BASE, BASE, "--margin", "5"], 0, "ALLOW"),
        ([TUNED, BASE], 0, "ALLOW"),
    ],
)
def test_the_command_prints_its_decision_and_ends_with_its_code(here, tmp_path, arguments, code, first):
    done = here("gate", *arguments, home=tmp_path)
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout.startswith(f"{first}: ")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([BASE, "docs/examples/gone"], "does not exist"),
        ([BASE, TUNED, "--margin", "0"], "a margin of 0 points decides nothing"),
        ([BASE, TUNED, "--format", "csv"], "unknown format 'csv'; known: table, json, markdown"),
        ([BASE, TUNED, "--metric", "sums"], "write benchmark=metric"),
        (["studies/smoke.yaml", "docs/examples"], "holds config.json and safetensors weights"),
        (["studies/smoke.yaml", "x", "--margin", "3"], "smoke declares a margin of 2 points"),
        (["studies/smoke.yaml", "x", "--cluster", "subject"], "a study says both in its file"),
        (["studies/gone.yaml", "x"], "cannot read the study file"),
    ],
)
def test_wrong_input_is_one_sentence_and_leaves_nothing(here, tmp_path, arguments, sentence):
    done = here("gate", *arguments, home=tmp_path / "home")
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "home" / "artifacts" / "studies").exists()


def test_json_is_one_document_and_says_what_the_sentence_says(here, tmp_path):
    done = retain("gate", BASE, TUNED, "--format", "json", home=tmp_path)
    told = json.loads(done.stdout)
    assert (told["decision"], told["exit_code"], done.returncode) == ("REJECT", 3, 3)
    compared = json.loads(here("compare", BASE, TUNED, "--format", "json", home=tmp_path).stdout)
    assert told["rows"] == compared[:-1]
    assert [told[x] for x in ("drop", "ci_low", "ci_high")] == [compared[-1][x] for x in ("drop", "ci_low", "ci_high")]
    assert told["at_least"] <= told["ci_low"]
    assert f"{100 * told['ci_low']:+.1f} to {100 * told['ci_high']:+.1f}" in told["sentence"]
    assert told["harmed"] == ["sums", "animals"]


def test_one_benchmark_is_judged_by_its_own_interval(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    one = {}
    for side in (BASE, TUNED):
        shutil.copytree(side, tmp_path / side)
        for file in (tmp_path / side).glob("samples_*"):
            if "sums" not in file.name:
                file.unlink()
        one[side] = str(tmp_path / side)
    (row,) = compare(one[BASE], one[TUNED], {}, None).rows
    text, code = gate_text(one[BASE], one[TUNED], None, form="json")
    told = json.loads(text)
    assert code == 3
    assert (told["drop"], told["ci_low"], told["ci_high"]) == (row.drop, row.ci_low, row.ci_high)


def test_refusals_of_compare_carry_over(tmp_path):
    shutil.copytree(ROOT / TUNED, tmp_path / "tuned")
    results = next((tmp_path / "tuned").glob("results_*"))
    results.write_text(results.read_text().replace('"batch_size": ', '"batch_size": 1'))
    with pytest.raises(InputError, match="unlike settings, nothing is compared"):
        gate_text(str(ROOT / BASE), str(tmp_path / "tuned"), None)


def test_a_model_of_ones_own_is_evaluated_once_and_judged_as_the_base_is(home, smoke_study, smoke_plan, jobs, tmp_path):
    """The base under another name is never rejected; a model seen before costs no process, nor does the base."""
    study, config = load_study(smoke_study), settings_at(home)
    same, other = tmp_path / "same", tmp_path / "other"
    shutil.copytree(smoke_plan.base_path, same)
    (trained,) = [arm for arm in smoke_plan.arms if arm.spec.method == "sft"]
    with open_study(study, config) as running:
        from retain_core.arms import weights_key

        weights = running.store.get("weights", weights_key(trained.spec, trained.spec.steps[-1]))
        shutil.copytree(weights.path, other)
    first = gate_model(study, str(same), config)
    assert jobs == [("arm", "candidate")]
    assert first.word != "REJECT"
    assert (first.mean.drop, first.mean.benchmarks, first.margin) == (0, 2, 0.02)
    second = gate_model(study, str(other), config)
    assert jobs == [("arm", "candidate")] * 2
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        of_arm = "SELECT \"drop\" FROM forgetting WHERE checkpoint = ? AND metric = 'acc' ORDER BY ALL"
        mine = con.execute(of_arm, ["smoke-gate/candidate@0"]).fetchall()
        theirs = con.execute(of_arm, [trained.spec.checkpoint(trained.spec.steps[-1])]).fetchall()
        assert mine == theirs
        assert second.mean.drop == pytest.approx(sum(drop for (drop,) in mine) / 2)
        assert [row.role for row in second.comparison.rows].count("target") == 1
    again = gate_model(study, str(same), config)
    assert len(jobs) == 2
    assert (again.word, again.mean, again.at_most) == (first.word, first.mean, first.at_most)
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        assert con.execute("SELECT count(DISTINCT summary) FROM trend WHERE study = 'smoke-gate'").fetchone() == (2,)
        assert con.execute("SELECT count(*) FROM arms WHERE study = 'smoke'").fetchone()[0] > 1
    by_address = compare_codes(home)
    assert by_address == first.exit_code


def compare_codes(home):
    """The command on the addresses of the home, which are what the study's gate compared."""
    done = retain("gate", "smoke-gate/base", "smoke-gate/candidate", home=home)
    assert done.stderr == ""
    return done.returncode


def test_the_gates_study_has_nothing_of_its_own_to_train(smoke_study):
    gate = gate_study(load_study(smoke_study), str(ROOT / "docs"))
    assert gate.study == "smoke-gate"
    assert [method.label for method in gate.all_methods()] == ["candidate"]
    assert type(gate).model_validate(gate.model_dump()) == gate


def test_a_study_of_that_name_is_not_overwritten(home, smoke_study, smoke_plan, tmp_path):
    taken = tmp_path / "taken.yaml"
    taken.write_text(smoke_study.read_text().replace("study: smoke", "study: smoke-gate"))
    run.declare_all([load_study(taken)], settings_at(home))
    with pytest.raises(InputError, match="there is a study smoke-gate already"):
        gate_model(load_study(smoke_study), str(smoke_plan.base_path), settings_at(home))


def test_the_margin_is_the_declared_one(smoke_study, tmp_path):
    study = load_study(smoke_study)
    assert declared_margin(study, None) == declared_margin(study, 0.02) == 0.02
    free = study.model_copy(update={"primary": None})
    assert (declared_margin(free, None), declared_margin(free, 0.05)) == (0.02, 0.05)
