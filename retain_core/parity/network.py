"""Many networks of one shape at once: every parameter has a first axis, one entry a run.

The paper's network has 785-512-256-10 units (paper section 5); this one 65-128-64-10.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from retain_core.parity.images import DIGITS, INPUTS

if TYPE_CHECKING:
    import torch

SIZES = (INPUTS, 128, 64, DIGITS)


def new_network(generator: torch.Generator) -> list[torch.Tensor]:
    """Weights (1, inputs, outputs) and biases (1, 1, outputs) of each layer, uniform within 1 / sqrt(inputs)."""
    import torch

    parameters = []
    for inputs, outputs in pairwise(SIZES):
        for rows in (inputs, 1):
            drawn = torch.rand((1, rows, outputs), generator=generator)
            parameters.append((2 * drawn - 1) / inputs**0.5)
    return parameters


def log_policy(parameters: Sequence[torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
    """Log probability of each digit (runs, n, 10) for inputs (n, 65), in nats."""
    import torch

    hidden = inputs.expand(len(parameters[0]), -1, -1)
    for layer in range(0, len(parameters), 2):
        if layer:
            hidden = torch.relu(hidden)
        hidden = torch.baddbmm(parameters[layer + 1], hidden, parameters[layer])
    return torch.log_softmax(hidden, dim=-1)


class Adam:
    """Adam (Kingma and Ba, 2015) without weight decay, with a learning rate of its own for every run."""

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        import torch

        self.parameters = parameters
        self.means = [torch.zeros_like(p) for p in parameters]
        self.squares = [torch.zeros_like(p) for p in parameters]
        self.steps = 0

    def step(self, loss: torch.Tensor, learning_rates: torch.Tensor) -> None:
        """One step down a loss that is summed over runs; learning rates (runs, 1, 1)."""
        import torch

        gradients = torch.autograd.grad(loss, self.parameters)
        self.steps += 1
        scale, root = 1 - 0.9**self.steps, (1 - 0.999**self.steps) ** 0.5
        with torch.no_grad():
            for parameter, gradient, mean, square in zip(self.parameters, gradients, self.means, self.squares, strict=True):
                mean.mul_(0.9).add_(gradient, alpha=0.1)
                square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
                parameter.sub_(mean / (square.sqrt() / root).add_(1e-8) * (learning_rates / scale))
