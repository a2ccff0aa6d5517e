"""Filling a new warehouse with every study that the home knows: the file is an index and may be deleted."""

from __future__ import annotations

from pathlib import Path

from retain_core.errors import InputError
from retain_core.gate.record import decision_row, decisions_of
from retain_core.store import Store
from retain_core.warehouse.contents import Contents, contents_of
from retain_core.warehouse.load import is_current, load_contents
from retain_core.warehouse.predictions import predictions_of
from retain_core.warehouse.trend import summaries_of


def load_missing(store: Store, warehouse: Path, but: str) -> None:
    """Load all studies but one into a warehouse that is not there or of another version; otherwise do nothing."""
    if is_current(warehouse):
        return
    for contents in all_contents(store, but):
        load_contents(warehouse, contents)


def all_contents(store: Store, but: str) -> list[Contents]:
    """What every other study of the home puts into the warehouse; one whose text no longer holds is left out."""
    from pydantic import ValidationError

    from retain_core.imported.store import imported_contents, imported_studies, read_imported
    from retain_core.plan import plan_study
    from retain_core.revisions import revisions_of, studies
    from retain_core.study import Study

    found, foretold = [], predictions_of(store)
    for name in studies(store):
        if name == but:
            continue
        revisions = revisions_of(store, name)
        current = next(r for r in revisions if r.current)
        try:
            plan = plan_study(Study.model_validate(current.spec), store)
        except (InputError, ValidationError):
            # The checkpoint that a gate judged last may be gone; what was decided stays.
            if decided := decisions_of(store, name):
                found.append(Contents(name, {"trend": [decision_row(one) for one in decided]}, []))
            continue
        found.append(contents_of(plan, revisions, {}, summaries_of(store, name), foretold))
    imported = [read_imported(store, name) for name in imported_studies(store) if name != but]
    return [*found, *(imported_contents(store, study) for study in imported if study)]
