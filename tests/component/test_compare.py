"""`retain compare` on files that lm-eval itself wrote, against its own scores and against reference libraries."""

import csv
import io
import json
import math
import random
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from retain_core.compare.checkpoints import read_checkpoints
from retain_core.compare.command import compare_addresses, compare_text
from retain_core.compare.runs import compare_runs
from retain_core.compare.text import COLUMNS
from retain_core.errors import InputError
from retain_core.imported.samples import read_run, refuse_foreign_results
from tests.component.two_models import ALL, run_harness
from tests.conftest import ROOT, retain


@pytest.fixture
def pair(outputs, tmp_path):
    """A copy of both outputs that a test may spoil."""
    for model in ("base", "tuned"):
        shutil.copytree(outputs / model, tmp_path / model)
    return tmp_path / "base", tmp_path / "tuned"


@pytest.fixture(scope="session")
def runs(outputs):
    return read_run(outputs / "base"), read_run(outputs / "tuned")


@pytest.fixture(scope="session")
def compared(runs):
    return {row.benchmark: row for row in compare_runs(*runs).rows}


def benchmark(run, name):
    return next(b for b in run.benchmarks if b.name == name)


def samples(folder: Path, name: str) -> Path:
    return next(folder.glob(f"samples_{name}_2*.jsonl"))


def results(folder: Path) -> dict:
    return json.loads(next(folder.glob("results_*.json")).read_text())


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def rewrite(file: Path, rows: list) -> None:
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def forget_results(*folders: Path) -> None:
    for folder in folders:
        next(folder.glob("results_*.json")).unlink()


def differences(runs, name, key):
    x, y = (benchmark(run, name) for run in runs)
    return np.array(x.item_scores(key)) - np.array(y.item_scores(key))


# Reading


@pytest.mark.parametrize("model", ["base", "tuned"])
def test_item_scores_average_to_what_lm_eval_reported(outputs, model):
    run, told = read_run(outputs / model), results(outputs / model)
    assert {b.name for b in run.benchmarks} == set(ALL)
    for found in run.benchmarks:
        reported = {k: v for k, v in told["results"][found.name].items() if "," in k and "_stderr" not in k}
        assert found.metrics.keys() | found.left_out.keys() == reported.keys()
        for key, metric in found.metrics.items():
            assert metric.reported == reported[key]
            refuse_foreign_results(found, key)
    sums = benchmark(run, "sums")
    assert np.mean(sums.item_scores("exact_match,flexible-extract")) == pytest.approx(
        told["results"]["sums"]["exact_match,flexible-extract"], abs=1e-12
    )


def test_perplexities_become_log_likelihoods_that_are_higher_for_the_better_model(outputs, runs):
    for run, model in zip(runs, ("base", "tuned"), strict=True):
        found, told = benchmark(run, "stories"), results(outputs / model)["results"]["stories"]
        score, words = found.item_scores("word_perplexity,none"), [i.weights["word_perplexity,none"] for i in found.items]
        assert math.exp(-np.average(score, weights=words)) == pytest.approx(told["word_perplexity,none"], rel=1e-9)
        bytes_ = [i.weights["bits_per_byte,none"] for i in found.items]
        bits = -np.average(found.item_scores("bits_per_byte,none"), weights=bytes_) / math.log(2)
        assert bits == pytest.approx(told["bits_per_byte,none"], rel=1e-9)
    both = [results(outputs / m)["results"]["stories"]["word_perplexity,none"] for m in ("base", "tuned")]
    assert both[1] > both[0]
    (row,) = (r for r in compare_runs(*runs).rows if r.role == "beside")
    assert row.drop == pytest.approx(math.log(both[1] / both[0]), rel=1e-9)
    assert (row.unit, row.lost, row.gained, row.p_holm) == ("nats", None, None, None)


def test_where_lower_is_better_the_score_is_negated_and_stands_beside(outputs, runs):
    row = next(r for r in compare_runs(*runs, {"followed": "words"}).rows if r.benchmark == "followed")
    told = [results(outputs / m)["results"]["followed"]["words,none"] for m in ("base", "tuned")]
    assert (row.score_a, row.score_b) == pytest.approx((-told[0], -told[1]), abs=1e-12)
    assert (row.role, row.unit, row.drop) == ("beside", "score", pytest.approx(told[1] - told[0], abs=1e-12))
    assert compare_runs(*runs, {"followed": "words"}).mean.benchmarks == 4


