"""SFT on text that the model did not write: an expert's, the likeliest right answers, or the samples of an RL run."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Dataset

from retain_core.arms import ArmSpec
from retain_core.errors import RetainError
from retain_core.store import Artifact
from retain_core.training.encode import encode_exchanges, loss_per_token
from retain_core.training.frozen import FrozenBase
from retain_core.training.imitation.trainer import ImitationTrainer, extras, settings
from retain_core.training.record import TrainingRecord
from retain_core.training.rewards import judged
from retain_core.training.target import Exchange, Problem, Target
from retain_core.training.traces import read_traces

SOLVING_SAMPLES = 8
"""A problem is solvable when one of so many samples of the base at temperature 1 is right."""


def expert_trainer(
    spec: ArmSpec, path: Path, tokenizer: Any, target: Target, common: dict[str, Any], traces: Artifact | None = None
) -> Any:
    """(trainer, what it counted when it is done) for SFT on a text that is fixed beforehand."""
    base = FrozenBase(path, tokenizer, target.longest_answer, spec.size.base_in_bf16(common["precise"]))
    added = extras(spec, base, tokenizer, target)
    sequences = spec.updates * (spec.sequences_per_update - added.replayed)
    exchanges = _text(spec, base, target, sequences, traces)
    rows = encode_exchanges(tokenizer, exchanges)
    order = "sequential" if traces and spec.config["traces_order"] == "produced" else "random"
    trainer = ImitationTrainer(**settings(spec, path, tokenizer, added, common, order), train_dataset=Dataset.from_list(rows))
    unique = len({prompt for prompt, _ in exchanges})
    style = loss_per_token(trainer.model, rows, tokenizer.pad_token_id)
    generated = base.tokens + (traces.meta["tokens_generated"] if traces else 0)

    def count(done: ImitationTrainer) -> TrainingRecord:
        all_sequences = spec.updates * spec.sequences_per_update
        return TrainingRecord(spec.updates, all_sequences, unique, done.tokens_trained, generated, style)

    return trainer, count


def _text(spec: ArmSpec, base: FrozenBase, target: Target, count: int, traces: Artifact | None) -> list[Exchange]:
    seed = spec.seed or 0
    if traces:
        return stretched(read_traces(traces.path), count)
    only = solvable(base, target, seed, count) if spec.config["only_solvable"] else None
    if spec.config["expert"] == "lowest_kl":
        return likeliest(base, target, list(islice(target.problems(seed, only), count)))
    return target.expert(spec.config, seed, count, only)


def solvable(base: FrozenBase, target: Target, seed: int, most: int) -> list[Hashable]:
    """The problems that the base solves in some of its samples, among the first `most` of the seed's order, no two alike.

    Raises RetainError when there are none.
    """
    problems = list(islice(target.problems(seed), min(most, target.size)))
    asked = [problem for problem in problems for _ in range(SOLVING_SAMPLES)]
    answers = base.sample([problem.prompt for problem in asked], temperature=1.0)
    solved = {problem.key: None for problem, right in zip(asked, judged(asked, answers), strict=True) if right}
    if not solved:
        raise RetainError(
            f"the base solves none of {len(problems)} problems in {SOLVING_SAMPLES} samples each: "
            "it has too little support on the target for only_solvable"
        )
    return list(solved)


def likeliest(base: FrozenBase, target: Target, problems: Iterable[Problem]) -> list[Exchange]:
    """Each problem with the right answer, in either form, that the base finds likeliest.

    KL(text || base) of a text that always gives the answer y is -log base(y), so this is the right text of lowest KL
    (RL's Razor: a text that stays as close to the base as being right allows).
    """
    problems = list(problems)
    distinct = {problem.prompt: problem for problem in problems}
    right = [(prompt, answer) for prompt, problem in distinct.items() for answer in target.right_answers(problem)]
    best: dict[str, tuple[float, str]] = {}
    for (prompt, answer), likelihood in zip(right, base.log_likelihoods(right), strict=True):
        if prompt not in best or likelihood > best[prompt][0]:
            best[prompt] = likelihood, answer
    return [(problem.prompt, best[problem.prompt][1]) for problem in problems]


def stretched(text: list[Exchange], count: int) -> list[Exchange]:
    """`count` exchanges in the order of the text: each is repeated, or some are left out, evenly all along."""
    return [text[i * len(text) // count] for i in range(count)]
