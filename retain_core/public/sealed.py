"""A public data set as a study has it: like a target of the user's own, with files of the home and a verifier of retain's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retain_core.arms import computed_by
from retain_core.canonical import digest
from retain_core.errors import InputError
from retain_core.own.files import Code, Source, seal
from retain_core.own.target import OwnTarget
from retain_core.public.catalogue import LONGEST_ANSWER, PUBLIC, PublicData
from retain_core.public.folder import ITEMS, STYLES, TRAIN, answers_file, refuse_missing, style_name
from retain_core.public.language import check_language

VERIFIERS_VERSION = 1
"""Raised when an equal answer would be judged otherwise: keys are made of it, so that edits of words change no key."""


def seal_public(name: str, folder: Path, longest_answer: int | None = None, base: str = "") -> OwnTarget:
    """A public data set with the content that its files have now; `base` is whose words the in-style answers are in.

    Raises InputError with one sentence where it was not fetched, or where its verifier lacks language data.
    """
    data = PUBLIC[name]
    refuse_missing(folder, name)
    if data.family == "ifeval":
        check_language()
    files = {style: answers_file(folder, style_name(style, base)) for style in STYLES}
    answers = {style: seal([file]) for style, file in files.items() if file.is_file()}
    return OwnTarget(
        train=seal([folder / TRAIN]) if data.train else None, items=seal([folder / ITEMS]), retention=None,
        verifier=_code(data, "right"), lenient=_audit(data, "lenient"), parsed=_audit(data, "parsed"),
        longest_answer=longest_answer or LONGEST_ANSWER, metric="acc", exact=False, answers="off_style" in answers,
        public=name, experts=answers,
    )  # fmt: skip


def refuse_without_expert(target: OwnTarget, styles: dict[str, str]) -> None:
    """Raises InputError where a method imitates answers that were not fetched; `styles` is style -> method."""
    for style, label in styles.items():
        if style not in target.experts:
            whose = "" if style == "off_style" else " in the base's own words"
            more = "" if style == "off_style" else " --in-style here"
            raise InputError(
                f"{label} imitates the answers of a stronger model to {target.public}{whose}, which are not there; fetch them "
                f"with `retain prefetch STUDY.yaml --experts URL --expert-model NAME{more}`"
            )


def verifier_of(name: str) -> Any:
    """The verifier of a public data set, loaded. Raises RetainError."""
    return _code(PUBLIC[name], "right").load()


def _audit(data: PublicData, function: str) -> Code | None:
    """A function of its family that looks at answers a second time, where there is one."""
    return _code(data, function) if not data.judged and hasattr(data.module(), function) else None


def _code(data: PublicData, function: str) -> Code:
    path = Path(str(data.module().__file__))
    used = computed_by("lm_eval", "langdetect", "nltk")["versions"] if data.family == "ifeval" else {}
    content = digest([data.module_name, VERIFIERS_VERSION, used], 64)
    return Code(module=data.module_name, function=function, source=Source(files=seal([path]).files, content=content))