def test_a_group_is_one_benchmark_weighted_as_the_harness_weights_it(outputs, models, runs, tmp_path):
    zoo = benchmark(runs[0], "zoo")
    assert set(zoo.parts) == {"animals_legs", "animals_sounds", "colours"}
    assert len(zoo.items) == 72
    alone = [read_run(run_harness(models, m, ["animals"], tmp_path)) for m in ("base", "tuned")]
    row = compare_runs(*alone).rows[0]
    told = [results(tmp_path / m)["results"] for m in ("base", "tuned")]
    assert row.benchmark == "animals"
    assert (row.score_a, row.score_b) == pytest.approx([t["animals"]["acc,none"] for t in told], abs=1e-12)
    # Equal subtasks of 16 and 8 items: worked by hand from the two subtasks.
    d = differences(alone, "animals", "acc,none")
    legs, sounds = d[:16], d[16:]
    assert row.drop == pytest.approx((legs.mean() + sounds.mean()) / 2, abs=1e-12)
    variances = [x.var(ddof=1) / len(x) / 4 for x in (legs, sounds)]
    df = sum(variances) ** 2 / (variances[0] ** 2 / 15 + variances[1] ** 2 / 7)
    half = scipy.stats.t.ppf(0.975, df) * math.sqrt(sum(variances))
    assert (row.ci_low, row.ci_high) == pytest.approx((row.drop - half, row.drop + half), abs=1e-12)
    assert row.p_value == pytest.approx(2 * scipy.stats.t.sf(abs(row.drop) / math.sqrt(sum(variances)), df), rel=1e-9)


def test_a_group_by_size_counts_items_equally_within_fixed_subtasks(runs, compared):
    row, zoo = compared["zoo"], benchmark(runs[0], "zoo")
    d = differences(runs, "zoo", "acc,none")
    assert row.drop == pytest.approx(d.mean(), abs=1e-12)
    parts = np.array([item.part for item in zoo.items])
    variance = sum((len(x) / 72) ** 2 * x.var(ddof=1) / len(x) for x in (d[parts == p] for p in zoo.parts))
    assert row.stderr == pytest.approx(math.sqrt(variance), rel=1e-12)
    assert row.p_value == pytest.approx(mcnemar([[0, row.lost], [row.gained, 0]], exact=True).pvalue, abs=1e-12)


def test_one_file_of_a_group_is_a_benchmark_of_its_own(outputs):
    run = read_run(samples(outputs / "base", "animals_legs"))
    assert [(b.name, len(b.items)) for b in run.benchmarks] == [("animals_legs", 16)]


def test_filters_are_metrics_of_their_own(outputs, runs):
    told = results(outputs / "tuned")["results"]["sums"]
    keys = ["exact_match,strict-match", "exact_match,flexible-extract"]
    assert list(benchmark(runs[1], "sums").metrics) == keys
    assert benchmark(runs[1], "sums").metric == keys[0]
    for key in keys:
        row = next(r for r in compare_runs(*runs, {"sums": key}).rows if r.benchmark == "sums")
        assert (row.metric, row.score_b) == (key, pytest.approx(told[key], abs=1e-12))
    assert told[keys[0]] != told[keys[1]]
    with pytest.raises(InputError, match=r"say which of exact_match,strict-match, exact_match,flexible-extract"):
        compare_runs(*runs, {"sums": "exact_match"})
    with pytest.raises(InputError, match="no such metric; sums has exact_match,strict-match"):
        compare_runs(*runs, {"sums": "bleu"})
    with pytest.raises(InputError, match="there is no benchmark nothing"):
        compare_runs(*runs, {"nothing": "acc"})


def test_repeats_are_scored_once_for_each_filter(outputs, runs):
    found = benchmark(runs[0], "voted_sums")
    assert {item.repeats for item in found.items} == {3}
    assert len(found.items) == 48
    votes = {
        row["doc_id"]: row["exact_match"] for row in lines(samples(outputs / "base", "voted_sums")) if row["filter"] == "maj@3"
    }
    assert {i.doc_id: i.scores["exact_match,maj@3"] for i in found.items} == votes


