"""Blends of base and tuned weights: right in their weights, evaluated like checkpoints, and never mixed with them."""

import json
import shutil
from collections import Counter
from dataclasses import replace

import duckdb
import numpy as np
import pytest

from retain_core.analysis.contrasts import contrasts, declared
from retain_core.analysis.matching import Curves, pool
from retain_core.analysis.scores import read_scores
from retain_core.arm import run_arm
from retain_core.arms import Checkpoint, weights_key
from retain_core.commands import plan_text
from retain_core.cost import cost_lines
from retain_core.errors import RetainError
from retain_core.evaluation.answers import ANSWERS, SCORES
from retain_core.evaluation.evaluate import EvaluationPlan, Evaluator
from retain_core.plan import plan_study
from retain_core.run import open_study, publish
from retain_core.store import Store
from retain_core.study_file import load_study
from retain_core.training.interpolate import interpolate
from tests.conftest import retain, run_plain, settings_at, tree
from tests.synthetic import Truth, fill, made_scores

ALPHAS = (0.25, 0.5, 0.75)
PRIMARY = {"contrast": ["harmful_interpolated", "harmful"], "predict": "<", "at_gain": 0.15, "margin": 0.02, "looks": 1}
PLANTED = {m: Truth(drop=d) for m, d in (("harmful", 0.16), ("twin", 0.16), ("other", 0.12), ("mild", 0.08))}


# Weights


def weights(folder):
    from safetensors.torch import load_file

    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def same_bits(a, b):
    import torch

    return a.keys() == b.keys() and all(torch.equal(a[k].view(torch.int32), b[k].view(torch.int32)) for k in a)


@pytest.fixture(scope="module")
def ends(smoke_plan, finished_home):
    """The base's folder, and that of an arm's last checkpoint."""
    arm = next(a for a in smoke_plan.arms if a.spec.method == "sft")
    return smoke_plan.base_path, Store(finished_home / "artifacts").get("weights", weights_key(arm.spec, 4)).path


def test_alpha_0_and_1_are_the_ends_bit_for_bit_and_a_half_is_between(ends, tmp_path):
    import torch

    base, tuned = map(weights, ends)
    assert not same_bits(base, tuned)
    for alpha, end in ((0.0, base), (1.0, tuned)):
        interpolate(*ends, alpha, tmp_path / str(alpha))
        assert same_bits(weights(tmp_path / str(alpha)), end)
    interpolate(*ends, 0.5, tmp_path / "half")
    for name, weight in weights(tmp_path / "half").items():
        assert torch.allclose(weight.double(), (base[name].double() + tuned[name].double()) / 2, rtol=1e-6, atol=1e-8)
    interpolate(ends[0], ends[0], 0.3, tmp_path / "unmoved")
    assert same_bits(weights(tmp_path / "unmoved"), base)


def test_the_ends_answer_as_the_base_and_the_checkpoint_did(ends, smoke_plan, finished_home, tmp_path):
    """Through the same evaluation: the same bytes as were stored of base and checkpoint."""
    store, scratch = Store(finished_home / "artifacts"), Store(tmp_path / "store")
    scratch.prepare()
    arm = next(a for a in smoke_plan.arms if a.spec.method == "sft")
    planned = {0.0: smoke_plan.base_evaluations, 1.0: arm.evaluations[Checkpoint(4)]}
    evaluator = Evaluator(scratch, store.get("dataset", smoke_plan.dataset_key), smoke_plan.base_path)
    for alpha, pairs in planned.items():
        interpolate(*ends, alpha, tmp_path / str(alpha))
        stored = [(p, a) for p, a in pairs if isinstance(p, EvaluationPlan) and p.benchmark != "addition"]
        evaluator.evaluate(tmp_path / str(alpha), [p for p, _ in stored])
        assert len(stored) == 2
        for plan, artifact in stored:
            again = scratch.get("evaluation", plan.key)
            for name in (ANSWERS, SCORES):
                assert again.file(name).read_bytes() == artifact.file(name).read_bytes()


