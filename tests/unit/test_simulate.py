"""The mixture simulation: gradients, areas, invariances, the published figures, and what the command prints."""

from __future__ import annotations

import csv
import json
import resource
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import pairwise
from math import log

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from retain_core.errors import InputError
from retain_core.simulate import dynamics
from retain_core.simulate.dynamics import FLOOR, LIMITS, OFFSET, STARTS, Setting, draw, gradient, trajectories
from retain_core.simulate.matched import PUBLISHED_GAIN, crossing, gap, outcomes, summarise
from retain_core.simulate.mixture import NEW, OLD, Component, Ruler
from retain_core.simulate.published import NO_FLOOR, RUNS, Figure, compare, figures
from retain_core.simulate.run import PAIRS, run_published
from retain_core.simulate.sweep import BETAS, SAMPLINGS, SLOW_FACTORS
from retain_core.simulate.text import published_text, simulate_text
from tests.conftest import retain

ONE_FORWARD = Setting("one mode", "forward", 0.05, 10)
ONE_REVERSE = Setting("one mode", "reverse", 0.005, 10)
FORWARD = Setting("two modes", "forward", 0.15, 10)
REVERSE = Setting("two modes", "reverse", 0.01, 10)
ALL = [ONE_FORWARD, ONE_REVERSE, replace(ONE_REVERSE, floor=0.0), FORWARD] + [
    replace(REVERSE, support=s, ratio=r, floor=f)
    for s in ("new mode", "policy")
    for r in ("new/q2", "new/q", "all/q")
    for f in (0.0, FLOOR)
]


@pytest.fixture(scope="module")
def published():
    return run_published(10, 0)


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """What the command prints without further arguments; it writes nothing, so it starts no server either."""
    home = tmp_path_factory.mktemp("simulate")
    before = processor_seconds()
    done = retain("simulate", "--format", "json", home=home, OMP_NUM_THREADS="1")
    spent = processor_seconds() - before
    assert (done.returncode, done.stderr) == (0, "")
    assert list(home.iterdir()) == []
    return json.loads(done.stdout) | {"spent": spent}


def processor_seconds() -> float:
    """What finished children of this process have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def some_parameters(setting: Setting, seeds: int = 4) -> np.ndarray:
    rng = np.random.default_rng(1)
    shift = rng.normal(0, 0.1, (len(STARTS[setting.start]), seeds))
    return np.array(STARTS[setting.start])[:, None] + shift


def samples_of(setting: Setting, parameters: np.ndarray, n: int = 60) -> np.ndarray:
    rng = np.random.default_rng(2)
    shape = (parameters.shape[1], n)
    return draw(setting, parameters, rng.standard_normal(shape), rng.random(shape))


@pytest.mark.parametrize("setting", ALL, ids=str)
def test_gradients_are_those_of_autograd(setting):
    """The mean of c(y) log q(y), written out with torch from the paper's formulas, with c held fixed."""
    torch = pytest.importorskip("torch")
    values = some_parameters(setting)
    samples = samples_of(setting, values)
    theta = torch.tensor(values, requires_grad=True)
    y = torch.tensor(samples)

    def log_normal(mean, sd):
        return torch.distributions.Normal(mean + 0 * y, sd + 0 * y).log_prob(y)

    if setting.start == "one mode":
        mean, sd = theta[:, :, None]
        log_q = log_q2 = log_normal(mean, sd)
    else:
        w, m1, s1, m2, s2 = theta[:, :, None]
        log_q2 = torch.log(1 - w) + log_normal(m2, s2)
        log_q = torch.logaddexp(torch.log(w) + log_normal(m1, s1), log_q2)
    log_new = log_normal(NEW.mean, NEW.sd)
    log_old = log_normal(OLD.mean, OLD.sd)
    weight = torch.ones_like(y)
    if setting.method == "reverse":
        two_modes_ratio = setting.ratio if setting.start == "two modes" else "new/q"
        log_ratio = {
            "new/q2": log_new - log_q2,
            "new/q": log_new - log_q,
            "all/q": torch.logaddexp(log_old + log(OLD.weight), log_new + log(NEW.weight)) - log_q,
        }[two_modes_ratio]
        weight = log_ratio + OFFSET
        if setting.floor:
            weight = torch.log(torch.exp(log_ratio + OFFSET) + setting.floor)
        if setting.start == "two modes" and setting.support == "new mode":
            weight = weight * torch.exp(log_q - log_q2)
    (weight.detach() * log_q).mean(dim=-1).sum().backward()
    np.testing.assert_allclose(gradient(setting, values, samples), theta.grad.numpy(), rtol=1e-9, atol=1e-10)


