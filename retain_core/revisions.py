"""Revisions of a study: what was declared, and when. Owns `artifacts/studies/<study>.json`.

A study file that says something new is a new revision; going back to an earlier text makes that
revision the current one again. The time is when the revision was first declared, before training.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from retain_core.errors import InputError, RetainError
from retain_core.methods import interpolated
from retain_core.own.study import Own
from retain_core.redact import secret_in
from retain_core.stats.sequential import MOST_LOOKS
from retain_core.store import Store
from retain_core.study import Study

T = TypeVar("T")


@dataclass(frozen=True)
class Revision:
    """One declared text of a study."""

    number: int
    spec: dict[str, Any]
    spec_hash: str
    declared_at: str
    current: bool
    looks: tuple[int, ...]
    """Seeds at every look at the primary contrast so far; more than one after `retain extend`."""


def revisions_of(store: Store, study: str) -> list[Revision]:
    """All revisions of a study, oldest first; empty when it was never run."""
    path = store.note("studies", study)
    if not path.is_file():
        return []
    found = read_record(path, TypeAdapter(list[Revision]))
    if sum(revision.current for revision in found) != 1:
        raise RetainError(f"{path} is damaged: exactly one revision is the current one")
    return found


def read_record(path: Path, shape: TypeAdapter[T]) -> T:
    """A JSON file that is kept beside the artifacts. Raises RetainError when it is not what retain wrote."""
    try:
        return shape.validate_json(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        why = "; ".join(str(error).splitlines()[:2])
        raise RetainError(f"{path} is damaged, restore it from a copy (it says what was declared or imported): {why}") from None


def declare(store: Store, study: Study) -> list[Revision]:
    """Make the study's text its current revision, a new one if it was never declared.

    A text that adds seeds to one whose results were seen is another look at the same contrast, whatever else it
    changes beside the contrast.
    Raises InputError when that would be the fourth, and when the text holds a secret, which a study that is a parameter, or
    one with escape sequences in its file, may still do.
    """
    known = revisions_of(store, study.study)
    spec_hash, spec = study.spec_hash(), study.model_dump(mode="json")
    if name := secret_in(json.dumps(spec, ensure_ascii=False)):
        raise InputError(
            f"{study.study}: holds the value of the environment variable {name}; studies are stored and shown, so let your "
            "code read the variable instead"
        )
    if any(r.spec_hash == spec_hash and r.current and r.spec == spec for r in known):
        return known
    if all(r.spec_hash != spec_hash for r in known):
        now = datetime.now(UTC).isoformat(timespec="seconds")
        looks = (*_earlier_looks(store, known, spec), len(study.seeds))
        if len(looks) > MOST_LOOKS:
            raise InputError(
                f"{study.study}: its contrast was looked at {MOST_LOOKS} times already; looking again after adding seeds would "
                "find differences by chance. Declare a new study under another name"
            )
        known = [*known, Revision(len(known) + 1, spec, spec_hash, now, True, looks)]
    # Equal hashes can differ in where the study's own files lie, which is where they are looked for from now on.
    same = [r.spec_hash == spec_hash for r in known]
    marked = [replace(r, current=now, spec=spec if now else r.spec) for r, now in zip(known, same, strict=True)]
    text = json.dumps([asdict(r) for r in marked], indent=1)
    store.write_note("studies", study.study, text)
    return marked


def more_seeds(study: Study, count: int) -> Study:
    """The same study with so many seeds more, numbered on from the highest."""
    first = max(study.seeds) + 1
    return Study.model_validate({**study.model_dump(), "seeds": (*study.seeds, *range(first, first + count))})


def _earlier_looks(store: Store, known: list[Revision], spec: dict[str, Any]) -> tuple[int, ...]:
    """The looks of the newest revision that asks the same with fewer seeds, and whose results were seen."""
    if not spec["primary"]:
        return ()
    seen = {a.inputs["spec_hash"] for key in store.keys("summary") if (a := store.find("summary", key))}
    for revision in reversed(known):
        fewer = set(revision.spec["seeds"]) < set(spec["seeds"])
        if fewer and revision.spec_hash in seen and question(revision.spec) == question(spec):
            return revision.looks
    return ()


def question(spec: dict[str, Any]) -> dict[str, Any]:
    """What the declared contrast depends on, seeds apart: a text that changes any of it declares another contrast."""
    asked = {key: spec[key] for key in ("base", "target", "retention", "learning_rates", "budget", "primary")}
    compared = set(spec["primary"]["contrast"] if spec["primary"] else ())
    alphas = spec.get("interpolate", [])
    blended = {interpolated(m["label"]): m["label"] for m in spec["methods"]} if alphas else {}
    methods = {blended.get(label, label) for label in compared}
    asked["methods"] = [m for m in spec["methods"] if m["label"] in methods]
    asked["then"] = spec.get("then", [])  # texts declared before there were sequences
    asked["own"] = Own.model_validate(spec.get("own") or {}).content()
    return {**asked, "interpolate": alphas if compared & set(blended) else []}


def studies(store: Store) -> list[str]:
    """Names of all studies that were ever declared in this home."""
    return store.notes("studies")