def test_instructions_of_a_document_count_one_by_one_and_medians_are_left_out(outputs, runs):
    found = benchmark(runs[1], "followed")
    told = results(outputs / "tuned")["results"]["followed"]
    assert found.left_out == {"middle_length,none": "not a mean of item scores"}
    rows = compare_runs(*runs, {"followed": "each_followed"}).rows
    row = next(r for r in rows if r.benchmark == "followed")
    assert row.score_b == pytest.approx(told["each_followed,none"], abs=1e-12)
    assert 0 < row.score_b < 1
    assert (row.lost, row.role) == (None, "mean")
    assert found.metric == "all_followed,none"
    with pytest.raises(InputError, match=r"followed has no metric middle_length,none \(not a mean of item scores\)"):
        compare_runs(*runs, {"followed": "middle_length"})


def test_items_carry_prompt_answer_and_target(outputs, runs):
    zoo = [i for i in benchmark(runs[0], "zoo").items if i.part == "colours"]
    raw = {row["doc_id"]: row for row in lines(samples(outputs / "base", "colours"))}
    for item in zoo:
        assert item.prompt == f"the colour of the {raw[item.doc_id]['doc']['thing']} is"
        assert item.target == raw[item.doc_id]["doc"]["colour"]
        assert item.choices == 4
        assert (item.response == item.target) == bool(item.scores["acc,none"])
        assert item.doc_hash == raw[item.doc_id]["doc_hash"]
    sums = benchmark(runs[1], "sums").items
    assert all(i.extracted["exact_match,strict-match"] == i.target for i in sums if i.scores["exact_match,strict-match"])


def test_the_settings_are_read_and_the_model_is_not_one(runs):
    settings = benchmark(runs[0], "sums").settings
    expected = {
        "lm_eval_version": "0.4.13", "version": 1.0, "num_fewshot": 0, "batch_size": 64, "dtype": "torch.float32",
        "backend": "hf", "chat_template_sha": None, "system_instruction_sha": None, "gen_kwargs": None, "limit": None,
        "random_seed": 0,
        "fewshot_seed": 1234, "model_args.dtype": "float32",
    }  # fmt: skip
    assert expected.items() <= settings.items()
    assert "max_gen_toks" in settings["generation_kwargs"]
    assert not any("base" in str(v) for v in settings.values())
    assert (runs[0].model, runs[1].model) == ("base", "tuned")


def test_a_folder_with_several_models_or_runs_asks_for_one(pair, models):
    base, _ = pair
    with pytest.raises(InputError, match=r"holds the results of 2 models; name one of .*base, .*tuned"):
        read_run(base.parent)
    together = base.parent / "together"
    together.mkdir()
    for folder, name in zip(pair, ("sums", "stories"), strict=True):
        for file in (samples(folder, name), next(folder.glob("results_*"))):
            shutil.copy(file, together)
    with pytest.raises(InputError, match=r"together holds the results of 2 models \(base, tuned\)"):
        read_run(together)
    shutil.rmtree(together)
    run_harness(models, "base", ["sums"], base.parent)
    with pytest.raises(
        InputError, match=r"holds 2 runs of sums; name one \(newest first\): .*results_.*json, .*results_.*json"
    ) as e:
        read_run(base)
    newest, oldest = re.findall(r"[^ ,]+\.json", str(e.value))
    assert newest > oldest
    assert [b.name for b in read_run(Path(newest)).benchmarks] == ["sums"]
    assert {b.name for b in read_run(Path(oldest)).benchmarks} == set(ALL)
    for file in base.glob("*"):
        if file.name.startswith("samples_sums") and newest[-20:-5] not in file.name:
            file.unlink()
    assert {b.name for b in read_run(base).benchmarks} == set(ALL), "runs of different benchmarks belong together"


# Comparing


def test_swapping_the_sides_swaps_lost_and_gained_and_turns_the_signs(runs, compared):
    back = {row.benchmark: row for row in compare_runs(*reversed(runs)).rows}
    for name, row in compared.items():
        other = back[name]
        assert (row.lost, row.gained) == (other.gained, other.lost)
        assert (row.drop, row.ci_low, row.ci_high) == pytest.approx((-other.drop, -other.ci_high, -other.ci_low), abs=1e-12)
        assert (row.p_value, row.p_holm, row.detectable) == pytest.approx((other.p_value, other.p_holm, other.detectable))
        assert (row.score_a, row.score_b) == (other.score_b, other.score_a)


