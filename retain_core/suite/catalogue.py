"""The benchmarks of the general suite, and what retain must know of them beside lm-eval's own YAML files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One benchmark by its name in lm-eval."""

    yaml: str
    """Its YAML file, or those of a group as a pattern, below lm-eval's own folder of them."""
    items: int
    """How many it asks; its own data says so when they are here."""
    metric: str = "acc"
    """The primary metric."""
    choices: int | None = None
    """Among how many answers a guesser would guess, where all items have as many."""
    cluster: str | None = None
    """Field of the documents that says which items are alike; of a group it is the part."""
    group: str | None = None
    """The YAML file of the group, whose figure is the mean over all items of its parts."""
    templates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Further prompt templates: name -> keys of the YAML that are said otherwise."""
    programs: bool = False
    """Its score comes of running programs that the model wrote."""


def _letters(question: str, option: str, ask: str) -> dict[str, str]:
    """A template of a question with four options, the answer of which is a letter."""
    options = [option.format(letter=letter, text=f"{{{{choices[{place}]}}}}") for place, letter in enumerate("ABCD")]
    return {"doc_to_text": "\n".join([question, *options, ask])}


MMLU_TEMPLATES = {
    "spelled": _letters("Question: {{question.strip()}}", "({letter}) {text}", "The right option is"),
    "instructed": _letters(
        "Answer with the letter of the right option.\n\n{{question.strip()}}", "{letter}) {text}", "Your answer:"
    ),
}
"""Two further ways to ask what lm-eval asks in one: the same letters, in other words and marks."""

CATALOGUE: dict[str, Entry] = {
    "mmlu": Entry(
        "mmlu/default/mmlu_*.yaml", 14042, choices=4, group="mmlu/default/_mmlu.yaml", templates=MMLU_TEMPLATES
    ),
    "gsm8k": Entry("gsm8k/gsm8k.yaml", 1319, metric="exact_match,strict-match"),
    "hellaswag": Entry("hellaswag/hellaswag.yaml", 10042, metric="acc_norm", choices=4, cluster="source_id"),
    "truthfulqa_mc2": Entry("truthfulqa/truthfulqa_mc2.yaml", 817),
    "winogrande": Entry("winogrande/default.yaml", 1267, choices=2),
    "humaneval": Entry("humaneval/humaneval.yaml", 164, metric="pass@1", programs=True),
    "arc_challenge": Entry("arc/arc_challenge.yaml", 1172, metric="acc_norm"),
    "arc_easy": Entry("arc/arc_easy.yaml", 2376, metric="acc_norm"),
    "piqa": Entry("piqa/piqa.yaml", 1838, metric="acc_norm", choices=2),
}  # fmt: skip


@lru_cache(maxsize=1)
def harness_folder() -> Path:
    """lm-eval's own folder of YAML files; lm-eval is not imported."""
    spec = find_spec("lm_eval")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "tasks"


def files_of(entry: Entry) -> list[Path]:
    """The YAML files of a benchmark, of a group those of its parts, sorted."""
    return sorted(harness_folder().glob(entry.yaml))