def test_weights_in_several_files_make_the_same_blend(ends, tmp_path):
    from transformers import AutoModelForCausalLM

    base, tuned = ends
    parts = tmp_path / "parts"
    AutoModelForCausalLM.from_pretrained(tuned).save_pretrained(parts, max_shard_size="200KB")
    assert len(list(parts.glob("*.safetensors"))) > 1
    interpolate(base, tuned, 0.25, tmp_path / "whole")
    interpolate(base, parts, 0.25, tmp_path / "blend")
    assert same_bits(weights(tmp_path / "whole"), weights(tmp_path / "blend"))
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "blend").state_dict()
    assert all((read[name] == weight).all() for name, weight in weights(tmp_path / "whole").items())


def test_models_of_other_parameters_are_refused_in_one_sentence(ends, tmp_path):
    from safetensors.torch import save_file

    base, tuned = ends
    found = weights(tuned)
    name = next(n for n, w in found.items() if w.ndim == 2)
    for case, changed in {"shape": {**found, name: found[name][:-1]}, "name": {"x": found[name].clone()} | found}.items():
        (tmp_path / case).mkdir()
        save_file({k: v.contiguous() for k, v in changed.items()}, tmp_path / case / "model.safetensors")
        with pytest.raises(RetainError, match=r"^cannot interpolate models of unlike parameters: \S+ is .* tuned model$"):
            interpolate(base, tmp_path / case, 0.5, tmp_path / f"{case}-out")


def test_lora_is_blended_by_its_merged_weights(smoke_plan, tmp_path, one_thread):
    import torch

    from retain_core.training.train import train
    from tests.component.golden import METHODS, arm_spec

    train(arm_spec("sft_lora", METHODS["sft_lora"], updates=2, base=smoke_plan.base), smoke_plan.base_path, tmp_path)
    base, merged = weights(smoke_plan.base_path), weights(tmp_path / "weights" / "2")
    interpolate(smoke_plan.base_path, tmp_path / "weights" / "2", 0.5, tmp_path / "half")
    half = weights(tmp_path / "half")
    moved = {name for name in base if not torch.equal(base[name], merged[name])}
    assert half.keys() == base.keys()
    assert moved
    assert all("proj" in name for name in moved)
    for name in base:
        assert torch.allclose(half[name] - base[name], (merged[name] - base[name]) / 2, rtol=0, atol=1e-7)
        assert name in moved or torch.equal(half[name], base[name])


# A study that adds blends


@pytest.fixture
def blended_study(smoke_study, tmp_path):
    path = tmp_path / "smoke.yaml"
    text = smoke_study.read_text().replace(
        'primary: {contrast: [grpo, sft], predict: "<", at: last}',
        "primary: {contrast: [sft_interpolated, sft], at_gain: 0.05}",
    )
    path.write_text(text + "interpolate: [0.5]\n")
    return path


def test_blends_of_a_cached_study_train_nothing(home, blended_study, monkeypatch):
    store = Store(home / "artifacts")
    before = tree(home / "artifacts")
    plan = plan_study(load_study(blended_study), store)
    assert [(a.spec.method, a.to_train, a.missing_evaluations) for a in plan.arms] == [
        ("sft", False, 4), ("grpo", False, 4), ("learning_rate_0", False, 0),
    ]  # fmt: skip
    assert cost_lines([plan], store, 1)[0].startswith("cost: 2 arms, 0 sequences to train on, 8 evaluations")
    monkeypatch.setenv("RETAIN_HOME", str(home))
    assert "2, 4, 4~0.5" in plan_text(blended_study)

    def refuse(*_):
        raise AssertionError("trained")

    monkeypatch.setattr("retain_core.training.train.train", refuse)
    for arm in plan.arms[:2]:
        run_arm(arm.spec, store)
    with open_study(load_study(blended_study), settings_at(home)) as running:
        assert running.plan.done
        publish(running, {})
    after = tree(home / "artifacts")
    assert {k: after[k] for k in before if not k.startswith("studies/")} == {
        k: v for k, v in before.items() if not k.startswith("studies/")
    }
    assert sorted(k.split("/")[0] for k in after.keys() - before.keys() if k.endswith("manifest.json")) == [
        *["divergence"] * 2, *["evaluation"] * 6, "summary",
    ]  # fmt: skip
    assert list((home / "artifacts" / ".drafts").iterdir()) == []