def test_drop_is_lost_minus_gained_over_n(compared):
    counted = [row for row in compared.values() if row.lost is not None]
    assert sum(row.lost > 0 for row in counted) >= 3
    for row in counted:
        assert row.drop == pytest.approx((row.lost - row.gained) / row.n, abs=1e-12)


def test_the_order_of_lines_changes_nothing(pair, compared):
    for folder in pair:
        for file in folder.glob("*.jsonl"):
            rows = lines(file)
            random.Random(file.name).shuffle(rows)
            rewrite(file, rows)
    rows = {row.benchmark: row for row in compare_runs(*map(read_run, pair)).rows}
    for name, row in compared.items():
        for column in COLUMNS:
            expected = getattr(row, column)
            assert getattr(rows[name], column) == (
                pytest.approx(expected, rel=1e-12) if isinstance(expected, float) else expected
            )


def test_documents_are_matched_by_hash_not_by_number(pair, compared):
    file = samples(pair[1], "sums")
    rewrite(file, [{**row, "doc_id": 47 - row["doc_id"]} for row in lines(file)])
    row = next(r for r in compare_runs(*map(read_run, pair)).rows if r.benchmark == "sums")
    assert (row.lost, row.gained) == (compared["sums"].lost, compared["sums"].gained)


def test_equal_documents_are_told_apart_by_their_order(pair):
    for folder in pair:
        file = samples(folder, "sums")
        rows = lines(file)
        rewrite(file, rows + [{**row, "doc_id": 48} for row in rows if row["doc_id"] == 0])
    forget_results(*pair)
    row = next(r for r in compare_runs(*map(read_run, pair)).rows if r.benchmark == "sums")
    assert row.n == 49


def test_a_model_against_itself(runs):
    found = compare_runs(runs[0], runs[0])
    for row in found.rows:
        assert (row.drop, row.ci_low, row.ci_high, row.p_value) == (0, 0, 0, 1)
        assert row.lost in (0, None)
        assert row.detectable is None
    assert (found.mean.drop, found.mean.ci_low, found.mean.ci_high) == (0, 0, 0)
    assert found.lost == ()


def test_a_copy_of_the_outputs_is_pointed_out(pair):
    shutil.rmtree(pair[1])
    shutil.copytree(pair[0], pair[1])
    assert "is B the model you meant?" in compare_text(*map(str, pair))[0]


def test_flips_that_cancel_show_no_drop_and_still_count(pair):
    file = samples(pair[1], "sums")
    rows = lines(samples(pair[0], "sums"))
    right = [row["doc_id"] for row in rows if row["filter"] == "strict-match" and row["exact_match"] == 1][:5]
    wrong = [row["doc_id"] for row in rows if row["filter"] == "strict-match" and row["exact_match"] == 0][:5]
    rewrite(file, [{**row, "exact_match": 1 - row["exact_match"]} if row["doc_id"] in right + wrong else row for row in rows])
    forget_results(pair[1])
    text = compare_text(str(samples(pair[0], "sums")), str(file))[0]
    row = compare_runs(read_run(samples(pair[0], "sums")), read_run(file)).rows[0]
    assert (row.drop, row.lost, row.gained, row.p_value) == (0, 5, 5, 1)
    assert "sums: 10 of 48 answers flipped (5 lost, 5 gained), which the net of 0.0 points hides." in text


def test_statistics_agree_with_the_reference_libraries(runs, compared):
    for name in ("sums", "voted_sums", "endings"):
        row = compared[name]
        d = differences(runs, name, row.metric)
        t = scipy.stats.ttest_1samp(d, 0)
        assert (row.ci_low, row.ci_high) == pytest.approx(t.confidence_interval(0.95), abs=1e-12)
        assert row.p_value == pytest.approx(mcnemar([[0, row.lost], [row.gained, 0]], exact=True).pvalue, abs=1e-12)
        assert row.detectable == pytest.approx(2.8 * scipy.stats.sem(d), rel=1e-12)
    counted = [row for row in compared.values() if row.role == "mean"]
    adjusted = multipletests([row.p_value for row in counted], method="holm")[1]
    assert [row.p_holm for row in counted] == pytest.approx(list(adjusted), rel=1e-12)


