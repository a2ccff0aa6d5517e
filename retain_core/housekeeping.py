"""What of a home's disk nothing needs any more: finding it, and removing it when told.

A study refers to what its declared texts, the current one and those before, would look up in the store. Weights are the
exception: they can be trained again bit for bit, so only what the study's current `keep` keeps is referred to. Records of
what was said, foretold or decided (`summary`, `prediction`, `decision`) are never removed.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from retain_core.errors import RetainError
from retain_core.gate.record import is_gate
from retain_core.imported.store import imported_studies, read_imported
from retain_core.lease import living, stillness
from retain_core.plan import plan_study
from retain_core.references import KINDS, Reference, references_of
from retain_core.revisions import revisions_of, studies
from retain_core.store import Store, lock_home
from retain_core.study import Study


@dataclass(frozen=True)
class Leftover:
    """Something that nothing needs."""

    what: str
    """Kind of the artifact, or what else it is."""
    why: str
    path: Path
    bytes: int
    age: float
    """Seconds since it was written."""


@dataclass(frozen=True)
class Leftovers:
    """Everything in a home that nothing needs."""

    found: list[Leftover]
    unread: list[str]
    """Declared texts that cannot be read, one sentence each: no artifact is listed then, it may be theirs."""


def leftovers(store: Store) -> Leftovers:
    """Find what nothing needs. Nothing is changed, no artifact is opened."""
    needed, unread = references(store)
    leased = living(store.root / ".leases")
    found = [] if unread else list(_artifacts(store, needed, leased))  # else they may be what the unread texts refer to
    found += _resume_states(store, needed, leased)
    for path in _below(store.root / ".quarantine"):
        found.append(_leftover("damaged artifact", "was set aside and made again", path))
    if not leased:  # a draft does not say whose it is
        for path in _below(store.root / ".drafts"):
            found.append(_leftover("draft", "its writer ended before it was published", path))
    for path in (store.root / ".leases").glob("*.json"):
        if path.stem not in leased:
            found.append(_leftover("lease", "its holder is gone", path))
    return Leftovers(sorted(found, key=lambda one: (one.what, one.why, str(one.path))), unread)


def remove_leftovers(store: Store, home: Path) -> Leftovers:
    """Remove what nothing needs. Returns what was removed. Waits while another process writes to the home."""
    with lock_home(home):
        known = leftovers(store)
        for one in known.found:
            if one.what not in ("draft", "lease"):
                _remove(one.path, store.root / ".drafts")
        with stillness(store.root / ".leases") as still:  # which drops the leases
            for one in known.found:
                if one.what == "draft" and still:
                    _remove(one.path, store.root / ".drafts")
    return known


def _remove(path: Path, drafts: Path) -> None:
    if path.is_dir():
        # Out of the way in one step first: a removal that is stopped leaves no half artifact.
        aside = drafts / f"removed-{path.parent.name}-{path.name}"
        path.replace(aside)
        shutil.rmtree(aside)
    else:
        path.unlink()


def references(store: Store) -> tuple[set[Reference], list[str]]:
    """Every artifact that a declared text or an imported model refers to, and the texts that cannot be read."""
    needed: set[Reference] = set()
    unread = []
    for name in studies(store):
        try:
            known = revisions_of(store, name)
        except RetainError as error:
            unread.append(str(error))
            continue
        keep = next(r for r in known if r.current).spec["keep"]
        for revision in known:
            try:
                study = Study.model_validate({**revision.spec, "keep": keep})
                # Planned against an empty store: only the keys are wanted, and no byte is read.
                needed |= references_of(plan_study(study, Store(store.root / ".nothing", read_only=True))).keys()
            except (RetainError, ValueError) as error:
                if is_gate(revision.spec):
                    continue  # the checkpoint that was judged is gone, and with it the use of its answers
                unread.append(f"{name}, revision {revision.number}: {str(error).splitlines()[0]}")
    for name in imported_studies(store):
        models = found.models if (found := read_imported(store, name)) else []
        needed |= {("evaluation", key) for model in models for key in model.evaluations.values()}
    return needed, unread


def _artifacts(store: Store, needed: set[Reference], leased: set[str]) -> Iterator[Leftover]:
    trained = {key for kind, key in needed if kind == "arm"}
    for kind in KINDS:
        for key in store.keys(kind):
            if (kind, key) not in needed and f"{kind}-{key}" not in leased:
                why = "no study refers to it"
                if kind == "weights" and _arm_of(store.path(kind, key)) in trained:
                    why = "`keep` does not keep it"
                yield _leftover(kind, why, store.path(kind, key))


def _arm_of(weights: Path) -> str | None:
    """The arm whose weights lie there, as its manifest says."""
    try:
        arm = json.loads((weights / "manifest.json").read_text(encoding="utf-8"))["inputs"].get("arm")
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return arm if isinstance(arm, str) else None


def _resume_states(store: Store, needed: set[Reference], leased: set[str]) -> Iterator[Leftover]:
    for path in _below(store.root / ".resume"):
        kind, _, key = path.name.partition("-")
        if path.name in leased:
            continue
        if store.path(kind, key).is_dir():
            yield _leftover("resume state", f"the {kind} is finished", path)
        elif (kind, key) not in needed:
            yield _leftover("resume state", "no study refers to it", path)


def _below(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _leftover(what: str, why: str, path: Path) -> Leftover:
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return Leftover(what, why, path, sum(p.stat().st_size for p in files), max(0.0, time.time() - path.stat().st_mtime))
