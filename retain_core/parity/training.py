"""Pre-training on both jobs, then fine-tuning on parity alone, all arms and learning rates of one base at once.

Source: paper section 5. What differs from the paper is listed in docs/parity.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retain_core.parity.divergence import forward_kl, reverse_kl, total_variation
from retain_core.parity.images import World, draw_world, parity_labels
from retain_core.parity.methods import ARMS, KL_COEFFICIENTS, grpo_loss, labels, oracle, right_digits, sft_loss
from retain_core.parity.network import Adam, log_policy, new_network

if TYPE_CHECKING:
    import torch

LOWEST, HIGHEST = 3e-6, 1e-3
"""The published range of learning rates."""
WITHIN, BEYOND = 8, 3
_RATIO = (HIGHEST / LOWEST) ** (1 / (WITHIN - 1))
LEARNING_RATES = (
    *(float(rate) for rate in np.geomspace(LOWEST, HIGHEST, WITHIN)),
    *(HIGHEST * _RATIO**further for further in range(1, BEYOND + 1)),
)
"""Eight over the published range, and three larger ones at the same ratio."""
BATCH = 64
WARM_UP = 0.1
PRETRAINING_RATE = 2e-3


@dataclass(frozen=True)
class Setting:
    """What every arm is given: the same learning rates, steps and checkpoints."""

    learning_rates: tuple[float, ...] = LEARNING_RATES
    pretraining_steps: int = 600
    checkpoints: tuple[int, ...] = (20, 40, 75, 150, 300, 600)


class Point(NamedTuple):
    """One checkpoint of one run against its base, on held-out images.

    Accuracy and gain are of parity: of an answer drawn from the policy (the exact mass on right digits), and `greedy` of its
    likeliest. `drop` is of the old job, likeliest answer; `drop_select` and `drop_report` on halves of its images. KL, in nats,
    and total variation are on parity images. `steps_x_lr` is the sum of the learning rates so far.
    """

    base: int
    arm: str
    learning_rate: float
    step: int
    kl_forward: float
    kl_reverse: float
    total_variation: float
    weight_l1: float
    weight_l2: float
    steps_x_lr: float
    accuracy: float
    greedy_accuracy: float
    gain: float
    drop: float
    drop_select: float
    drop_report: float


class Base(NamedTuple):
    """What the base can do on held-out images before fine-tuning: parity both ways, and the old job."""

    accuracy: float
    greedy_accuracy: float
    old_accuracy: float


def train_base(base: int, seed: int, setting: Setting, tick: Callable[[int], object] | None = None) -> tuple[Base, list[Point]]:
    """Draw the images, the network and its pre-training for base `base` of stream `seed`, and fine-tune every run from it.

    The same base comes out however many others are asked for. `tick` hears of every step.
    """
    import torch

    rng = np.random.default_rng([seed, base])
    world = draw_world(rng)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    # Networks so small gain nothing from a second thread, and waiting for it costs minutes where cores are shared.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network = pretrain(world, setting.pretraining_steps, rng, generator)
        return fine_tune(base, world, network, setting, generator, tick)
    finally:
        torch.set_num_threads(threads)


def pretrain(world: World, steps: int, rng: np.random.Generator, generator: torch.Generator) -> list[torch.Tensor]:
    """A network (a first axis of 1) trained on half a batch of each job; parity labels are drawn anew at every visit."""
    import torch

    parameters = [p.requires_grad_() for p in new_network(generator)]
    optimizer = Adam(parameters)
    rate = torch.full((1, 1, 1), PRETRAINING_RATE)
    for _ in range(steps):
        parity, old = (rng.integers(0, len(images.labels), BATCH // 2) for images in (world.pretrained, world.old_train))
        inputs = np.concatenate([world.pretrained.inputs[parity], world.old_train.inputs[old]])
        drawn = parity_labels(world.pretrained.labels[parity], rng)
        chosen = torch.from_numpy(np.concatenate([drawn, world.old_train.labels[old]]))
        optimizer.step(sft_loss(log_policy(parameters, torch.from_numpy(inputs)), chosen).sum(), rate)
    return [p.detach() for p in parameters]


def fine_tune(
    base: int,
    world: World,
    network: Sequence[torch.Tensor],
    setting: Setting,
    generator: torch.Generator,
    tick: Callable[[int], object] | None = None,
) -> tuple[Base, list[Point]]:
    """Every arm at every learning rate from one network, on the same images in the same order; constant rate, warmed up."""
    import torch

    inputs, digits = torch.from_numpy(world.tuned.inputs), torch.from_numpy(world.tuned.labels)
    right = right_digits(digits)
    before = log_policy(network, inputs)[0]
    target = oracle(before.exp(), right)
    rates = torch.tensor(setting.learning_rates).repeat(len(ARMS)).view(-1, 1, 1)
    parameters = [p.expand(len(rates), -1, -1).clone().requires_grad_() for p in network]
    optimizer = Adam(parameters)
    judge = _Judge(world, network)
    points: list[Point] = []
    travelled = torch.zeros_like(rates)
    last = setting.checkpoints[-1]
    order = torch.empty(0, dtype=torch.int64)
    for step in range(1, last + 1):
        if len(order) < BATCH:
            order = torch.randperm(len(digits), generator=generator)
        at, order = order[:BATCH], order[BATCH:]
        policies = log_policy(parameters, inputs[at]).view(len(ARMS), len(setting.learning_rates), BATCH, -1)
        losses = [
            grpo_loss(log_p, before[at], right[at], KL_COEFFICIENTS[arm], generator)
            if arm in KL_COEFFICIENTS
            else sft_loss(log_p, labels(arm, digits[at], target[at], generator))
            for arm, log_p in zip(ARMS, policies, strict=True)
        ]
        current = rates * min(1.0, step / (WARM_UP * last))
        optimizer.step(torch.stack(losses).sum(), current)
        travelled += current
        if step in setting.checkpoints:
            found = {"steps_x_lr": travelled, **judge.measure(parameters)}
            columns = {name: values.flatten().tolist() for name, values in found.items()}
            runs = ((arm, rate) for arm in ARMS for rate in setting.learning_rates)
            points += [
                Point(base, arm, rate, step, **{name: column[i] for name, column in columns.items()})
                for i, (arm, rate) in enumerate(runs)
            ]
        if tick:
            tick(1)
    return judge.base, points


class _Judge:
    """Measures policies on held-out images, beside those of the base."""

    def __init__(self, world: World, network: Sequence[torch.Tensor]) -> None:
        import torch

        self.network = network
        self.parity, self.old = (torch.from_numpy(images.inputs) for images in (world.parity_test, world.old_test))
        self.right = right_digits(torch.from_numpy(world.parity_test.labels))
        self.classes = torch.from_numpy(world.old_test.labels)
        self.report = torch.from_numpy(world.report)
        self.log_p = log_policy(network, self.parity)
        self.old_right = self._old_right(network)
        accuracies = (*self._accuracies(self.log_p), self.old_right.mean(-1))
        self.base = Base(*(float(accuracy) for accuracy in accuracies))

    def measure(self, parameters: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Every figure of `Point` but the sum of learning rates, one value a run."""
        import torch

        with torch.no_grad():
            log_p = log_policy(parameters, self.parity)
            accuracy, greedy = self._accuracies(log_p)
            lost = self.old_right - self._old_right(parameters)
            moved = torch.cat([(p - q).flatten(1) for p, q in zip(parameters, self.network, strict=True)], dim=1)
            return {
                "kl_forward": forward_kl(self.log_p, log_p), "kl_reverse": reverse_kl(self.log_p, log_p),
                "total_variation": total_variation(self.log_p, log_p),
                "weight_l1": moved.abs().sum(-1), "weight_l2": moved.square().sum(-1).sqrt(),
                "accuracy": accuracy, "greedy_accuracy": greedy, "gain": accuracy - self.base.accuracy,
                "drop": lost.mean(-1), "drop_select": lost[:, ~self.report].mean(-1),
                "drop_report": lost[:, self.report].mean(-1),
            }  # fmt: skip

    def _accuracies(self, log_p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Parity right, of an answer drawn and of the likeliest: (runs,) each."""
        likeliest = log_p.argmax(-1, keepdim=True)
        greedy = self.right.expand(len(log_p), -1, -1).gather(-1, likeliest)
        return (log_p.exp() * self.right).sum(-1).mean(-1), greedy.mean((-2, -1))

    def _old_right(self, parameters: Sequence[torch.Tensor]) -> torch.Tensor:
        """1 where the likeliest class of the old job is right, else 0: (runs, n)."""
        return (log_policy(parameters, self.old).argmax(-1) == self.classes).float()