def test_a_mean_over_words_has_the_error_of_a_weighted_mean(runs, compared):
    row = compared["stories"]
    d = differences(runs, "stories", row.metric)
    words = [item.weights[row.metric] for item in benchmark(runs[0], "stories").items]
    fit = sm.WLS(d, np.ones(len(d)), weights=words).fit(cov_type="HC1", use_t=True)
    assert (row.drop, row.stderr, row.p_value) == pytest.approx((fit.params[0], fit.bse[0], fit.pvalues[0]), rel=1e-9)


def test_the_mean_takes_the_benchmarks_as_given(runs, compared):
    mean = compare_runs(*runs).mean
    counted = [row for row in compared.values() if row.role == "mean"]
    assert mean.benchmarks == len(counted) == 5
    assert mean.drop == pytest.approx(sum(row.drop for row in counted) / 5, abs=1e-12)
    parts = [row.stderr**2 / 25 for row in counted]
    df = sum(parts) ** 2 / sum(v**2 / row.df for v, row in zip(parts, counted, strict=True))
    half = scipy.stats.t.ppf(0.975, df) * math.sqrt(sum(parts))
    assert (mean.ci_low, mean.ci_high) == pytest.approx((mean.drop - half, mean.drop + half), abs=1e-12)


def test_clusters_replace_items_and_few_are_refused(pair, outputs):
    few = compare_runs(*(read_run(outputs / m, "family") for m in ("base", "tuned")))
    sums = next(row for row in few.rows if row.benchmark == "sums")
    assert (sums.clusters, sums.ci_low, sums.detectable) == (10, None, None)
    assert sums.p_value is not None
    assert few.mean.ci_low is None
    assert any("sums: 10 clusters are too few for an interval (at least 20)" in note for note in few.notes)
    for folder in pair:
        file = samples(folder, "sums")
        rewrite(file, [{**row, "doc": {**row["doc"], "family": row["doc_id"] % 24}} for row in lines(file)])
    runs = [read_run(samples(folder, "sums"), "family") for folder in pair]
    row = compare_runs(*runs).rows[0]
    d = differences(runs, "sums", row.metric)
    groups = [int(item.cluster) for item in benchmark(runs[0], "sums").items]
    fit = sm.OLS(d, np.ones(len(d))).fit(cov_type="cluster", cov_kwds={"groups": groups, "df_correction": True}, use_t=True)
    # statsmodels adds (n - 1) / (n - k), which is 1 for a mean.
    assert row.stderr == pytest.approx(fit.bse[0], rel=1e-9)
    assert (row.clusters, row.df) == (24, 23)
    with pytest.raises(InputError, match=r"no document of .* has that field"):
        compare_text(*map(str, pair), cluster="passage")


def test_scores_in_between_have_no_flips_and_a_t_test(pair):
    for folder, shift in zip(pair, (0.0, 0.1), strict=True):
        file = samples(folder, "sums")
        rewrite(file, [{**row, "exact_match": 0.8 * row["exact_match"] + shift * (row["doc_id"] % 2)} for row in lines(file)])
    forget_results(*pair)
    runs = [read_run(samples(folder, "sums")) for folder in pair]
    row = compare_runs(*runs).rows[0]
    d = differences(runs, "sums", row.metric)
    assert (row.lost, row.gained, row.role) == (None, None, "mean")
    assert row.p_value == pytest.approx(scipy.stats.ttest_1samp(d, 0).pvalue, rel=1e-9)


# Refusing


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"batch_size": 16}, [r"batch_size \(64 against 16\)"]),
        ({"num_fewshot": 2, "limit": 20}, [r"limit \(None against 20\)", r"num_fewshot \(0 against 2\)"]),
        ({"system_instruction": "think"}, [r"system_instruction_sha \(None against [0-9a-f]{64}\)"]),
        ({"gen_kwargs": {"max_gen_toks": 3}}, ["generation_kwargs", r"gen_kwargs \(None against \{'max_gen_toks': 3\}\)"]),
    ],
)
def test_unlike_settings_refuse_and_list_what_differs(models, outputs, tmp_path, options, told):
    other = run_harness(models, "tuned", ["sums"], tmp_path, **options)
    with pytest.raises(InputError, match="evaluated under unlike settings, nothing is compared") as error:
        compare_runs(read_run(outputs / "base"), read_run(other))
    for pattern in told:
        assert re.search(pattern, str(error.value)), str(error.value)
    assert "seed" not in str(error.value)


