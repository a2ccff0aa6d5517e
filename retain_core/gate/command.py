"""`retain gate`: reading what is asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import get_args

from retain_core.analysis.contrasts import DEFAULT_MARGIN
from retain_core.compare.command import asked_metrics, compare
from retain_core.compare.runs import Comparison
from retain_core.errors import InputError
from retain_core.gate.decide import Decision, decide
from retain_core.gate.text import as_json, told
from retain_core.settings import settings
from retain_core.warehouse.query import Format

FORMATS = tuple(form for form in get_args(Format) if form != "csv")


def gate_text(
    base: str, model: str, margin: float | None, metrics: Sequence[str] = (), cluster: str | None = None, form: str = "table"
) -> tuple[str, int]:
    """The decision as text, and the exit code. `margin` is in points; `base` a study file, or what `retain compare` takes.

    Raises InputError, one sentence, when nothing can be decided.
    """
    if form not in FORMATS:
        raise InputError(f"unknown format {form!r}; known: {', '.join(FORMATS)}")
    fraction = None if margin is None else margin / 100
    if base.endswith((".yaml", ".yml")):
        decision = _by_study(base, model, fraction, metrics, cluster)
    else:
        found = compare(base, model, asked_metrics(metrics), cluster)
        if not isinstance(found, Comparison):
            raise InputError(
                f"{base} and {model} are studies; the gate decides about one model: give an arm or a checkpoint of each"
            )
        decision = decide(found, DEFAULT_MARGIN if fraction is None else fraction)
    text = json.dumps(as_json(decision), ensure_ascii=False, indent=1) if form == "json" else told(decision, form)  # type: ignore[arg-type]
    return text, decision.exit_code


def _by_study(path: str, model: str, margin: float | None, metrics: Sequence[str], cluster: str | None) -> Decision:
    from retain_core.gate.study import gate_model
    from retain_core.study_file import load_study

    if metrics or cluster is not None:
        raise InputError("--metric and --cluster are for answers that exist; a study says both in its file")
    return gate_model(load_study(path), model, settings(), margin)
