"""Forward KL and reverse KL as stochastic gradient ascent on a normal or a mixture of two. Source: paper sections 4.1, 4.3.

The policy is q = q1 + q2 with q1 = w N(m1, s1), the old mode, and q2 = (1 - w) N(m2, s2), the new one; with one mode
q = N(m, s). Every gradient here is a mean over samples y of c(y) times the score of log q. With the share r = q1/q of
the old mode, the scores are

    d/dw  = r/w - (1 - r)/(1 - w)
    d/dm1 = r (y - m1)/s1^2            d/ds1 = r ((y - m1)^2/s1^2 - 1)/s1
    d/dm2 = (1 - r)(y - m2)/s2^2       d/ds2 = (1 - r)((y - m2)^2/s2^2 - 1)/s2

so a gradient needs no more than the moments of y - m1 under weights c r and of y - m2 under weights c (1 - r).

    forward KL   y ~ N(3.5, 0.7), the new mode of the target; c = 1
    reverse KL   y ~ the policy (or only its new mode: then the importance weight q/q2 is part of c);
                 c = R = log(ratio / beta + floor), the reward: the log ratio of target and policy

The offset log(1/beta) and the floor inside the logarithm are the published program's. The floor is not in the paper's
formulas; with a start of one mode it decides the result, since there it caps the penalty of samples far from the target.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log
from typing import Literal, NamedTuple

import numpy as np

from retain_core.simulate.mixture import NEW, OLD, Floats, Ruler, log_kernel

Start = Literal["one mode", "two modes"]
Method = Literal["forward", "reverse"]
Support = Literal["new mode", "policy"]
Ratio = Literal["new/q2", "new/q", "all/q"]

SAMPLES = 1000
SLOW = 0.005
OFFSET = log(10)
FLOOR = 1e-12
LEAST_WEIGHT = 1e-3
LEAST_SD = 1e-3
NEGLIGIBLE = 40.0
"""Adding the floor to a ratio e^40 times as large changes no bit of it."""

STARTS: dict[Start, tuple[float, ...]] = {"one mode": (-3.5, 1.0), "two modes": (0.75, -3.5, 1.0, 0.5, 0.7)}
LIMITS: dict[Start, float] = {"one mode": 10.0, "two modes": 8.0}


@dataclass(frozen=True)
class Setting:
    """One run: where the policy starts, what is optimised, and the dials of the published program at its values.

    `slow` multiplies the gradient of w, m1 and s1. `offset` is log(1/beta), in nats. `support` is what reverse KL samples
    from, `ratio` the two densities in its reward: target over policy. With one mode there is no slow factor, samples are
    the policy's and the reward is new/q, whatever is given. With `until`, a run ends once all its seeds gained that much.
    """

    start: Start
    method: Method
    learning_rate: float
    iterations: int
    slow: float = SLOW
    offset: float = OFFSET
    floor: float = FLOOR
    support: Support = "new mode"
    ratio: Ratio = "new/q2"
    until: float | None = None


class Trajectory(NamedTuple):
    """Gain and drop after every step, (seeds, steps + 1), zero at step 0, and the last parameters, (parameters, seeds)."""

    gain: Floats
    drop: Floats
    parameters: Floats


def gradient(setting: Setting, parameters: Floats, y: Floats) -> Floats:
    """The direction of ascent from samples y of shape (seeds, samples). Parameters and answer: (parameters, seeds).

    Parameters are (m, s) with one mode, (w, m1, s1, m2, s2) with two; the slow factor is not in the answer.
    """
    if setting.start == "one mode":
        mean, sd = parameters
        if setting.method == "forward":
            return np.stack(_ascent(None, y - mean[:, None], sd)[1:])
        to_new = log_kernel(y, NEW.mean, NEW.sd)
        to_new -= log_kernel(y, mean[:, None], sd[:, None])
        return np.stack(_ascent(_reward(to_new, setting), y - mean[:, None], sd)[1:])
    weight, old_mean, old_sd, new_mean, new_sd = parameters
    on_old, on_new = _two_mode_weights(setting, parameters, y)
    old, *of_old = _ascent(on_old, y - old_mean[:, None], old_sd)
    new, *of_new = _ascent(on_new, y - new_mean[:, None], new_sd)
    return np.stack([old / weight - new / (1 - weight), *of_old, *of_new])


def draw(setting: Setting, parameters: Floats, z: Floats, u: Floats | None) -> Floats:
    """Samples from standard normal z and, where the whole policy is sampled, uniform u, all (seeds, samples)."""
    columns = parameters[:, :, None]
    mean: Floats | float
    sd: Floats | float
    if setting.method == "forward":
        mean, sd = NEW.mean, NEW.sd
    elif setting.start == "one mode":
        mean, sd = columns
    elif setting.support == "new mode":
        mean, sd = columns[3:]
    else:
        assert u is not None
        is_old = u < columns[0]
        mean, sd = np.where(is_old, columns[1], columns[3]), np.where(is_old, columns[2], columns[4])
    samples: Floats = sd * z
    samples += mean
    return samples


def initial_overlaps(start: Start) -> tuple[float, float]:
    """What the untrained policy covers of the old and of the new mode."""
    old, new = _Run(Setting(start, "forward", 0.0, 0), 1).start
    return float(old[0]), float(new[0])


def trajectories(settings: Sequence[Setting], replicates: Iterable[int], seed: int) -> list[Trajectory]:
    """Run every setting for the given replicates (one seed each) of a stream.

    Replicate i draws the same numbers whatever runs beside it, and every setting sees the same draws, so that settings
    can be compared seed by seed. Parameters that overflow become NaN and stay so, and with them gain and drop.
    """
    ids = list(replicates)
    normals, uniforms = ([np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i, k))) for i in ids] for k in (0, 1))
    z, u = np.empty((len(ids), SAMPLES)), np.empty((len(ids), SAMPLES))
    runs = [_Run(setting, len(ids)) for setting in settings]
    with np.errstate(all="ignore"):
        for step in range(max(setting.iterations for setting in settings)):
            going = [run for run in runs if step < run.setting.iterations and not run.has_gained()]
            if not going:
                break
            for row, generator in zip(z, normals, strict=True):
                generator.standard_normal(out=row)
            if any(run.setting.support == "policy" for run in going):
                for row, generator in zip(u, uniforms, strict=True):
                    generator.random(out=row)
            for run in going:
                run.advance(z, u)
    return [run.trajectory() for run in runs]


class _Run:
    """The state of one setting for all its seeds."""

    def __init__(self, setting: Setting, seeds: int) -> None:
        self.setting = setting
        self.parameters: Floats = np.repeat(np.array(STARTS[setting.start])[:, None], seeds, axis=1)
        two = setting.start == "two modes"
        self.rates = setting.learning_rate * np.array([setting.slow] * 3 + [1.0, 1.0] if two else [1.0, 1.0])[:, None]
        self.ruler = Ruler(LIMITS[setting.start])
        self.start = self._overlaps()
        self.gains, self.drops = [np.zeros(seeds)], [np.zeros(seeds)]
        self.reached = np.zeros(seeds, dtype=bool)

    def has_gained(self) -> bool:
        if self.setting.until is None:
            return False
        self.reached |= self.gains[-1] >= self.setting.until
        return bool(self.reached.all())

    def advance(self, z: Floats, u: Floats) -> None:
        y = draw(self.setting, self.parameters, z, u)
        self.parameters = self.parameters + self.rates * gradient(self.setting, self.parameters, y)
        if self.setting.start == "two modes":
            np.clip(self.parameters[0], LEAST_WEIGHT, 1 - LEAST_WEIGHT, out=self.parameters[0])
            np.maximum(self.parameters[2::2], LEAST_SD, out=self.parameters[2::2])
        else:
            np.maximum(self.parameters[1], LEAST_SD, out=self.parameters[1])
        old, new = self._overlaps()
        self.gains.append(new - self.start[1])
        self.drops.append(self.start[0] - old)

    def trajectory(self) -> Trajectory:
        return Trajectory(np.stack(self.gains, axis=1), np.stack(self.drops, axis=1), self.parameters)

    def _overlaps(self) -> tuple[Floats, Floats]:
        """With one mode, the whole policy is held against either mode of the target."""
        density = self.ruler.density
        if self.setting.start == "one mode":
            whole = density(np.stack([np.ones_like(self.parameters[0]), *self.parameters]))
            return self.ruler.overlaps(whole, whole)
        weight, old_mean, old_sd, new_mean, new_sd = self.parameters
        old, new = density(np.stack([weight, old_mean, old_sd])), density(np.stack([1 - weight, new_mean, new_sd]))
        return self.ruler.overlaps(old, new)


def _two_mode_weights(setting: Setting, parameters: Floats, y: Floats) -> tuple[Floats, Floats]:
    """What each sample weighs in the gradient of the old and of the new mode: c r and c (1 - r)."""
    weight, old_mean, old_sd, new_mean, new_sd = parameters[:, :, None]
    log_old = log_kernel(y, old_mean, old_sd, weight)
    log_new = log_kernel(y, new_mean, new_sd, 1 - weight)
    odds: Floats = np.exp(log_old - log_new)
    if setting.method == "forward":
        share_new = 1 / (1 + odds)
        return 1 - share_new, share_new
    log_policy = log_new if setting.ratio == "new/q2" else log_new + np.log1p(odds)
    if setting.ratio == "all/q":
        log_ratio = np.logaddexp(*(log_kernel(y, mode.mean, mode.sd, mode.weight) for mode in (OLD, NEW)))
    else:
        log_ratio = log_kernel(y, NEW.mean, NEW.sd)
    log_ratio -= log_policy
    reward = _reward(log_ratio, setting)
    if setting.support == "new mode":
        # The importance weight q/q2 = 1 + odds turns the shares r and 1 - r into odds and 1.
        return reward * odds, reward
    share_new = 1 / (1 + odds)
    return reward * (1 - share_new), reward * share_new


def _reward(log_ratio: Floats, setting: Setting) -> Floats:
    """log(ratio / beta + floor), without a term that is too small to change it."""
    log_ratio += setting.offset
    if setting.floor:
        low = log_ratio < log(setting.floor) + NEGLIGIBLE
        if low.any():
            log_ratio[low] = np.log(np.exp(log_ratio[low]) + setting.floor)
    return log_ratio


def _ascent(weights: Floats | None, away: Floats, sd: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean weight, and the gradients of mean and sd of one mode; weights of 1 where none are given."""
    count = away.shape[-1]
    if weights is None:
        total, first = np.ones_like(sd), away.sum(axis=-1) / count
        second = np.einsum("sn,sn->s", away, away) / count
    else:
        total = weights.sum(axis=-1) / count
        weighted = weights * away
        first = weighted.sum(axis=-1) / count
        second = np.einsum("sn,sn->s", weighted, away) / count
    return total, first / sd**2, (second / sd**2 - total) / sd