def test_unknown_settings_are_said_to_be_unknown(pair):
    forget_results(pair[1])
    base, tuned = (samples(folder, "sums") for folder in pair)
    assert "the settings of B are unknown (no results JSON beside the samples)" in compare_text(str(base), str(tuned))[0]


def test_a_metric_of_unknown_direction_is_left_out_and_named(pair):
    forget_results(*pair)
    found = compare_runs(*map(read_run, pair))
    assert "followed" not in {row.benchmark for row in found.rows}
    assert any(note.startswith("followed is left out: all_followed,none (nothing says") for note in found.notes)
    with pytest.raises(InputError, match=r"followed has no metric that can be compared .* keep results_"):
        compare_runs(*(read_run(samples(folder, "followed")) for folder in pair))


def test_files_with_names_of_their_own_are_one_benchmark(pair, compared):
    files = [
        samples(folder, "sums").rename(folder / name) for folder, name in zip(pair, ("mine.jsonl", "theirs.jsonl"), strict=True)
    ]
    row = compare_runs(*map(read_run, files)).rows[0]
    assert (row.benchmark, row.lost, row.gained) == ("mine", compared["sums"].lost, compared["sums"].gained)


def test_missing_items_refuse_with_their_ids(pair):
    file = samples(pair[1], "sums")
    rewrite(file, [row for row in lines(file) if row["doc_id"] not in (3, 7)])
    for sides in (pair, pair[::-1]):
        with pytest.raises(InputError, match=r"sums: 2 items are missing in .*tuned: doc_id 3, 7$"):
            compare_runs(*map(read_run, sides))


def test_doubled_items_refuse_with_their_ids(pair):
    file = samples(pair[1], "sums")
    rows = lines(file)
    rewrite(file, rows + [row for row in rows if row["doc_id"] in (3, 5)])
    with pytest.raises(InputError, match=r"samples_sums_.*: 2 items are there twice: doc_id 3, 5$"):
        read_run(pair[1])


@pytest.mark.parametrize("what", ["prompt", "target"])
def test_items_asked_otherwise_refuse_with_their_ids(pair, what):
    file = samples(pair[1], "sums")
    rewrite(file, [{**row, f"{what}_hash": "0" * 64} if row["doc_id"] in (1, 2) else row for row in lines(file)])
    with pytest.raises(InputError, match=rf"^sums: the {what} of 2 items differ between A and B: doc_id 1, 2$"):
        compare_runs(*map(read_run, pair))


def test_samples_of_another_run_than_the_results_refuse(pair):
    file = samples(pair[1], "sums")
    rewrite(file, [{**row, "exact_match": 1.0} for row in lines(file)])
    with pytest.raises(InputError, match=r"the samples of sums give exact_match,strict-match = 1, its results JSON says 0\."):
        compare_runs(*map(read_run, pair))


