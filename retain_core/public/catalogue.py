"""The public data sets by name: where each lies on the hub, its size, who checks its answers, what differs from the paper.

Sizes and prompt shapes are those of "Retaining by Doing" (arXiv 2510.18874) as far as they are known; docs/public.md
says more of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class PublicData:
    """One public data set."""

    name: str
    hub: str
    """Its id on the hub."""
    config: str | None
    split: str
    columns: tuple[str, ...]
    """Columns that its rows must have."""
    family: str
    """The module of this package that converts its rows and checks answers.

    `right(answer, row)` is the verifier; `lenient` accepts what a reader would, whatever the format; `parsed` says whether the
    answer has the form in which it is looked for.
    """
    items: int
    """Held-out items of the published study."""
    train: int = 0
    """Training prompts of the published study; 0 for what is never trained on."""
    rest: bool = False
    """The published split takes the whole data set, so the items are all that is not trained on."""
    converter: str = "row_of"
    """The function of the family that makes one of our rows of a row of the hub, or says why it is left out."""
    judged: bool = False
    """A judge model scores its answers; there is no verifier."""
    same: tuple[str, ...] = ("prompt",)
    """Fields of our rows that tell problems apart; a second row that says the same is left out."""
    gold: str | None = None
    """Field of our rows that is shown as what would have been right."""
    choices: int | None = None
    """Among how many answers a guesser would guess."""
    loading: dict[str, Any] = field(default_factory=dict)
    """Further arguments of `datasets.load_dataset`."""
    deviations: tuple[str, ...] = ()
    """What differs from the published study, in words."""

    def module(self) -> Any:
        """The module of its family."""
        return import_module(self.module_name)

    @property
    def module_name(self) -> str:
        """The dotted name of that module."""
        return f"retain_core.public.{self.family}"


LONGEST_ANSWER = 3000
"""Tokens of an answer at most: what the published RL runs sampled (their evaluation went on to 4,096)."""

_SPLIT = "the split is ours: rows in the order of a hash, because the published one is not public"

PUBLIC: dict[str, PublicData] = {
    d.name: d
    for d in (
        PublicData(
            "countdown_cot", "Jiayi-Pan/Countdown-Tasks-3to4", None, "train", ("target", "nums"), "countdown",
            train=10_000, items=1_000, same=("cluster", "target"), gold="target",
            deviations=(
                "the published problems and the words of their prompt are not public; these are of the same kind "
                "(3 or 4 numbers), and the prompt is ours",
                "targets above 99 are left out, because the published check accepts results from 0 to 99 only",
                _SPLIT,
            ),
        ),
        PublicData(
            "rlvr_ifeval", "allenai/RLVR-IFeval", None, "train",
            ("messages", "ground_truth", "dataset", "constraint_type", "constraint"), "ifeval",
            train=13_000, items=1_972, rest=True,
            deviations=(
                "the 25 published checks are mapped onto the instruction classes of lm-eval, which differ in details "
                "(docs/public.md)",
                "held out is all that is not trained on: 1,973 of 14,973 rows before any is left out (published: 1,972)",
                _SPLIT,
            ),
        ),
        PublicData(
            "mmlu_cot", "cais/mmlu", "all", "test", ("question", "subject", "choices", "answer"), "mmlu",
            train=12_000, items=2_042, rest=True, gold="gold", choices=4,
            deviations=(
                "questions that MMLU has twice count once, so there may be fewer than 2,042 held-out items",
                _SPLIT,
            ),
        ),
        PublicData(
            "math_cot", "HuggingFaceH4/MATH-500", None, "test",
            ("problem", "solution", "answer", "subject", "level", "unique_id"), "math",
            items=500, gold="gold",
            deviations=("the published size of MATH is not stated; these are the 500 problems that are commonly used",),
        ),
        PublicData(
            "wildjailbreak", "allenai/wildjailbreak", "eval", "train", ("adversarial", "label", "data_type"), "wild",
            items=2_210, rest=True, converter="of_jailbreak", judged=True,
            loading={"delimiter": "\t", "keep_default_na": False},
        ),
        PublicData(
            "wildguardtest", "allenai/wildguardmix", "wildguardtest", "test", ("prompt", "prompt_harm_label"), "wild",
            items=1_725, rest=True, converter="of_guard", judged=True,
            deviations=("prompts without a label are left out; the published code counts them as harmless",),
        ),
    )
}  # fmt: skip
"""By name."""

TRAINABLE = tuple(name for name, data in PUBLIC.items() if data.train)
"""Those that can be a target."""
