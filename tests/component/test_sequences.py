"""Sequences of targets: how they are trained, on tiny models, and what is computed of them, on made-up scores."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from retain_core.analysis.cells import cell_intervals, others
from retain_core.analysis.contrasts import contrasts, declared
from retain_core.analysis.law import law_of
from retain_core.analysis.matching import Curves, front_points, matched_points
from retain_core.analysis.scores import read_scores
from retain_core.stats.crossed import mean_components, mean_drop_interval
from tests.component.golden import METHODS, arm_spec
from tests.synthetic import METHODS as PLANTED
from tests.synthetic import STAGE, TARGET, THEN, Truth, fill, made_scores, made_sequence

# Training


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def same_bits(a, b):
    import torch

    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def far(a, b):
    return sum(float((a[name] - b[name]).double().norm()) ** 2 for name in a) ** 0.5


def test_three_targets_in_a_row_of_which_rl_finds_no_right_answer(base, tmp_path, one_thread):
    """As in h23: SFT moves in every stage; without a right sample REINFORCE and GRPO end the sequence where they began it."""
    from retain_core.training.train import train

    methods = {
        "sft_in_style": {"algorithm": "sft", "expert": "in_style"}, "grpo": {"algorithm": "grpo"},
        "reinforce": {"algorithm": "reinforce"},
    }  # fmt: skip
    for label, dials in methods.items():
        spec = arm_spec(label, dials, updates=1, steps=(1, 2, 3), then=("new_format", "new_facts"))
        record = train(spec, base, tmp_path / label)
        assert (record.updates, record.sequences) == (3, 48)
        ways = [weights(base), *(weights(tmp_path / label / "weights" / str(step)) for step in (1, 2, 3))]
        moved = [far(after, before) > 0 for before, after in pairwise(ways)]
        assert moved == [label == "sft_in_style"] * 3


@pytest.mark.parametrize("label", ["sft_kl", "grpo", "sft_lora"])
def test_a_stage_is_the_single_stage_arm_from_the_weights_before_it(label, base, tmp_path, one_thread):
    """The penalty's reference, the samples and the adapters of stage 2 are those of an arm that starts there."""
    from retain_core.training.train import train

    dials = METHODS[label]
    spec = arm_spec(label, dials, updates=2, steps=(1, 2, 3, 4), then=("new_format",))
    alone = [tmp_path / "first", tmp_path / "second"]
    whole = train(spec, base, tmp_path / "whole")
    one = train(spec.stages()[0], base, alone[0])
    two = train(spec.stages()[1], alone[0] / "weights" / "2", alone[1])
    for step, folder in {
        1: alone[0] / "weights" / "1",
        2: alone[0] / "weights" / "2",
        3: alone[1] / "weights" / "1",
        4: alone[1] / "weights" / "2",
    }.items():
        assert same_bits(weights(tmp_path / "whole" / "weights" / str(step)), weights(folder)), step
    assert far(weights(alone[1] / "weights" / "2"), weights(alone[0] / "weights" / "2")) > 0
    for name in ("updates", "sequences", "unique_prompts", "tokens_trained", "tokens_generated"):
        assert getattr(whole, name) == getattr(one, name) + getattr(two, name)
    assert whole.style_distance == one.style_distance

    def losses(record, before=0):
        return [(p["step"] + before, p["value"]) for p in record.curve if p["name"] in ("loss", "kl", "grad_norm")]

    assert losses(whole) == losses(one) + losses(two, before=2)
    origin = weights(base)
    for step, (distance, path) in whole.distances.items():
        assert distance == pytest.approx(far(weights(tmp_path / "whole" / "weights" / str(step)), origin), rel=1e-4)
        walked = one.distances[step][1] if step <= 2 else one.distances[2][1] + two.distances[step - 2][1]
        assert path == pytest.approx(walked, rel=1e-6)


# Analysis

QUESTIONS = {name: PLANTED[name] for name in ("harmful", "harmless", "twin", "other")}
PRIMARY = {"contrast": ["harmful", "harmless"], "predict": ">", "at": "last", "margin": 0.02}
STAGES = len(THEN) + 1


@pytest.fixture(scope="module")
def made():
    return made_sequence(QUESTIONS, base="lab/tiny", controls=True, primary=PRIMARY, n=120)


@pytest.fixture(scope="module")
def con(made, tmp_path_factory):
    with fill(tmp_path_factory.mktemp("sequence") / "w.duckdb", made) as found:
        yield found


def name_of(cell, seed, stage):
    return cell.checkpoints[cell.seeds.index(seed)][stage * len(STAGE) - 1]


