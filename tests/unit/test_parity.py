"""The parity toy: data, the oracle, the advantages, what training may not do, the law and what the command prints."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy

from retain_core.errors import InputError
from retain_core.parity import law, published
from retain_core.parity.divergence import forward_kl, reverse_kl, total_variation
from retain_core.parity.images import DIGITS, draw_world, parity_labels
from retain_core.parity.law import left_out_arms
from retain_core.parity.matched import at_gains, contrasts
from retain_core.parity.methods import (
    ARMS,
    GRPO,
    GRPO_KL,
    SFT_1,
    SFT_2,
    SFT_ORACLE,
    advantages,
    grpo_loss,
    labels,
    oracle,
    right_digits,
    sft_loss,
)
from retain_core.parity.network import Adam, log_policy, new_network
from retain_core.parity.published import published_r2
from retain_core.parity.run import run_parity
from retain_core.parity.text import found_text
from retain_core.parity.training import LEARNING_RATES, Point, Setting, pretrain, train_base
from retain_core.published import load_published
from retain_core.simulate.text import toy_text
from tests.conftest import retain

SMALL = Setting(learning_rates=(0.0, 1e-4, 1e-3, 3e-3), pretraining_steps=300, checkpoints=(5, 20, 60))
LOGITS = st.lists(st.floats(-6, 6), min_size=DIGITS, max_size=DIGITS)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As the command trains."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def small():
    return run_parity(2, 3, SMALL)


# --- the data --------------------------------------------------------------------------------------------------


def test_no_image_is_in_two_places_and_every_digit_is_there_as_often():
    world = draw_world(np.random.default_rng(0))
    kinds = {"tuned": world.tuned, "parity_test": world.parity_test, "old_train": world.old_train, "old_test": world.old_test}
    seen = {}
    for name, images in kinds.items():
        pixels = images.inputs[:, :-1].reshape(-1, 8, 8)
        upright = pixels.transpose(0, 2, 1) if name.startswith("old") else pixels
        seen[name] = {image.tobytes() for image in upright}
        assert len(seen[name]) == len(images.labels)
        assert images.inputs[:, :-1].min() >= 0
        assert images.inputs[:, :-1].max() <= 1
        assert set(images.inputs[:, -1]) == {-1.0 if name.startswith("old") else 1.0}
    assert all(not seen[a] & seen[b] for a, b in combinations(seen, 2))
    assert sum(len(images) for images in seen.values()) == 1797
    assert {image.tobytes() for image in world.pretrained.inputs} < {image.tobytes() for image in world.tuned.inputs}
    for images in (world.pretrained, world.tuned, world.old_train):
        assert len(set(np.bincount(images.labels, minlength=DIGITS))) == 1


def test_another_draw_has_other_images_and_another_label_map():
    a, b = (draw_world(np.random.default_rng(seed)) for seed in (0, 1))
    assert not np.array_equal(a.tuned.inputs, b.tuned.inputs)
    assert not np.array_equal(a.old_train.labels, b.old_train.labels)


def test_parity_labels_are_right_and_each_of_the_five_is_as_likely():
    digits = np.repeat(np.arange(DIGITS), 5000)
    drawn = parity_labels(digits, np.random.default_rng(0))
    assert np.array_equal(drawn % 2, digits % 2)
    for digit in range(DIGITS):
        counts = np.bincount(drawn[digits == digit], minlength=DIGITS)[digit % 2 :: 2]
        assert counts == pytest.approx(np.full(5, 1000), abs=5 * math.sqrt(5000 * 0.2 * 0.8))


# --- the methods -----------------------------------------------------------------------------------------------


@given(LOGITS, LOGITS, st.integers(0, 9))
def test_the_oracle_is_the_closest_of_all_policies_that_are_always_right(base_logits, other_logits, digit):
    base = softmax(base_logits)
    right = right_digits(torch.tensor([digit]))
    best = oracle(torch.tensor(base)[None], right.double())[0].numpy()
    allowed = right[0].numpy() == 1
    assert np.array_equal(best > 0, allowed)
    assert best.sum() == pytest.approx(1)
    assert entropy(best, base) == pytest.approx(-math.log(base[allowed].sum()), abs=1e-9)
    other = np.where(allowed, softmax(np.where(allowed, other_logits, -np.inf)), 0.0)
    # Pythagoras of the I-projection: any other is further from the base by just its distance to the best.
    assert entropy(other, base) == pytest.approx(entropy(best, base) + entropy(other, best), abs=1e-9)


@pytest.mark.parametrize(("arm", "even", "odd"), [(SFT_1, {0}, {1}), (SFT_2, {0, 4}, {1, 5})])
def test_labels_of_the_sft_arms(arm, even, odd):
    digits = torch.arange(DIGITS).repeat(100)
    drawn = labels(arm, digits, torch.full((1000, DIGITS), math.nan), stream())
    assert set(drawn[digits % 2 == 0].tolist()) == even
    assert set(drawn[digits % 2 == 1].tolist()) == odd


def test_labels_of_the_oracle_arm_follow_the_oracle():
    target = oracle(torch.softmax(torch.randn(1, DIGITS, generator=stream()), -1), right_digits(torch.tensor([3])))
    drawn = labels(SFT_ORACLE, torch.full((20000,), 3), target.expand(20000, -1), stream(1))
    shares = np.bincount(drawn.numpy(), minlength=DIGITS) / 20000
    assert shares == pytest.approx(target[0].numpy(), abs=0.02)


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_equal_rewards_leave_the_policy_where_it_is(reward):
    network = new_network(stream())
    before = [p.clone() for p in network]
    optimizer = Adam([p.requires_grad_() for p in network])
    inputs = torch.rand((4, 65), generator=stream(1))
    log_p = log_policy(network, inputs)
    everything = torch.full((4, DIGITS), reward)
    optimizer.step(grpo_loss(log_p, log_p[0].detach(), everything, 0.0, stream(2)).sum(), torch.full((1, 1, 1), 0.1))
    assert all(torch.equal(p, q) for p, q in zip(network, before, strict=True))


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=8))
def test_advantages_are_centred_and_favour_what_was_right(rewards):
    found = advantages(torch.tensor(rewards))
    assert float(found.sum()) == pytest.approx(0, abs=1e-5)
    if len(set(rewards)) == 2:
        assert found[torch.tensor(rewards) == 1].min() > 0
        assert float(found.std()) == pytest.approx(1, abs=1e-5)


def test_without_a_kl_coefficient_the_reference_does_not_matter_and_with_one_it_does():
    log_p = torch.log_softmax(torch.randn(1, 6, DIGITS, generator=stream()), -1).requires_grad_()
    right = right_digits(torch.arange(6))
    references = [torch.log_softmax(torch.randn(6, DIGITS, generator=stream(seed)), -1) for seed in (1, 2)]

    def slope(reference: torch.Tensor, coefficient: float) -> torch.Tensor:
        return torch.autograd.grad(grpo_loss(log_p, reference, right, coefficient, stream(3)).sum(), log_p)[0]

    assert torch.equal(slope(references[0], 0.0), slope(references[1], 0.0))
    assert not torch.allclose(slope(references[0], 0.1), slope(references[1], 0.1))


def test_the_kl_penalty_pulls_back_to_the_base():
    base = torch.log_softmax(torch.randn(6, DIGITS, generator=stream()), -1)
    logits = torch.randn(1, 6, DIGITS, generator=stream(1)).requires_grad_()
    nothing_right = torch.zeros(6, DIGITS)
    for _ in range(300):
        loss = grpo_loss(torch.log_softmax(logits, -1), base, nothing_right, 1.0, stream()).sum()
        with torch.no_grad():
            logits -= 5.0 * torch.autograd.grad(loss, logits)[0]
    assert torch.softmax(logits[0], -1).detach().numpy() == pytest.approx(base.exp().numpy(), abs=1e-3)


# --- divergences and networks ----------------------------------------------------------------------------------


@given(LOGITS, LOGITS)
def test_divergences_agree_with_scipy_and_vanish_at_the_base(base_logits, other_logits):
    base, other = softmax(base_logits), softmax(other_logits)
    p, q = torch.tensor(base).log()[None], torch.tensor(other).log()[None]
    assert float(forward_kl(p, q)) == pytest.approx(entropy(base, other), abs=1e-9)
    assert float(reverse_kl(p, q)) == pytest.approx(entropy(other, base), abs=1e-9)
    assert float(total_variation(p, q)) == pytest.approx(abs(base - other).sum() / 2, abs=1e-9)
    assert [float(f(p, p)) for f in (forward_kl, reverse_kl, total_variation)] == [0, 0, 0]


def test_many_networks_at_once_are_trained_as_each_alone_by_the_adam_of_torch():
    rates = (1e-3, 1e-2)
    start = new_network(stream())
    inputs, chosen = torch.rand((8, 65), generator=stream(1)), torch.arange(8)
    together = [p.expand(2, -1, -1).clone().requires_grad_() for p in start]
    optimizer = Adam(together)
    for _ in range(5):
        optimizer.step(sft_loss(log_policy(together, inputs), chosen).sum(), torch.tensor(rates).view(-1, 1, 1))
    for run, rate in enumerate(rates):
        alone = [p.clone().requires_grad_() for p in start]
        reference = torch.optim.Adam(alone, lr=rate)
        for _ in range(5):
            reference.zero_grad()
            torch.nn.functional.cross_entropy(log_policy(alone, inputs)[0], chosen).backward()
            reference.step()
        for mine, theirs in zip(together, alone, strict=True):
            assert torch.allclose(mine[run], theirs[0], atol=1e-5)


# --- training --------------------------------------------------------------------------------------------------


def test_the_base_can_do_both_jobs_and_parity_is_spread_over_the_right_digits():
    rng = np.random.default_rng(0)
    world = draw_world(rng)
    network = pretrain(world, 300, rng, stream())
    old = log_policy(network, torch.from_numpy(world.old_test.inputs))[0].argmax(-1).numpy()
    assert np.mean(old == world.old_test.labels) > 0.85
    p = log_policy(network, torch.from_numpy(world.parity_test.inputs))[0].exp()
    right = right_digits(torch.from_numpy(world.parity_test.labels))
    assert float((p * right).sum(-1).mean()) > 0.7
    assert float(oracle(p, right).max(-1).values.mean()) < 0.4


def test_a_learning_rate_of_zero_moves_nothing(small):
    still = [p for p in small.points if p.learning_rate == 0]
    assert len(still) == 2 * len(ARMS) * len(SMALL.checkpoints)
    for p in still:
        figures = (p.kl_forward, p.kl_reverse, p.total_variation, p.weight_l1, p.weight_l2, p.steps_x_lr, p.drop)
        assert figures == (0,) * 7
        assert p.gain == pytest.approx(0, abs=1e-6)


def test_training_gains_parity_and_the_drop_is_the_mean_of_its_halves(small):
    last = {(p.base, p.arm): p for p in small.points if p.step == 60 and p.learning_rate == 3e-3}
    assert len(last) == 2 * len(ARMS)
    assert min(p.gain for p in last.values()) > 0.01
    for p in small.points:
        assert min(p.drop_select, p.drop_report) - 1e-6 <= p.drop <= max(p.drop_select, p.drop_report) + 1e-6
        assert p.accuracy == pytest.approx(small.bases[p.base].accuracy + p.gain, abs=1e-6)
        assert min(p.kl_forward, p.kl_reverse) >= -1e-6


def test_equal_streams_give_equal_points_however_many_bases_are_asked_for(small):
    base, again = train_base(1, 3, SMALL)
    assert (base, again) == (small.bases[1], [p for p in small.points if p.base == 1])
    assert train_base(1, 4, SMALL)[1] != again


# --- the law and the order -------------------------------------------------------------------------------------


def lawful(noise: float = 0.0) -> list[Point]:
    """Points whose drop is a quadratic in forward KL, the same in every arm and base, and whose gain is step / 600."""
    rng = np.random.default_rng(0)
    points = []
    for base in range(4):
        for number, arm in enumerate(ARMS):
            for rate in LEARNING_RATES[:4]:
                for step in (75, 150, 300, 600):
                    kl = (1 + number) * step / 600 * (1 + base / 10) * (1 + 100 * rate)
                    drop = 0.05 * kl + 0.01 * kl**2 + noise * rng.normal()
                    others = (*rng.random(4), rate * step, 0.8, 0.8, step / 600)
                    points.append(Point(base, arm, rate, step, kl, *others, drop, drop, drop))
    return points


def test_a_true_law_is_found_and_no_arm_is_off_it():
    first, *others = law.laws(lawful(), np.random.default_rng(0), 200)
    assert (first.predictor, first.lead) == ("forward KL", None)
    assert (first.inside, first.left_out, first.pooled.r2_left_out) == pytest.approx((1, 1, 1))
    assert first.pooled.beats_all_trivial
    assert all(other.lead is not None and other.lead.low > 0 for other in others)
    for row in left_out_arms(lawful()):
        assert (row.error, row.bias_within) == pytest.approx((0, 0), abs=1e-9)
        assert row.spread > 0.01


def test_an_arm_off_the_law_is_shown_by_the_points_it_is_off():
    points = [p._replace(drop=p.drop + 0.1) if p.arm == GRPO else p for p in lawful()]
    found = {row.arm: row for row in left_out_arms(points)}
    assert (found[GRPO].error, found[GRPO].bias_within) == pytest.approx((0.1, 0.1))
    assert abs(found[SFT_2].bias_within) < 0.1


def test_drops_at_matched_gain_are_read_off_the_curves():
    # At gain .5, step 300, KL is (1 + arm) / 2 times that of the base and the smallest learning rate.
    for row in at_gains(lawful(), (0.5,)):
        kl = (1 + ARMS.index(row.arm)) / 2 * (1 + np.arange(4) / 10) * (1 + 100 * LEARNING_RATES[0])
        assert row.learning_rate == LEARNING_RATES[0]
        assert row.at_edge
        assert row.step == pytest.approx(300)
        assert row.drops == pytest.approx(0.05 * kl + 0.01 * kl**2)


def test_the_contrast_is_paired_by_base_and_says_who_drops_more():
    found = {(row.a, row.b): row for row in contrasts(at_gains(lawful(), (0.5,)))}
    fewer = found[GRPO, SFT_2]
    assert fewer.difference is not None
    assert fewer.difference.high < 0
    assert fewer.verdict == "supported"
    assert found[SFT_ORACLE, GRPO].verdict == "reversed"


def test_a_gain_out_of_reach_is_not_extrapolated():
    rows = at_gains(lawful(), (0.9,))
    assert [(row.learning_rate, row.drops) for row in rows] == [(None, None)] * len(ARMS)
    assert {row.verdict for row in contrasts(rows)} == {"not reached"}


# --- what is printed -------------------------------------------------------------------------------------------


def test_the_published_figure_is_the_stored_one(monkeypatch, small):
    def changed(con):
        load_published(con)
        con.execute("UPDATE published_results SET value = 0.123 WHERE quantity = 'r2_forward_kl' AND target = 'parity_mnist'")

    assert published_r2()["forward KL"].value == 0.96
    monkeypatch.setattr(published, "load_published", changed)
    assert json.loads(found_text(small, [], "json"))["law"][0]["published"] == 0.123
    assert "Printed for forward KL: 0.123" in found_text(small, [], "table")


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_the_text_names_every_arm_predictor_and_remark(small, form):
    text = found_text(small, [], form)
    assert all(name in text for name in (*ARMS, *law.PREDICTORS))
    assert "nan" not in text


def test_one_base_has_no_interval_and_decides_nothing():
    one = run_parity(1, 0, replace(SMALL, learning_rates=(1e-4, 1e-3, 3e-3)))
    document = json.loads(found_text(one, [], "json"))
    assert {row["verdict"] for row in document["contrasts"]} <= {"inconclusive", "not reached"}
    assert document["law"][0]["r2_within_sd"] is None
    assert "nan" not in found_text(one, [], "table")


@pytest.mark.parametrize(
    "options", [("parity", 0, 0, False, "table"), ("parity", 2, -1, False, "table"), ("parity", 2, 0, False, "xml"),
                ("parity", None, 0, True, "table"), ("dice", None, 0, False, "table")],
)  # fmt: skip
def test_bad_options_are_one_sentence(options):
    with pytest.raises(InputError) as error:
        toy_text(*options)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_the_command_prints_one_document_and_writes_its_files(tmp_path):
    done = retain("simulate", "--toy", "parity", "--seeds", "1", "--format", "json", home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    folder = tmp_path / "reports" / "simulate"
    assert document["files"] == [str(folder / "parity.csv"), str(folder / "parity.png")]
    rows = list(csv.DictReader((folder / "parity.csv").read_text().splitlines()))
    assert len(rows) == document["points"] == len(ARMS) * len(LEARNING_RATES) * len(Setting().checkpoints)
    assert (folder / "parity.png").read_bytes().startswith(b"\x89PNG")
    forward = document["law"][0]
    assert forward["r2_within"] > 0.9
    assert forward["r2_within"] > max(r["r2_within"] for r in document["law"] if r["predictor"].startswith("weight")) + 0.1
    drops = {row["arm"]: row["drop"]["mean"] for row in document["matched"] if row["gain"] == 0.05}
    assert max(drops[arm] for arm in (SFT_ORACLE, GRPO, GRPO_KL)) < min(drops[SFT_1], drops[SFT_2]) - 0.2


def test_the_task_of_the_flow_refuses_what_the_command_refuses():
    from tasks.simulation import parity

    for seeds, seed in ((0, 0), (2, -1)):
        with pytest.raises(InputError):
            parity.fn(seeds, seed)