def test_without_the_weights_the_arm_trains_again_to_the_same_end(home, blended_study):
    store = Store(home / "artifacts")
    arm = plan_study(load_study(blended_study), store).arms[0]
    folder = store.path("weights", weights_key(arm.spec, 4))
    kept = (folder / "model.safetensors").read_bytes()
    shutil.rmtree(folder)
    assert plan_study(load_study(blended_study), store).arms[0].to_train
    run_arm(arm.spec, store)
    assert plan_study(load_study(blended_study), store).arms[0].done
    assert (folder / "model.safetensors").read_bytes() == kept


@pytest.mark.slow
def test_a_study_with_blends_end_to_end(home, blended_study):
    """One new method is trained with its blends; all blends are in the warehouse, MLflow has trained checkpoints only."""
    from mlflow import MlflowClient

    blended_study.write_text(blended_study.read_text().replace("[sft, grpo]", "[sft, grpo, sft_in_style]"))
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        before = con.execute("FROM gain_drop ORDER BY ALL").fetchall()
    assert run_plain(blended_study, home) == {}
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        trained = "SELECT * FROM gain_drop WHERE method <> 'sft_in_style' ORDER BY ALL"
        assert con.execute(trained).fetchall() == before
        found = con.execute("SELECT arm, alpha, checkpoint FROM interpolated ORDER BY ALL").fetchall()
        arms = [f"smoke/{method}-lr1e-3-s0" for method in ("grpo", "sft", "sft_in_style")]
        assert found == [
            (arm, alpha, name) for arm in arms for alpha, name in ((0, "smoke/base"), (0.5, f"{arm}@4~0.5"), (1, f"{arm}@4"))
        ]
        blends = con.execute("SELECT step, alpha, kept, path_length FROM checkpoints WHERE alpha IS NOT NULL").fetchall()
        assert blends == [(4, 0.5, False, None)] * 3
        for relation in ("evaluations", "divergences", "scores", "compared"):
            names = {c for (c,) in con.execute(f"SELECT checkpoint FROM {relation}").fetchall()}
            assert {f"{arm}@4~0.5" for arm in arms} <= names, relation
        counted = """SELECT checkpoint, sum(lost + gained) FROM compared WHERE alpha = 0.5 AND metric = study_metric
                     GROUP BY ALL HAVING sum(lost + gained) > 0 ORDER BY ALL"""
        listed = "SELECT checkpoint, count(*) FROM flips WHERE contains(checkpoint, '~') GROUP BY ALL ORDER BY ALL"
        assert con.execute(listed).fetchall() == con.execute(counted).fetchall()
        said = con.execute('SELECT a, b, "at", verdict FROM contrasts WHERE "primary"').fetchall()
        assert said == [("sft_interpolated", "sft", "gain=0.05", "withheld")]
        assert {m for (m,) in con.execute("SELECT method FROM matched_gain").fetchall()} == {
            "sft", "grpo", "sft_in_style", "sft_interpolated", "grpo_interpolated", "sft_in_style_interpolated",
        }  # fmt: skip
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("smoke").experiment_id])
    (run,) = [r for r in runs if r.data.tags.get("retain.method") == "sft_in_style"]
    for key in ("eval/addition/acc", "drop/addition", "gain"):
        assert [m.step for m in client.get_metric_history(run.info.run_id, key)] == [0, 2, 4]
    done = retain("compare", "smoke/sft-lr1e-3-s0@4", "smoke/sft-lr1e-3-s0@4~0.5", home=home)
    assert done.returncode == 0, done.stderr
    assert "goes straight through weight space" in (home / "reports" / "smoke" / "index.html").read_text()