def score(made, benchmark, metric, checkpoint):
    return made.scores[benchmark, metric][checkpoint].mean()


def test_the_warehouse_gives_back_the_sequence(con, made):
    read = read_scores(con, "made")
    assert [q.benchmark for q in read.targets] == [TARGET, *THEN]
    assert [(q.benchmark, q.metric) for q in read.targets_exact] == [(b, "exact") for b in (TARGET, *THEN)]
    known = {(c.method, c.learning_rate): c for c in made.cells}
    assert len(read.cells) == len(known)
    for cell in read.cells:
        assert cell == known[cell.method, cell.learning_rate]
        assert cell.is_sequence == (cell.role == "method")


def test_gain_and_drop_stay_those_of_the_first_target_and_of_retention(con, made):
    assert con.execute("SELECT DISTINCT benchmark FROM forgetting ORDER BY 1").fetchall() == [
        (q.benchmark,) for q in sorted(made.retention, key=lambda q: q.benchmark)
    ]
    for relation in ("scores", "compared"):
        assert {b for (b,) in con.execute(f"SELECT DISTINCT benchmark FROM {relation}").fetchall()} >= set(THEN)
    for checkpoint, gain, drop in con.execute(
        "SELECT checkpoint, gain, \"drop\" FROM gain_drop WHERE role <> 'base'"
    ).fetchall():
        assert gain == pytest.approx(-made.drops(made.gain, [checkpoint]).mean())
        assert drop == pytest.approx(np.mean([made.drops(q, [checkpoint]).mean() for q in made.retention]))


def test_sequences_holds_every_target_at_the_end_of_every_stage(con, made):
    rows = con.execute("FROM sequences").fetchall()
    cells = [cell for cell in made.cells if cell.is_sequence]
    assert len(rows) == sum(len(cell.seeds) for cell in cells) * STAGES * STAGES * 2
    of = {(cell.method, cell.learning_rate): cell for cell in cells}
    for study, base, target, arm, method, rate, seed, stage, trained, benchmark, metric, base_score, before, own, end in rows:
        cell, place = of[method, rate], (TARGET, *THEN).index(benchmark) + 1
        assert (study, base, target, arm) == ("made", "made/base", TARGET, name_of(cell, seed, 1).partition("@")[0])
        assert trained == (TARGET, *THEN)[stage - 1]
        assert base_score == pytest.approx(score(made, benchmark, metric, "made/base"))
        assert end == pytest.approx(score(made, benchmark, metric, name_of(cell, seed, stage)))
        earlier = "made/base" if stage == 1 else name_of(cell, seed, stage - 1)
        assert before == pytest.approx(score(made, benchmark, metric, earlier))
        assert (own is None) == (stage < place)
        if own is not None:
            assert own == pytest.approx(score(made, benchmark, metric, name_of(cell, seed, place)))


def test_backward_transfer_is_what_the_definitions_say(con, made):
    """paper: section 6, with a[i, j] the accuracy on target j after stage i and a[0, j] that of the base."""
    rows = con.execute(
        "SELECT method, learning_rate, seed, metric, bwt, forgetting_measure, fwt, average, targets FROM backward_transfer"
    )
    found = {row[:4]: row[4:] for row in rows.fetchall()}
    cells = [cell for cell in made.cells if cell.is_sequence]
    assert len(found) == sum(len(cell.seeds) for cell in cells) * 2
    for cell in cells:
        for seed in cell.seeds:
            for metric in ("acc", "exact"):
                names = ["made/base", *(name_of(cell, seed, stage) for stage in range(1, STAGES + 1))]
                a = np.array([[0.0, *(score(made, b, metric, name) for b in (TARGET, *THEN))] for name in names])
                wanted = (
                    sum(a[STAGES, j] - a[j, j] for j in range(1, STAGES)) / (STAGES - 1),
                    sum(max(a[i, j] for i in range(1, STAGES)) - a[STAGES, j] for j in range(1, STAGES)) / (STAGES - 1),
                    sum(a[j - 1, j] - a[0, j] for j in range(2, STAGES + 1)) / (STAGES - 1),
                    sum(a[STAGES, j] for j in range(1, STAGES + 1)) / STAGES,
                    STAGES,
                )
                shown = "primary" if metric == "acc" else "exact"
                assert found[cell.method, cell.learning_rate, seed, shown] == pytest.approx(wanted)


