"""How many items of a benchmark stand in what is trained on, exactly or nearly.

An item is there exactly when its prompt is a training prompt. It is there nearly when the two are equal but for case,
punctuation and white space, or when at least half of the item's sequences of eight words stand somewhere in the training
text, answers included. (Tülu 3, arXiv:2411.15124, asks it of a single training document; asking it of the whole text is
cheaper and never finds less.) A prompt of fewer than eight words can only be equal.

Owns the `overlap` artifact: rows.json with a row per training text and benchmark: target, text, benchmark, n_items,
n_exact, n_near. A text is `target` (the training problems of that target) or `retention` (what replay trains on).
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from retain_core.own.items import items_key, read_items
from retain_core.store import Artifact, Store, key_of

if TYPE_CHECKING:
    from retain_core.evaluation.benchmarks import Benchmark
    from retain_core.plan import StudyPlan
    from retain_core.training.target import Exchange

ROWS = "rows.json"
OVERLAP_VERSION = 1
"""Raised when equal texts would give other counts."""
WORDS, SHARE = 8, 0.5
"""An item is there nearly when this share of its sequences of so many words stands in the training text."""
REPLAYED = 5000
"""Exchanges of a lab target's retention text, which is endless, that are looked at."""
_WORD = re.compile(r"\w+")


def overlap_inputs(plan: StudyPlan) -> dict[str, Any]:
    """What the overlap of a study depends on."""
    study = plan.study
    trained: dict[str, Any] = {"world": plan.dataset_key, "targets": study.targets(), "seeds": study.seeds}
    if study.own.target:
        own = study.own.target
        trained = {"train": own.content("train"), "retention": own.content("retention") if own.retention else None}
    items = {b.name: items_key(b) if b.own else f"{plan.dataset_key}/{b.name}" for b in _asked(plan)}
    return {"overlap": trained, "items": items, "overlap_version": OVERLAP_VERSION}


def measure_overlap(plan: StudyPlan, store: Store) -> Artifact:
    """The overlap of what a study trains on with what it is evaluated on, measured if it was not. The items must be there."""
    inputs = overlap_inputs(plan)
    key = key_of(inputs)
    if found := store.find("overlap", key):
        return found
    prompts = {benchmark.name: _prompts(plan, store, benchmark) for benchmark in _asked(plan)}
    rows = [
        [target, text, benchmark, *counts]
        for target, text, exchanges in _texts(plan)
        for benchmark, counts in overlaps(exchanges, prompts).items()
    ]
    with store.create("overlap", key, inputs) as draft:
        (draft.path / ROWS).write_text(json.dumps(rows), encoding="utf-8")
    return store.get("overlap", key)


def overlaps(text: Iterable[Exchange], prompts: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, int, int]]:
    """Benchmark -> (items, those that are in the text exactly, those that are there exactly or nearly).

    The text is read once and not kept; memory is that of the items.
    """
    asked = {prompt for each in prompts.values() for prompt in each}
    words = {prompt: normal(prompt) for prompt in asked}
    wanted = {gram for each in words.values() for gram in _grams(each)}
    equal = {" ".join(each) for each in words.values() if each}
    exact: set[str] = set()
    same: set[str] = set()
    seen: set[int] = set()
    for prompt, answer in text:
        if prompt in asked:
            exact.add(prompt)
        question = normal(prompt)
        if (plain := " ".join(question)) in equal:
            same.add(plain)
        seen.update(gram for gram in _grams([*question, *normal(answer)]) if gram in wanted)

    def near(prompt: str) -> bool:
        grams = list(_grams(words[prompt]))
        half = bool(grams) and sum(gram in seen for gram in grams) >= SHARE * len(grams)
        return prompt in exact or " ".join(words[prompt]) in same or half

    return {
        benchmark: (len(each), sum(prompt in exact for prompt in each), sum(map(near, each)))
        for benchmark, each in prompts.items()
    }


def overlap_rows(plan: StudyPlan) -> list[list[Any]]:
    """The rows of the warehouse's `overlap`; none where it was not measured."""
    if plan.overlap is None:
        return []
    rows = json.loads(plan.overlap.file(ROWS).read_text(encoding="utf-8"))
    return [[plan.study.study, *row] for row in rows]


def normal(text: str) -> list[str]:
    """The words of a text, without case, punctuation and the difference between look-alike forms of a character."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _grams(words: Sequence[str]) -> Iterator[int]:
    return (hash(tuple(words[i : i + WORDS])) for i in range(len(words) - WORDS + 1))


def _asked(plan: StudyPlan) -> list[Benchmark]:
    return [benchmark for benchmark in plan.study.benchmarks() if benchmark.role == "benchmark"]


def _prompts(plan: StudyPlan, store: Store, benchmark: Benchmark) -> list[str]:
    if benchmark.own:
        return [row["prompt"] for row in read_items(store, benchmark)]
    file = store.get("dataset", plan.dataset_key).file("items") / f"{benchmark.name}.jsonl"
    return [json.loads(line)["prompt"] for line in file.read_text(encoding="utf-8").split("\n") if line]


def _texts(plan: StudyPlan) -> Iterator[tuple[str, str, Iterable[Exchange]]]:
    """(target, which text, its exchanges) of everything that the study may train on."""
    study, own = plan.study, plan.study.own.target
    if own:
        yield study.target, "target", ((row["prompt"], row.get("answer", "")) for _, row in own.rows("train"))
        if own.retention:
            yield study.target, "retention", ((row["prompt"], row["answer"]) for _, row in own.rows("retention"))
        return
    from retain_core.lab.targets import LAB_TARGETS
    from retain_core.lab.world import World

    world = World(plan.world)
    for name in study.targets():
        target = LAB_TARGETS[name](world, "varied")
        asked = (problem for seed in study.seeds for problem in islice(target.problems(seed), target.size))
        yield name, "target", ((problem.prompt, "") for problem in asked)
    # The same base, so the same text for every target.
    yield study.target, "retention", islice(target.retention(study.seeds[0]), REPLAYED)