# Analysis, on a study whose truths are known


def without_blends(scores):
    kept = {name for cell in scores.cells for row in cell.checkpoints for name in row} | {scores.base}
    answers = {key: {c: v for c, v in found.items() if c in kept} for key, found in scores.scores.items()}
    return replace(scores, interpolated=[], scores=answers, components={})


@pytest.fixture(scope="module")
def made():
    return made_scores(PLANTED, n=400, alphas=ALPHAS, controls=True, base="lab/tiny", primary=PRIMARY)


@pytest.fixture(scope="module")
def both(made, tmp_path_factory):
    """The same study in two warehouses: with its blends, and without."""
    folder = tmp_path_factory.mktemp("blends")
    for name, scores in (("with", made), ("without", without_blends(made))):
        fill(folder / name, scores).close()
    with (
        duckdb.connect(str(folder / "with"), read_only=True) as a,
        duckdb.connect(str(folder / "without"), read_only=True) as b,
    ):
        yield a, b


TRAINED_ONLY = {
    "forgetting": "FROM forgetting", "gain_drop": "FROM gain_drop", "method_summary": "FROM method_summary",
    "controls": "FROM controls", "kl_law": "FROM kl_law", "pareto": "FROM pareto", "intervals": "FROM intervals",
    "chance_bounds": "FROM chance_bounds", "looks": "FROM looks", "arms": "FROM arms",
    "matched_gain": "FROM matched_gain WHERE method NOT LIKE '%interpolated'",
    "matched_distance": "FROM matched_distance WHERE method NOT LIKE '%interpolated'",
    "matched_kl": "FROM matched_kl WHERE method NOT LIKE '%interpolated'",
    "contrasts": "SELECT * EXCLUDE (p_adjusted) FROM contrasts WHERE a NOT LIKE '%interpolated'",
}  # fmt: skip


def rounded(value):
    if isinstance(value, list | tuple):
        return [rounded(v) for v in value]
    return round(value, 9) if isinstance(value, float) else value


@pytest.mark.parametrize("name", TRAINED_ONLY)
def test_no_figure_of_trained_checkpoints_moves_when_blends_are_added(both, name):
    found = [con.execute(f"{TRAINED_ONLY[name]} ORDER BY ALL").fetchall() for con in both]
    # DuckDB adds in whatever order its threads end, so the last digit of a mean may differ.
    a, b = (sorted(map(rounded, rows), key=str) for rows in found)
    assert a == b != []


def test_blends_are_asked_for_like_checkpoints(both, made):
    con, _ = both
    blends = [name for cell in made.interpolated for row in cell.checkpoints for name in row[:-1]]
    assert len(blends) == 4 * 2 * 3 * 3
    for relation in ("checkpoints", "evaluations", "scores", "compared", "divergences"):
        found = {c for (c,) in con.execute(f"SELECT DISTINCT checkpoint FROM {relation}").fetchall()}
        assert set(blends) <= found, relation
    shown = con.execute("SELECT DISTINCT checkpoint, alpha FROM compared WHERE alpha IS NOT NULL").fetchall()
    assert dict(shown) == {c: float(c.partition("~")[2]) for c in blends}