def test_the_interval_of_backward_transfer_is_that_of_a_mean_drop(con, made):
    """The planted loss of an earlier target is 0.2, with seeds that differ by 5 points."""
    intervals = {(i.cell, i.quantity): i.interval for i in cell_intervals(made)}
    cells = [cell for cell in made.cells if cell.is_sequence]
    earlier = dict(zip((1, 2), (made.gain, made.later[0]), strict=True))
    quantities = {"bwt": earlier, f"bwt/{TARGET}": {1: made.gain}, f"bwt/{THEN[0]}": {2: made.later[0]}}
    quantities["bwt_exact"] = dict(zip((1, 2), made.targets_exact[:2], strict=True))
    assert {q for c, q in intervals if q.startswith("bwt")} == set(quantities)
    assert {c for c, q in intervals if q == "bwt"} == set(cells)
    for quantity, questions in quantities.items():
        tables = {
            cell: [
                np.column_stack([
                    of[name_of(cell, s, STAGES)] - of[name_of(cell, s, stage)] for s in cell.seeds
                ])
                for stage, of in ((stage, made.scores[q.benchmark, q.metric]) for stage, q in questions.items())
            ]
            for cell in cells
        }  # fmt: skip
        parts = {cell: mean_components([-t for t in found], None) for cell, found in tables.items()}
        for cell in cells:
            wanted = mean_drop_interval(tables[cell], others(cell, parts), [None] * len(questions))
            assert intervals[cell, quantity] == wanted
    assert any(i.rule == "over seeds, moderated" for (_, q), i in intervals.items() if q == "bwt")
    for cell in cells:
        assert intervals[cell, "bwt_exact"].estimate == pytest.approx(-0.2, abs=0.1)
        summary = con.execute(
            """SELECT seeds, targets, bwt, bwt_low, bwt_high, rule FROM sequence_summary
            WHERE method = ? AND learning_rate = ? AND metric = 'primary'""",
            [cell.method, cell.learning_rate],
        ).fetchall()  # fmt: skip
        i = intervals[cell, "bwt"]
        assert summary == [(3, STAGES, pytest.approx(i.estimate), pytest.approx(i.low), pytest.approx(i.high), i.rule)]


def test_matched_points_fronts_and_the_law_look_at_the_first_stage_only(made):
    """Cut to their first stage, the same arms give the same figures."""
    cut = replace(made, cells=[cell.first_stage() for cell in made.cells], later=[], later_exact=[], components={})
    a, b = Curves(made), Curves(cut)
    points = matched_points(a, [0.1, 0.2])
    assert points == matched_points(b, [0.1, 0.2])
    assert {p.state for p in points} == {"reached"}
    assert front_points(a) == front_points(b)
    assert {p.step for p in front_points(a)} == set(STAGE)
    laws = [law_of(scores, np.random.default_rng(0)) for scores in (made, cut)]
    assert str(laws[0]) == str(laws[1])
    assert laws[0][0].n_checkpoints == len(STAGE) * 3 * 2 * len(QUESTIONS)


def test_the_declared_contrast_is_at_the_end_of_the_sequence(made):
    found = contrasts(made, Curves(made), declared(made, 1, 0.05, None))
    primary = found[0]
    assert primary.primary
    assert (primary.a, primary.b, primary.at) == ("harmful", "harmless", "last")
    assert "highest mean gain on all targets" in primary.rule
    cells = {(c.method, c.learning_rate): c for c in made.cells}
    a, b = (cells[m, rate] for m, rate in zip((primary.a, primary.b), primary.rates, strict=True))
    ends = [[name_of(cell, s, STAGES) for s in cell.seeds] for cell in (a, b)]
    drops = [np.mean([made.drops(q, names, ~q.select).mean() for q in made.retention]) for names in ends]
    assert primary.interval.estimate == pytest.approx(drops[0] - drops[1])
    for method, chosen in zip((primary.a, primary.b), primary.rates, strict=True):
        gains = {
            c.learning_rate: np.mean([-made.drops(q, c.last(), q.select).mean() for q in made.targets_exact])
            for c in made.methods() if c.method == method
        }  # fmt: skip
        assert chosen == max(gains, key=gains.get)


def test_a_study_of_one_target_has_no_sequences(tmp_path):
    with fill(tmp_path / "w.duckdb", made_scores({"one": Truth()}, n=40)) as con:
        for relation in ("sequences", "backward_transfer", "sequence_summary"):
            assert con.execute(f"FROM {relation}").fetchall() == []
        assert con.execute("SELECT count(*) FROM intervals WHERE quantity LIKE 'bwt%'").fetchall() == [(0,)]
        assert con.execute("SELECT DISTINCT stage FROM checkpoints WHERE step > 0").fetchall() == [(1,)]