def quantile_samples(components: list[Component], n: int) -> np.ndarray:
    """Samples without noise: the middle quantiles of every component, as many as its weight says."""
    parts = []
    for part in components:
        count = round(part.weight * n)
        parts.append(norm.ppf((np.arange(count) + 0.5) / count, part.mean, part.sd))
    return np.concatenate(parts)[None, :]


def policy(setting: Setting, theta: np.ndarray) -> list[Component]:
    if setting.start == "one mode":
        return [Component(1.0, *theta)]
    w, m1, s1, m2, s2 = theta
    return [Component(w, m1, s1), Component(1 - w, m2, s2)]


def log_density(components: list[Component], y: np.ndarray) -> np.ndarray:
    return np.logaddexp.reduce([log(c.weight) + norm.logpdf(y, c.mean, c.sd) for c in components])


@pytest.mark.parametrize(
    ("setting", "target"),
    [
        (replace(ONE_REVERSE, floor=0.0), [NEW._replace(weight=1.0)]),
        (replace(REVERSE, floor=0.0, support="policy", ratio="new/q"), [NEW._replace(weight=1.0)]),
        (replace(REVERSE, floor=0.0, support="policy", ratio="all/q"), [OLD, NEW]),
        (ONE_FORWARD, [NEW._replace(weight=1.0)]),
        (FORWARD, [NEW._replace(weight=1.0)]),
    ],
    ids=str,
)
def test_with_samples_of_the_whole_policy_it_descends_the_kl_of_its_name(setting, target):
    """Finite differences of KL(q || target), or of KL(target || q), by quadrature; any offset drops out."""
    theta = np.array(STARTS[setting.start]) + 0.05
    y = np.linspace(-14, 14, 20_001)

    def divergence(values: np.ndarray) -> float:
        log_q, log_p = log_density(policy(setting, values), y), log_density(target, y)
        first, second = (log_p, log_q) if setting.method == "forward" else (log_q, log_p)
        return float(np.trapezoid(np.exp(first) * (first - second), y))

    step = 1e-5
    expected = [(divergence(theta - step * e) - divergence(theta + step * e)) / (2 * step) for e in np.eye(len(theta))]
    drawn_from = target if setting.method == "forward" else policy(setting, theta)
    found = gradient(setting, theta[:, None], quantile_samples(drawn_from, 400_000))[:, 0]
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_the_offset_is_harmless_only_where_samples_reach_the_old_mode():
    theta = np.array(STARTS["two modes"])
    moved = {}
    for support in ("policy", "new mode"):
        parts = policy(REVERSE, theta) if support == "policy" else [policy(REVERSE, theta)[1]._replace(weight=1.0)]
        y = quantile_samples(parts, 200_000)
        a, b = (gradient(replace(REVERSE, floor=0.0, support=support, offset=c), theta[:, None], y)[0, 0] for c in (0.0, 5.0))
        moved[support] = abs(a - b)
    assert moved["policy"] < 0.01
    assert moved["new mode"] > 1


@pytest.mark.parametrize(
    "setting", [FORWARD, *[replace(REVERSE, support="policy", ratio=r) for r in ("new/q", "all/q")]], ids=str
)
def test_mirrored_samples_and_target_give_the_mirrored_gradient(setting, monkeypatch):
    theta = some_parameters(setting)
    y = samples_of(setting, theta)
    found = gradient(setting, theta, y)
    signs = np.array([1, -1, 1, -1, 1])[:, None]
    for name, mode in (("OLD", OLD), ("NEW", NEW)):
        monkeypatch.setattr(dynamics, name, mode._replace(mean=-mode.mean))
    np.testing.assert_allclose(gradient(setting, signs * theta, -y), signs * found, rtol=1e-9, atol=1e-12)