SPOILT = {
    "a cut line": (lambda rows: [*rows[:4], json.dumps(rows[4])[:80]], "line 5: not a line of JSON; is the file cut off"),
    "nan": (
        lambda rows: [*rows[:2], {**rows[2], "exact_match": math.nan}, *rows[3:]],
        "line 3: exact_match,strict-match is nan",
    ),
    "a missing metric": (
        lambda rows: [rows[0], {k: v for k, v in rows[1].items() if k != "exact_match"}, *rows[2:]],
        "line 2: the metric exact_match is named but missing",
    ),
    "a missing filter": (
        lambda rows: [row for row in rows if (row["doc_id"], row["filter"]) != (6, "strict-match")],
        "the metric exact_match,strict-match is missing",
    ),
    "no metric": (
        lambda rows: [{**{k: v for k, v in rows[0].items() if k != "exact_match"}, "metrics": []}, *rows[1:]],
        "line 1: the sample has no metric",
    ),
    "another file": (lambda rows: ['{"question": "why?"}'], "line 1: not a sample of lm-eval"),
    "a list": (lambda rows: ["[1, 2]"], "line 1: not a sample of lm-eval"),
    "nothing": (lambda rows: [], "the file is empty"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_bad_files_are_named_with_the_line(pair, how):
    spoil, message = SPOILT[how]
    file = samples(pair[1], "sums")
    rewrite(file, spoil(lines(file)))
    with pytest.raises(InputError) as error:
        compare_runs(read_run(samples(pair[0], "sums")), read_run(file))
    assert str(file) in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_other_wrong_input(pair, models, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match=r"no samples_<benchmark>_<date>.jsonl below it; run lm_eval with --log_samples"):
        read_run(empty)
    bad = pair[0] / "results_x.json"
    bad.write_text("[]")
    with pytest.raises(InputError, match="there is no samples"):
        read_run(bad)
    next(pair[0].glob("results_2*.json")).write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        read_run(pair[0])
    with pytest.raises(InputError, match=r"no benchmark in common: .* has sums; .* has stories"):
        compare_runs(*(read_run(samples(pair[1], name)) for name in ("sums", "stories")))
    for arguments, message in (
        ({"form": "yaml"}, "unknown format 'yaml'"), ({"form": "csv", "flips": 1}, "--flips goes with"),
        ({"metrics": ["sums"]}, "write benchmark=metric"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            compare_text(str(pair[1]), str(pair[1]), **arguments)
    silent = run_harness(models, "base", ["sums"], tmp_path / "silent", predict_only=True)
    with pytest.raises(InputError, match=r"sums has no metric that can be compared \(bypass,strict-match"):
        compare_runs(read_run(silent), read_run(silent))


# Printing


def test_csv_and_json_hold_the_same_rows_as_fractions(outputs, compared):
    paths = [str(outputs / m) for m in ("base", "tuned")]
    told, notes = compare_text(*paths, form="json")
    rows = {row["benchmark"]: row for row in json.loads(told)}
    assert set(rows) == {*compared, "(mean)"}
    assert notes == []
    for name, row in compared.items():
        assert rows[name] == {column: getattr(row, column) for column in COLUMNS}
    assert [r["benchmark"] for r in csv.DictReader(io.StringIO(compare_text(*paths, form="csv")[0]))] == list(rows)


def test_the_drop_corrected_for_chance(outputs):
    runs = [read_run(samples(outputs / m, "colours")) for m in ("base", "tuned")]
    row = compare_runs(*runs).rows[0]
    assert row.choices == 4
    assert row.drop_chance_corrected == pytest.approx(row.drop * 4 / 3, abs=1e-15)


def test_a_group_with_unlike_numbers_of_choices_has_no_chance_level(compared):
    assert compared["zoo"].choices is None
    assert compared["sums"].choices is None


def test_flips_are_lost_items_with_both_answers(outputs):
    paths = [str(samples(outputs / m, "sums")) for m in ("base", "tuned")]
    text, _ = compare_text(*paths, flips=3)
    blocks = re.findall(
        r"--- sums, doc_id (\d+), exact_match,strict-match\nprompt: (.*)\nA: +(.*)\nB: +(.*)\ntarget: (.*)", text
    )
    assert len(blocks) == 3
    before, after = ({r["doc_id"]: r for r in lines(Path(p)) if r["filter"] == "strict-match"} for p in paths)
    for doc, prompt, a, b, target in blocks:
        left, right = before[int(doc)], after[int(doc)]
        assert (left["exact_match"], right["exact_match"]) == (1, 0)
        assert a.startswith(left["resps"][0][0])
        assert b.startswith(right["resps"][0][0])
        assert (prompt, target) == (left["arguments"]["gen_args_0"]["arg_0"], left["target"])


def test_markdown_is_a_table(outputs):
    text, _ = compare_text(*(str(outputs / m) for m in ("base", "tuned")), form="markdown")
    head, rule, *_ = [line for line in text.splitlines() if line.startswith("|")]
    assert head.count("|") == rule.count("|") == 13


def test_signs_are_explicit_and_points_are_points(outputs, compared):
    text, _ = compare_text(*(str(outputs / m) for m in ("base", "tuned")))
    row = compared["sums"]
    line = next(line for line in text.splitlines() if line.startswith("sums "))
    assert f"| {100 * row.drop:+.1f} | [{100 * row.ci_low:+.1f}, {100 * row.ci_high:+.1f}] |" in line
    assert f"sums lost {100 * row.drop:.1f} points" in text


def test_the_command_starts_without_the_heavy_modules(tmp_path):
    code = "import sys, retain_core.compare.command, flows.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "lm_eval", "transformers", "datasets", "pandas", "prefect"} & set(done.stdout.split())


def test_exit_codes(here, tmp_path):
    base, tuned = "docs/examples/base", "docs/examples/tuned"
    assert retain("compare", base, tuned, "--format", "csv", home=tmp_path).returncode == 0
    done = here("compare", base, "docs/examples/none", home=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == "retain: docs/examples/none does not exist; compare two files or folders, or two checkpoints, arms or studies of "
        "the home\n"
    )


# docs/compare.md

SHOWN = re.findall(r"```console\n\$ retain (.*)\n((?:.*\n)*?)```", (ROOT / "docs" / "compare.md").read_text())


@pytest.mark.parametrize(("command", "output"), SHOWN)
def test_the_shown_output_is_what_the_command_prints(here, command, output, tmp_path):
    assert here(*command.split(), home=tmp_path).stdout == output


def test_the_example_is_small_real_and_tells_no_machine():
    assert len(SHOWN) >= 2
    files = [f for f in (ROOT / "docs" / "examples").rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) < 300_000
    for file in files:
        assert not re.search(r"/(home|root|tmp|work|Users)/", file.read_text()), file
    for model in ("base", "tuned"):
        run = read_run(ROOT / "docs" / "examples" / model)
        for found in run.benchmarks:
            refuse_foreign_results(found, found.metric)


# Checkpoints of the home


def test_checkpoints_compare_as_the_forgetting_view_says(finished_home, here, warehouse):
    told = warehouse.execute(
        """SELECT checkpoint, benchmark, n, "drop", lost, gained, ci_low, ci_high, p_value FROM compared
        WHERE metric = study_metric AND arm_role = 'method' AND role <> 'probe'"""
    ).fetchall()
    assert len(told) >= 6
    for checkpoint, name, *expected in told:
        a, b, metrics, roles = read_checkpoints(warehouse, "smoke/base", checkpoint)
        row = next(r for r in compare_runs(a, b, metrics, roles).rows if r.benchmark == name)
        found = (row.n, row.drop, row.lost, row.gained, row.ci_low, row.ci_high, row.p_value)
        assert found == pytest.approx(tuple(expected), abs=1e-9)
        assert row.role == ("target" if name == "countdown" else "mean")
    last = max(c for c, *_ in told)
    done = here("compare", "smoke/base", last, home=finished_home)
    assert (done.returncode, done.stderr) == (0, "")
    assert "The target of training, not part of the mean" in done.stdout


def test_an_arm_stands_for_its_last_checkpoint_and_says_so(warehouse):
    ends = warehouse.execute(
        """SELECT arm, max_by(checkpoint, step), count(*) FROM checkpoints JOIN arms USING (arm)
        WHERE role = 'method' GROUP BY arm ORDER BY ALL"""
    ).fetchall()
    (a, last_a, steps), (b, last_b, _) = ends[0], ends[-1]
    by_arm, by_checkpoint = compare_addresses(warehouse, a, b), compare_addresses(warehouse, last_a, last_b)
    assert (by_arm.rows, by_arm.mean, by_arm.lost) == (by_checkpoint.rows, by_checkpoint.mean, by_checkpoint.lost)
    assert f"{last_a} is the last of {steps} checkpoints of the arm {a}" in by_arm.notes
    assert not any(a in note for note in by_checkpoint.notes)
    assert by_arm.lost
    assert all(flip.item.prompt for flip in by_arm.lost)


def test_wrong_addresses_are_explained(warehouse):
    with pytest.raises(
        InputError, match=r"smoke/none is neither .* nor a study, arm or checkpoint of this home, which has the"
    ):
        compare_addresses(warehouse, "smoke/base", "smoke/none")
    with pytest.raises(InputError, match=r"^smoke is a study and smoke/base is one model: compare two studies, or two arms"):
        compare_addresses(warehouse, "smoke/base", "smoke")


def test_checkpoints_under_unlike_settings_refuse(warehouse):
    a, _, metrics, roles = read_checkpoints(warehouse, "smoke/base", "smoke/base")
    other = replace(a, benchmarks=tuple(replace(x, settings={**x.settings, "batch_size": 7}) for x in a.benchmarks))
    with pytest.raises(InputError, match=r"unlike settings, nothing is compared: batch_size \(400 against 7\)$"):
        compare_runs(a, other, metrics, roles)