def test_interpolated_goes_from_the_base_to_the_last_checkpoint(both, made):
    con, _ = both
    sql = 'SELECT arm, alpha, checkpoint, gain, "drop", gain_exact, kl_forward FROM interpolated ORDER BY arm, alpha'
    rows = con.execute(sql).fetchall()
    assert Counter(arm for arm, *_ in rows) == {
        row[0].partition("@")[0]: 5 for cell in made.interpolated for row in cell.checkpoints
    }
    assert [row[1] for row in rows[:5]] == [0, *ALPHAS, 1]
    last = {row[0]: row[1:] for row in con.execute(
        'SELECT checkpoint, gain, "drop", gain_exact, kl_forward FROM gain_drop WHERE step = 80').fetchall()}  # fmt: skip
    for _, alpha, checkpoint, *figures in rows:
        if alpha == 0:
            assert (checkpoint, figures) == ("made/base", [0, 0, 0, 0])
        elif alpha == 1:
            assert figures == pytest.approx(list(last[checkpoint]))
        else:
            drops = [made.drops(q, [checkpoint]).mean() for q in made.retention]
            assert figures[1] == pytest.approx(np.mean(drops))
            assert figures[2] == pytest.approx(-made.drops(made.exact, [checkpoint]).mean())


def test_the_warehouse_gives_back_the_blends(both, made):
    read = read_scores(both[0], "made")
    wanted = {(c.method, c.learning_rate): c for c in made.interpolated}
    assert len(read.interpolated) == len(wanted)
    for cell in read.interpolated:
        known = wanted[cell.method, cell.learning_rate]
        assert (cell.steps, cell.checkpoints, cell.parent) == ((*ALPHAS, 1.0), known.checkpoints, known.parent)
        for axis, values in known.facts.items():
            assert cell.facts[axis] == pytest.approx(values)


def test_the_path_through_weight_space_is_compared_with_training_at_the_same_gain(both):
    """Planted: at half the gain, training has lost .08 and the blend .04."""
    con, _ = both
    sql = 'SELECT a, b, diff, verdict, declared_before, ci_low, ci_high FROM contrasts WHERE "primary"'
    ((a, b, diff, verdict, before, low, high),) = con.execute(sql).fetchall()
    assert (a, b, verdict, before) == ("harmful_interpolated", "harmful", "supported", True)
    assert diff == pytest.approx(-0.04, abs=0.015)
    assert low < -0.04 < high
    pairs = con.execute('SELECT a, b, "at" FROM contrasts WHERE NOT "primary" AND a LIKE \'%interpolated\'').fetchall()
    assert sorted(pairs) == [(f"{m}_interpolated", m, "gain=0.15") for m in ("mild", "other", "twin")]
    steps = "SELECT step, learning_rate FROM matched_gain WHERE method = 'harmful_interpolated' AND gain = 0.15"
    ((step, rate),) = con.execute(steps).fetchall()
    assert step == pytest.approx(0.15 / (0.3 if rate == 1e-4 else 0.36), abs=0.05)


def test_a_contrast_of_blends_declared_after_training_is_late(made, tmp_path):
    late = {"declared_at": "2030-01-03 00:00:00", "trained_at": "2030-01-02 00:00:00"}
    with fill(tmp_path / "late.duckdb", made, **late) as con:
        assert con.execute('SELECT declared_before FROM contrasts WHERE "primary"').fetchall() == [(False,)]


def test_no_cell_is_pooled_with_blends_nor_blends_with_their_own_end(made):
    curves = Curves(made)
    parts = curves.components(0.1, "gain")
    named = {id(part): cell for cell, part in parts.items()}
    assert len(parts) == 16
    for cell in parts:
        pooled = [named[id(part)] for part in pool(cell, parts)]
        assert pooled
        assert all(other.parent is None for other in pooled)
        assert cell not in pooled
        assert cell.parent not in pooled


def test_blends_are_in_no_contrast_at_the_last_checkpoint(made):
    found = contrasts(made, Curves(made), declared(made, 1, 0.05, None))
    assert not [c for c in found if c.at == "last" and "interpolated" in c.a + c.b]
    assert [c.a for c in found if c.primary] == ["harmful_interpolated"]
    assert json.loads(json.dumps(made.spec["primary"]))["contrast"][0] == found[0].a
