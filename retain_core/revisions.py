"""Revisions of a study: what was declared, and when. Owns `artifacts/studies/<study>.json`.

A study file that says something new is a new revision; going back to an earlier text makes that
revision the current one again. The time is when the revision was first declared, before training.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from retain_core.store import Store, write_atomically
from retain_core.study import Study


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
    path = store.root / "studies" / f"{study}.json"
    if not path.is_file():
        return []
    return [Revision(**{**entry, "looks": tuple(entry["looks"])}) for entry in json.loads(path.read_text(encoding="utf-8"))]


def declare(store: Store, study: Study, earlier_looks: tuple[int, ...] = ()) -> list[Revision]:
    """Make the study's text its current revision, a new one if it was never declared.

    `earlier_looks` are the seeds at the looks that this text extends.
    """
    known = revisions_of(store, study.study)
    spec_hash = study.spec_hash()
    if any(r.spec_hash == spec_hash and r.current for r in known):
        return known
    if all(r.spec_hash != spec_hash for r in known):
        now = datetime.now(UTC).isoformat(timespec="seconds")
        looks = (*earlier_looks, len(study.seeds))
        known = [*known, Revision(len(known) + 1, study.model_dump(mode="json"), spec_hash, now, True, looks)]
    marked = [replace(r, current=r.spec_hash == spec_hash) for r in known]
    text = json.dumps([asdict(r) for r in marked], indent=1)
    write_atomically(store.root / "studies" / f"{study.study}.json", text)
    return marked


def studies(store: Store) -> list[str]:
    """Names of all studies that were ever declared in this home."""
    folder = store.root / "studies"
    return sorted(p.stem for p in folder.glob("*.json")) if folder.is_dir() else []
