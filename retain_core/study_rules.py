"""What may stand together in a study: the rules between its keys, checked when all of them are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retain_core.evaluation.benchmarks import BENCHMARKS
from retain_core.methods import WITHOUT_LAB, interpolated
from retain_core.public.catalogue import PUBLIC
from retain_core.study_blocks import unknown

if TYPE_CHECKING:
    from retain_core.study import Study


def refuse_inconsistent(study: Study) -> None:
    """What no single key can know: methods, targets, benchmarks and the machine must fit together.

    Raises ValueError with the first thing that does not.
    """
    labels = [m.label for m in study.all_methods()]
    refuse_doubles(labels)
    _refuse_without_lab(study)
    watched = [r.benchmark for r in study.retention]
    for target in study.targets():
        if target in watched:
            raise ValueError(f"{target} is a target; it cannot be a retention benchmark too")
        if study.targets().count(target) > 1:
            raise ValueError(f"{target} is learned twice; a sequence (`then`) takes each target once")
    if study.then:
        _refuse_in_a_sequence(study)
    if lab := study.base.lab():
        unknown_to_it = "countdown" if lab.steps else "countdown_steps"
        if unknown_to_it in [*study.targets(), *watched]:
            steps = "answers countdown in steps only" if lab.steps else "needs a base with `steps: true`, such as lab/large"
            raise ValueError(f"{unknown_to_it}: {study.base.model} {steps}" if lab.steps else f"{unknown_to_it} {steps}")
    if study.generation.backend == "http":
        _refuse_drawn(watched)
    if study.data.max_length is not None and study.base.lab() is not None:
        raise ValueError("data.max_length is for a base that is none of the lab's, which read 64 tokens and refuse more")
    for name in watched:
        if name in PUBLIC and PUBLIC[name].judged and study.judge is None:
            raise ValueError(f"{name} is scored by a judge; name one with `judge: {{model: allenai/wildguard}}`")
    for name in watched:
        if watched.count(name) > 1:
            raise ValueError(f"retention lists {name} twice")
        if name in BENCHMARKS and BENCHMARKS[name].role == "probe":
            raise ValueError(f"{name} is a loss probe; list it under probes")
    blended = study.interpolated()
    for label in labels:
        if label in blended:
            raise ValueError(
                f"{label!r} is what `interpolate` calls the blends of {blended[label]}; give the method another label"
            )
    if study.primary:
        for label in study.primary.contrast:
            if not blended and label in map(interpolated, labels):
                raise ValueError(f"primary.contrast names {label}, which needs `interpolate: [0.25, 0.5, 0.75]`")
            if label not in [*labels, *blended]:
                raise ValueError(unknown("method in primary.contrast", label, [*labels, *blended]))
            if label in blended and study.primary.at:
                raise ValueError(f"{label} ends in {blended[label]} itself, so compare it at a gain (`at_gain: 0.05`)")
    for method in study.methods:
        unit, why = method.unit()
        if study.budget.sequences_per_update % unit:
            raise ValueError(
                f"{method.label}: sequences_per_update ({study.budget.sequences_per_update}) "
                f"must be a multiple of {why} ({unit})"
            )
    _refuse_unequal_shares(study)
    _refuse_unequal_parts(study)


def _refuse_unequal_shares(study: Study) -> None:
    """Processes that train together need shares of every batch that are equally large."""
    processes, size = study.execution.processes_per_arm, study.budget.sequences_per_update
    for method in study.methods:
        of_target = size - round(method.replay * size)
        shared = of_target // 2 if method.algorithm in ("dpo", "simpo") else of_target
        if size % processes or shared % processes:
            what = "pairs" if method.algorithm in ("dpo", "simpo") else "sequences of the target"
            raise ValueError(
                f"{method.label}: {shared} {what} an update do not divide among {processes} processes "
                "(execution.processes_per_arm)"
            )


def _refuse_unequal_parts(study: Study) -> None:
    """Micro-batches of the methods that sample, or learn from pairs, are equally large."""
    if study.training.card is not None and study.base.lab() is not None:
        raise ValueError("training.card fits models that are not of the lab to a card; those of the lab fit on any")
    if (micro := study.training.micro_batch) is None:
        return
    for method in study.methods:
        pairs = method.algorithm in ("dpo", "simpo")
        batch = study.budget.sequences_per_update // study.execution.processes_per_arm // (2 if pairs else 1)
        if (pairs or "group_size" in method.config()) and micro < batch and batch % micro:
            what = "pairs" if pairs else "samples"
            raise ValueError(f"{method.label}: training.micro_batch ({micro}) must divide the {batch} {what} of an update")


def _refuse_drawn(watched: list[str]) -> None:
    """A server draws from a random stream of its own."""
    for name in watched:
        if name in BENCHMARKS and BENCHMARKS[name].samples > 1:
            raise ValueError(f"{name} is drawn from this process's random stream, which `backend: http` has no part in")


def _refuse_in_a_sequence(study: Study) -> None:
    if not study.on_lab_target:
        whose = "your own" if study.target_files else "public data"
        raise ValueError(f"a sequence (`then`) is one of targets of the lab, and {study.target} is {whose}")
    if study.primary and study.primary.at_gain is not None:
        raise ValueError("gain is that on the first target, so compare a sequence (`then`) where it ends: `at: last`")
    for method in study.methods:
        if method.traces_of is not None:
            raise ValueError(f"{method.label}: traces are those of one target, so no sequence (`then`) can imitate them")


def _refuse_without_lab(study: Study) -> None:
    """Refuse what only a target of the lab can do."""
    if study.on_lab_target:
        return
    for name in study.controls:
        if name not in WITHOUT_LAB:
            raise ValueError(f"control {name} needs a target of the lab; yours can have {', '.join(WITHOUT_LAB)}")
    if study.target_files is None:
        _refuse_on_public(study)
        return
    for method in study.methods:
        if method.algorithm == "sft" and method.expert not in ("off_style", "lowest_kl", "traces"):
            raise ValueError(
                f"{method.label}: expert {method.expert} needs a target of the lab; a target of your own has one expert, "
                "the `answer` of its rows (leave `expert` out)"
            )
        replays, along = method.replay > 0, method.kl > 0 and method.kl_prompts == "retention"
        if (replays or along) and study.target_files.retention is None:
            dial = "replay" if replays else "kl_prompts: retention"
            raise ValueError(f"{method.label}: {dial} needs text to retain; give the target `retention: text.jsonl`")


def _refuse_on_public(study: Study) -> None:
    """Refuse what a public target has no text for."""
    known = ("off_style", "in_style", "traces")
    for method in study.methods:
        if method.algorithm == "sft" and method.expert not in known:
            raise ValueError(
                f"{method.label}: expert {method.expert} is not to be had on {study.target}, where an expert is one of "
                f"{', '.join(known)}"
            )
        if method.replay > 0 or (method.kl > 0 and method.kl_prompts == "retention"):
            dial = "replay" if method.replay > 0 else "kl_prompts: retention"
            raise ValueError(f"{method.label}: {dial} needs text to retain, which {study.target} does not bring")


def refuse_doubles(labels: list[str]) -> None:
    """Every arm is known by its label. Raises ValueError for one that is given twice."""
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(f"two methods or controls are labelled {label!r}; give one of them another `label:`")
