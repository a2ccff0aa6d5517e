"""A model that retain did not train, evaluated as the study's own arms are, and judged against the study's base.

The model is the one arm of a study of its own, `<study>-gate`: base, benchmarks and their settings are those of the study, so
whatever of the base is in the store is not evaluated again, and neither is a model whose files were seen before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from retain_core import run
from retain_core.analysis.contrasts import DEFAULT_MARGIN
from retain_core.compare.command import compare_addresses
from retain_core.compare.runs import Comparison
from retain_core.errors import InputError
from retain_core.gate.decide import Decision, decide
from retain_core.gate.record import CANDIDATE, decision_row, find_decision, is_gate, keep_decision, read_decision
from retain_core.gate.text import as_json
from retain_core.methods import Method
from retain_core.plan import plan_study
from retain_core.remote import open_store
from retain_core.revisions import revisions_of
from retain_core.settings import Settings
from retain_core.store import Store, lock_home
from retain_core.study import Study
from retain_core.warehouse.query import open_warehouse
from retain_core.warehouse.rows import insert


def gate_study(study: Study, model: str) -> Study:
    """The study in which a model is the one arm: nothing of it is trained, and it declares no contrast."""
    place = str(Path(model).absolute()) if Path(model).is_dir() else model
    external = Method(label=CANDIDATE, algorithm="external", model=place)
    changed = {
        "study": f"{study.study}-gate", "methods": (external,), "controls": (), "then": (), "interpolate": (), "primary": None,
        "own": study.own.model_copy(update={"trainers": {}}),
    }  # fmt: skip
    return study.model_copy(update=changed)


def declared_margin(study: Study, margin: float | None) -> float:
    """The margin that a study declares; where it declares none, the one given, or the default.

    Raises InputError for another one than is declared: a margin is chosen before the answers are seen.
    """
    if study.primary is None:
        return DEFAULT_MARGIN if margin is None else margin
    if margin is not None and margin != study.primary.margin:
        raise InputError(
            f"{study.study} declares a margin of {100 * study.primary.margin:g} points (primary.margin); "
            "leave --margin out, or declare another in the study file"
        )
    return study.primary.margin


def gate_model(study: Study, model: str, config: Settings, margin: float | None = None, name: str | None = None) -> Decision:
    """Evaluate a model as far as it is not yet, decide, and keep the decision (`trend`).

    `model` is a folder, or an id of the hub that was fetched; `name` is what `trend` calls it.

    Raises InputError for a model that is not there or cannot be compared with the base, ArmsFailedError when it could not be
    evaluated.
    """
    wanted = declared_margin(study, margin)
    gate = gate_study(study, model)
    _refuse_taken(gate, open_store(config, read_only=True))
    # Decided while the study is held: another gate on it would put another model in its place.
    with run.open_study(gate, config) as running:
        if running.plan.done:
            run.publish(running, errors={})
        else:
            run.raise_failed(run.run_all(running), 1)
        decision = decide(_compared(gate, config), wanted)
        _keep(running, decision, name or model)
        return decision


def decided(study: Study, model: str, config: Settings, margin: float | None = None) -> dict[str, Any] | None:
    """What was decided about a model whose files were seen before; None for a new one. Nothing is evaluated or written.

    Raises InputError for a model that is not there.
    """
    store = open_store(config, read_only=True)
    found = find_decision(store, plan_study(gate_study(study, model), store), declared_margin(study, margin))
    return read_decision(found) if found else None


def _keep(running: run.Running, decision: Decision, name: str) -> None:
    document = {"name": name, **as_json(decision)}
    with lock_home(running.config.home):
        kept, new = keep_decision(running.store, running.plan, decision.margin, document)
        if new:
            with duckdb.connect(str(running.config.warehouse)) as con:
                insert(con, "trend", [decision_row(kept)])


def _compared(gate: Study, config: Settings) -> Comparison:
    with open_warehouse(config.warehouse) as con:
        found = compare_addresses(con, f"{gate.study}/base", f"{gate.study}/{CANDIDATE}@0")
    assert isinstance(found, Comparison)
    return found


def _refuse_taken(gate: Study, store: Store) -> None:
    """Raises InputError where a study of the user's own has the name."""
    for revision in revisions_of(store, gate.study):
        if not is_gate(revision.spec):
            raise InputError(f"there is a study {gate.study} already, which is the name that the gate would use; rename one")
