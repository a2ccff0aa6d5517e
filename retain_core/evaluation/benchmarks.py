"""The benchmarks of the lab, and what retain must know of any benchmark beside lm-eval's YAML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from retain_core.judge.benchmark import JudgedBenchmark
from retain_core.own.benchmark import OwnBenchmark
from retain_core.own.target import OwnTarget
from retain_core.public.catalogue import PUBLIC
from retain_core.suite.benchmark import SuiteBenchmark


@dataclass(frozen=True)
class Benchmark:
    """One benchmark with one primary metric."""

    name: str
    harness_name: str
    """Its name in lm-eval."""
    metrics: tuple[str, ...] = ("acc",)
    """The first is the primary one."""
    role: Literal["benchmark", "probe"] = "benchmark"
    """A probe is loss-type: reported beside, never averaged into drop."""
    verifier: str | None = None
    """How an answer is checked during training; only a benchmark with a verifier can be a target."""
    exact: bool = False
    """The valid answers are finite, so their probability is summed exactly (metric `exact`)."""
    choices: int | None = None
    """Among how many answers a guesser would guess; 1 / choices is the chance level."""
    samples: int = 1
    """Answers an item: 1 is greedy, more are drawn at temperature 1."""
    longest: int = 16
    """Tokens of an answer at most, the stop token included, where the benchmark is one of the lab."""
    plays: str = ""
    """The part it plays in the lab."""
    own: OwnBenchmark | OwnTarget | SuiteBenchmark | JudgedBenchmark | None = None
    """Where it comes from when the lab has it not; None for a benchmark of the lab, whose items a world has."""


STRICT_AND_LENIENT = ("acc", "lenient")
"""acc: the answer is the target; lenient: the target stands somewhere in the answer, whatever else it says."""
SAMPLED = ("pass_at_4", "acc", "distinct")
"""pass_at_4: P(one of four sampled answers is right); acc: of a single one; distinct: share of different answers."""
SAMPLING_SEED = 0
BATCH_SIZE = 400
"""Requests per forward pass. Part of the settings: the batch size can change scores."""

BENCHMARKS: dict[str, Benchmark] = {
    b.name: b
    for b in (
        Benchmark(
            "countdown", "lab_countdown", metrics=("acc", "exact"), verifier="countdown", exact=True,
            plays="the target: reach a value with the numbers given",
        ),
        Benchmark(
            "countdown_steps", "lab_countdown_steps", metrics=("acc", "exact"), verifier="countdown_steps", exact=True,
            longest=36, plays="the target of bases with `steps`: countdown with every step written down",
        ),
        Benchmark("addition", "lab_addition", metrics=STRICT_AND_LENIENT, plays="mathematics; shares digits with the target"),
        Benchmark("sorting", "lab_sorting", metrics=STRICT_AND_LENIENT, plays="instruction following"),
        Benchmark(
            "facts", "lab_facts", metrics=STRICT_AND_LENIENT, choices=8,
            plays="knowledge, by generation; rare entities are half known",
        ),
        Benchmark("places", "lab_places", choices=4, plays="knowledge, four choices by log-likelihood"),
        Benchmark(
            "safety", "lab_safety", metrics=STRICT_AND_LENIENT, choices=2,
            plays="refusal of harmful requests, compliance with harmless ones",
        ),
        Benchmark(
            "addition_sampled", "lab_addition_sampled", metrics=SAMPLED, samples=8,
            plays="addition by eight answers an item: whether a right one is still among them",
        ),
        Benchmark(
            "facts_sampled", "lab_facts_sampled", metrics=SAMPLED, samples=8,
            plays="facts by eight answers an item: whether a right one is still among them",
        ),
        Benchmark(
            "new_facts", "lab_new_facts", metrics=("acc", "exact"), verifier="new_facts", exact=True, choices=64,
            plays="a target: facts of entities that the base never met",
        ),
        Benchmark(
            "new_format", "lab_new_format", metrics=("acc", "exact"), verifier="new_format", exact=True,
            plays="a target: sorting with another output format",
        ),
        Benchmark(
            "heldout_loss", "lab_heldout_loss", metrics=("nats_per_token",), role="probe",
            plays="loss per token on held-out text of all retention skills",
        ),
    )
}  # fmt: skip


def own_benchmark(name: str, own: OwnBenchmark | SuiteBenchmark | JudgedBenchmark) -> Benchmark:
    """A benchmark from the user's YAML file, from lm-eval's own, or one that a judge scores."""
    choices = 2 if isinstance(own, JudgedBenchmark) else own.choices
    return Benchmark(name, name, metrics=own.metrics, choices=choices, own=own)


def target_benchmark(name: str, own: OwnTarget) -> Benchmark:
    """The held-out items of the user's own target as a benchmark."""
    metrics = (own.metric, *(["lenient"] if own.lenient else []), *(["exact"] if own.exact else []))
    choices = PUBLIC[own.public].choices if own.public else None
    return Benchmark(
        name, name, metrics=metrics, verifier=own.verifier.function, exact=own.exact, own=own, choices=choices,
        plays=f"public data: {PUBLIC[own.public].hub}" if own.public else "",
    )  # fmt: skip