def test_exchanged_modes_give_the_exchanged_gradient():
    setting = replace(REVERSE, support="policy", ratio="all/q")
    theta = some_parameters(setting)
    y = samples_of(setting, theta)
    exchanged = np.stack([1 - theta[0], *theta[3:], *theta[1:3]])
    w, m1, s1, m2, s2 = gradient(setting, theta, y)
    np.testing.assert_allclose(gradient(setting, exchanged, y), [-w, m2, s2, m1, s1], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("start", ["one mode", "two modes"])
@pytest.mark.parametrize("weight", [0.2, 1.0])
def test_overlaps_are_those_of_adaptive_quadrature(start, weight):
    ruler = Ruler(LIMITS[start])
    for mean, sd in ((-3.5, 1.0), (0.5, 0.7), (3.0, 2.5), (-7.0, 0.3)):
        density = ruler.density(np.array([[weight], [mean], [sd]]))
        found = ruler.overlaps(density, density)
        for mode, share in zip((OLD, NEW), found, strict=True):

            def lower(y: float, mode: Component = mode, mean: float = mean, sd: float = sd) -> float:
                return min(mode.weight * norm.pdf(y, mode.mean, mode.sd), weight * norm.pdf(y, mean, sd))

            cuts = np.linspace(-LIMITS[start], LIMITS[start], 21)
            area = sum(quad(lower, a, b, limit=200)[0] for a, b in pairwise(cuts))
            assert share[0] == pytest.approx(area / mode.weight, abs=3e-4)


def test_a_policy_that_is_the_target_covers_it():
    ruler = Ruler(8.0)
    old, new = (ruler.density(np.array(mode)[:, None]) for mode in (OLD, NEW))
    assert [float(share[0]) for share in ruler.overlaps(old, new)] == [1.0, 1.0]
    assert max(float(share[0]) for share in ruler.overlaps(new, old)) < 0.002


SHORT = [replace(setting, iterations=25) for setting in ALL]


def test_ten_seeds_together_are_ten_runs_alone_whatever_runs_beside_them():
    together = trajectories(SHORT, range(10), 3)
    for i in (0, 4, 9):
        for setting, run in zip(SHORT, together, strict=True):
            (alone,) = trajectories([setting], [i], 3)
            assert np.array_equal(run.gain[i], alone.gain[0])
            assert np.array_equal(run.drop[i], alone.drop[0])
            assert np.array_equal(run.parameters[:, i], alone.parameters[:, 0])


def test_seeds_and_streams_differ_and_repeat():
    def last(seeds, seed):
        (run,) = trajectories([replace(REVERSE, iterations=20)], seeds, seed)
        return run.gain[:, -1]

    assert len(set(last(range(5), 0)) | set(last(range(5), 1))) == 10
    assert np.array_equal(last(range(5), 0), last(range(5), 0))


def test_blocks_of_seeds_are_joined_in_order():
    setting = replace(FORWARD, iterations=120)
    (whole,) = outcomes([setting], 13, 0)
    (direct,) = trajectories([setting], range(13), 0)
    assert np.array_equal(whole.published.step, crossing(direct.gain, direct.drop, PUBLISHED_GAIN).step)
    assert np.array_equal(whole.last_drop, direct.drop[:, -1])
    assert np.array_equal(whole.last_parameters, direct.parameters)


def test_what_must_not_move_does_not():
    frozen, still = (replace(FORWARD, slow=0.0), replace(REVERSE, learning_rate=0.0))
    a, b = trajectories([frozen, still], range(3), 0)
    assert np.all(a.drop == 0)
    assert np.all(a.gain[:, -1] > 0)
    assert np.all(b.drop == 0)
    assert np.all(b.gain == 0)


def test_stopping_at_a_gain_changes_nothing_before_it():
    setting = replace(FORWARD, iterations=200)
    whole, stopped = trajectories([setting, replace(setting, until=0.9)], range(4), 0)
    assert stopped.gain.shape[1] < whole.gain.shape[1]
    assert np.array_equal(stopped.gain, whole.gain[:, : stopped.gain.shape[1]])
    assert np.all(stopped.gain.max(axis=1) >= 0.9)


def test_a_run_that_overflows_has_not_reached_the_gain():
    (found,) = outcomes([replace(REVERSE, learning_rate=1e200, iterations=5)], 3, 0)
    assert summarise(found.published.drop) is None
    assert gap(found.published, found.published).verdict == "not reached"


def test_the_crossing_is_the_first_and_lies_on_the_line():
    gain = np.array([[0.0, 0.5, 1.0, 0.2, 1.0], [0.0, 0.1, 0.2, 0.3, 0.4], [0.0, 0.9, 0.0, 0.0, 0.0]])
    drop = np.array([[0.0, 0.1, 0.3, 0.5, 0.6], [0.0, 0.1, 0.2, 0.3, 0.4], [0.0, 0.8, 0.0, 0.0, 0.0]])
    found = crossing(gain, drop, 0.9)
    np.testing.assert_allclose(found.step, [2, np.nan, 1])
    np.testing.assert_allclose(found.gain, [1.0, np.nan, 0.9])
    np.testing.assert_allclose(found.drop, [0.3, np.nan, 0.8])
    np.testing.assert_allclose(found.drop_exactly, [0.1 + 0.8 * 0.2, np.nan, 0.8])
    assert summarise(found.drop) is None


def test_every_printed_figure_agrees_within_its_tolerance(document):
    """Half a unit of the last digit plus a 95 % prediction interval over seeds."""
    assert len(document["published"]) == len(figures()) == 30
    assert {row["status"] for row in document["published"]} == {"paper", "rerun"}
    assert [row for row in document["published"] if not row["agrees"]] == []


def test_a_figure_that_is_off_is_told(published):
    assert (
        compare(Figure("two modes forward", "drop", "0.20", 1, "paper", ""), published.runs["two modes forward"]).agrees
        is False
    )
    (printed,) = (f for f in figures() if (f.run, f.quantity, f.status) == ("one mode reverse", "drop", "paper"))
    assert compare(printed, published.runs["one mode reverse"]).agrees
    without_floor = compare(printed, published.runs[NO_FLOOR])
    assert without_floor.agrees is False
    assert without_floor.here == pytest.approx(0.9, abs=0.01)


def test_the_published_conclusions_hold_in_the_published_setting(published):
    words = {(a, b, at): found.verdict for a, b, at, _, found in published.gaps}
    assert words["one mode forward", "one mode reverse", 0.9] == "supported"
    assert words["two modes forward", "two modes reverse", 0.9] == "supported"
    forward, reverse = (published.runs[f"two modes {m}"] for m in ("forward", "reverse"))
    difference = forward.published.drop_exactly - reverse.published.drop_exactly
    found = gap(forward.published, reverse.published).gap
    assert found is not None
    assert (found.mean, found.median) == pytest.approx((difference.mean(), np.median(difference)))
    assert gap(reverse.published, forward.published).verdict == "reversed"


def test_a_gain_that_is_never_reached_is_a_row(published):
    records = json.loads(published_text(published, "json"))["runs"]
    (row,) = (r for r in records if r["run"] == "two modes forward lr .01")
    assert (row["reached"], row["step"], row["drop"]) == (0, None, None)
    assert row["last_gain"]["mean"] == pytest.approx(0.435, abs=0.001)
    for form in ("table", "markdown"):
        assert "not reached" in published_text(published, form)
    assert len(list(csv.DictReader(published_text(published, "csv").splitlines()))) == len(RUNS)


def test_one_seed_has_no_interval_and_decides_nothing():
    one = run_published(1, 0)
    document = json.loads(published_text(one, "json"))
    assert {g["verdict"] for g in document["gaps"]} <= {"inconclusive", "not reached"}
    assert document["runs"][0]["drop"]["low"] is None
    assert "One seed" in published_text(one, "table")


@pytest.mark.parametrize("options", [(0, 0, "table"), (-3, 0, "table"), (2, -1, "table"), (2, 0, "xml")])
@pytest.mark.parametrize("sweep", [True, False])
def test_bad_options_are_one_sentence(options, sweep):
    seeds, seed, form = options
    with pytest.raises(InputError) as error:
        simulate_text(seeds, seed, sweep, form)
    assert "\n" not in str(error.value)


def test_a_hundred_seeds_take_seconds(document):
    """The goal is 10 s of one core; processor time is up to twice that where other work shares the core's caches."""
    assert document["seeds"] == 100
    assert document["spent"] < 20


def test_the_command_prints_one_document_and_nothing_else(document):
    assert (document["seeds"], document["seed"]) == (100, 0)
    assert {row["run"] for row in document["runs"]} == set(RUNS)
    assert len(document["gaps"]) == len(PAIRS)


def test_the_sweep_shows_where_the_conclusion_ends_and_writes_its_files(tmp_path):
    done = retain("simulate", "--sweep", "--seeds", "3", "--format", "json", home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    cells = {(c["samples"], c["reward"], c["slow"], c["beta"]): c for c in document["cells"]}
    assert len(cells) == len(SAMPLINGS) * len(SLOW_FACTORS) * len(BETAS)
    as_published = cells["new mode", "log new/q2", 0.005, 0.1]
    assert as_published["verdict"] == "supported"
    assert cells["policy", "log new/q2", 0.005, 0.1]["gap"]["mean"] < as_published["gap"]["mean"] / 2
    assert cells["policy", "log new/q", 0.005, 0.1]["verdict"] == "reversed"
    assert cells["policy", "log all/q", 0.005, 0.1]["verdict"] == "not reached"
    assert cells["policy", "log new/q", 1.0, 0.1]["both_lost"]
    folder = tmp_path / "reports" / "simulate"
    rows = list(csv.DictReader((folder / "sweep.csv").read_text().splitlines()))
    assert [float(r["gap"]) if r["gap"] else None for r in rows] == [c["gap"] and c["gap"]["mean"] for c in document["cells"]]
    assert ElementTree.parse(folder / "sweep.svg").getroot().tag.endswith("svg")
    assert document["files"] == [str(folder / "sweep.csv"), str(folder / "sweep.svg")]


def test_the_tasks_of_the_flow_give_what_the_command_prints():
    from tasks.simulation import published_setting

    assert published_setting.fn(1, 5) == simulate_text(1, 5, False, "markdown")
