"""Study files that cross bases, base seeds and targets: one ordinary study for each combination.

Sizes (bases) are outermost, so that every study of one size is done before the next size begins; then base seeds,
then targets. A study is named after the file and whatever is crossed: `<study>-<base>-s<seed>-<target>`.
"""

from __future__ import annotations

import re
from itertools import pairwise, product
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from retain_core.study import Study
from retain_core.study_blocks import Cross
from retain_core.study_file import StudyText, Where, read_study


class StudyFile(BaseModel):
    """The studies that a file stands for, in the order in which they run."""

    model_config = ConfigDict(frozen=True)

    name: str
    studies: tuple[Study, ...]
    crossed: bool

    def of(self, size: str, target: str) -> list[Study]:
        """The studies of one base model and one target: those that differ in the seed of the base only."""
        return [study for study in self.studies if (study.base.model, study.target) == (size, target)]

    @property
    def sizes(self) -> list[str]:
        """The base models, the smaller first."""
        return list(dict.fromkeys(study.base.model for study in self.studies))

    @property
    def targets(self) -> list[str]:
        """The targets, in the order of the file."""
        return list(dict.fromkeys(study.target for study in self.studies))

    def steps_up(self) -> list[tuple[str, str, str]]:
        """(a size, the next larger one, target), in the order in which they can be predicted."""
        return [(small, large, target) for small, large in pairwise(self.sizes) for target in self.targets]


class Family(NamedTuple):
    """What studies that differ in the seed of the base have in common, for people to read."""

    name: str
    size: str | None
    target: str | None


def one_study(study: Study) -> StudyFile:
    """The file of a single study."""
    return StudyFile(name=study.study, studies=(study,), crossed=False)


def family_of(spec: dict[str, Any]) -> Family:
    """Name, size and target of a study; the name is that of the file where the study is one of a crossed file."""
    base = spec.get("base") or {}
    size, target, name = base.get("model"), spec.get("target"), str(spec.get("study"))
    for part in (target, f"s{base.get('seed') or 0}", _short(size) if size else None):
        name = name.removesuffix(f"-{part}")
    return Family(name, size, target)


def load_studies(path: str | Path, fetched: bool = True) -> StudyFile:
    """Read a study file, crossed or not. Raises InputError with one sentence: file, line, field and what is wrong.

    `fetched` is whether the public data that it names must be there.
    """
    text = read_study(path, fetched)
    if "cross" not in text.raw:
        return one_study(text.study(text.raw))
    cross = text.checked(Cross, text.raw["cross"], lambda where: ("cross", *where))
    _refuse_said_twice(text, cross)
    _check_near(text, cross)
    bases, seeds, targets = (range(len(values or [None])) for values in (cross.base, cross.seed, cross.target))
    studies = tuple(_combination(text, cross, place) for place in product(bases, seeds, targets))
    names = [study.study for study in studies]
    for name in names:
        if names.count(name) > 1:
            raise text.refusal(("cross", "base"), f"two bases would give studies of the name {name}; rename a folder")
    return StudyFile(name=str(text.raw["study"]), studies=studies, crossed=True)


def _combination(text: StudyText, cross: Cross, place: tuple[int, int, int]) -> Study:
    """One study of the file: base, seed and target by their places in `cross`."""
    of_base, of_seed, of_target = place
    raw, base, parts = {key: value for key, value in text.raw.items() if key != "cross"}, _base(text), []
    if cross.base:
        base["model"] = cross.base[of_base]
        parts.append(_short(cross.base[of_base]))
    if cross.seed:
        base["seed"] = cross.seed[of_seed]
        parts.append(f"s{cross.seed[of_seed]}")
    if base:
        raw["base"] = base
    if cross.target:
        raw["target"] = cross.target[of_target]
        parts.append(cross.target[of_target])
    if isinstance(raw.get("study"), str):
        raw["study"] = "-".join([raw["study"], *parts])
    listed = raw.get("retention")
    kept = list(range(len(listed))) if isinstance(listed, list) else []
    if isinstance(listed, list):
        kept = [i for i in kept if _name(listed[i]) != raw.get("target")]
        raw["retention"] = [_judged(listed[i], raw.get("target")) for i in kept]

    def written(where: Where) -> Where:
        if where in (("base",), ("base", "model")) and cross.base:
            return ("cross", "base", of_base)
        if where[:1] == ("target",) and cross.target:
            return ("cross", "target", of_target)
        if where[:1] == ("retention",) and len(where) > 1 and isinstance(where[1], int):
            return ("retention", kept[where[1]], *where[2:])
        return where

    return text.study(raw, written)


def _refuse_said_twice(text: StudyText, cross: Cross) -> None:
    """What is crossed is said under `cross` only; the dials of lab bases stay under `base`."""
    said = _base(text)
    if cross.target and "target" in text.raw:
        raise text.refusal(("target",), "the targets are under `cross`; take this one out")
    if cross.base and "model" in said:
        raise text.refusal(("base",), "the models are under `cross`; keep only dials here, or take it out")
    if cross.seed and "seed" in said:
        raise text.refusal(("base", "seed"), "the seeds of the base are under `cross`; take this one out")


def _check_near(text: StudyText, cross: Cross) -> None:
    """`near` may list the targets that a benchmark is near to; they must be among the crossed ones."""
    listed = text.raw.get("retention")
    for place, entry in enumerate(listed if isinstance(listed, list) else []):
        near = entry.get("near") if isinstance(entry, dict) else None
        for target in near if isinstance(near, list) else []:
            if target not in (cross.target or ()):
                raise text.refusal(("retention", place, "near"), f"{target!r} is no target of this file")


def _base(text: StudyText) -> dict[str, Any]:
    """What the file itself says of the base, as a mapping."""
    base = text.raw.get("base") or {}
    if not isinstance(base, str | dict):
        raise text.refusal(("base",), "a base is the name of a model or a mapping")
    return {"model": base} if isinstance(base, str) else dict(base)


def _name(entry: Any) -> Any:
    return entry.get("benchmark") if isinstance(entry, dict) else entry


def _judged(entry: Any, target: Any) -> Any:
    """A retention entry as one study has it: near or not to that study's target."""
    if isinstance(entry, dict) and isinstance(entry.get("near"), list):
        return {**entry, "near": target in entry["near"]}
    return entry


def _short(model: str) -> str:
    """A base model as it stands in names: `lab/mini` -> mini, `/models/Big 1B` -> big-1b."""
    return re.sub(r"[^a-z0-9_-]+", "-", Path(model).name.lower()).strip("-")
