"""Predict, then check: what one size says of the next, frozen before any arm of the next size is trained.

When a crossed study file has run at one size, every contrast between methods at the file's declared point, averaged
over base seeds, is frozen as the prediction for the next size. It is never written again; the check is computed anew
whenever the warehouse is loaded.

Owns the `prediction` artifact:

    pairs.json   a row per pair of methods (and learning rate, at the last checkpoint): a, b, learning_rate, and
                 diff, sign, rank, which are null where a base seed could not be read
    inputs       what is predicted from what: the texts and arms of the smaller size, the bases of the larger
    meta         frozen_before: no arm had been trained from the larger bases; withheld: studies whose verdict was, and why
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from retain_core.analysis.contrasts import DEFAULT_GAIN, LAST, at_gain
from retain_core.canonical import canonical_json, digest
from retain_core.cross import StudyFile
from retain_core.plan import StudyPlan, plan_study
from retain_core.stats.agreement import agreement
from retain_core.store import Artifact, Store, key_of
from retain_core.study import Study
from retain_core.warehouse.rows import insert

PAIRS = "pairs.json"
PREDICTION_VERSION = 1
"""Raised when equal results of a size would predict otherwise."""
_CONTRASTS = """
SELECT least(a, b), greatest(a, b),
       CASE WHEN "at" = 'last' THEN coalesce(learning_rate_a, learning_rate_b) END AS rate,
       CASE WHEN count(diff) = len($studies) THEN round(avg(CASE WHEN a < b THEN diff ELSE -diff END), 12) END,
       list(DISTINCT study || ': ' || reason ORDER BY study || ': ' || reason) FILTER (reason IS NOT NULL)
FROM contrasts WHERE list_contains($studies, study) AND "at" = $at AND NOT ("primary" AND "at" = 'last')
  AND list_contains($methods, a) AND list_contains($methods, b)
GROUP BY ALL ORDER BY ALL
"""
"""At the last checkpoint pairs meet at every learning rate, so the declared contrast stands there twice. Blends of a method
with the base are no methods of their own."""
_UNFINISHED = """
-- An arm that is missing has a row of its own, a study that was never loaded has none.
SELECT s.study FROM (SELECT unnest($studies) AS study, unnest($bases) AS base) s
LEFT JOIN arms a ON a.study = s.study
GROUP BY s.study, s.base HAVING count(a.arm) = 0 OR bool_or(a.status <> 'done')
    OR NOT bool_or(a.role = 'base' AND a.artifact = s.base) ORDER BY s.study
"""


class Pairs(NamedTuple):
    """Contrasts of some studies by (a, b, learning rate), a before b in the alphabet; None where one was not read."""

    diffs: dict[tuple[str, str, float | None], float | None]
    withheld: list[str]


def freeze_predictions(store: Store, warehouse: Path, file: StudyFile) -> list[Artifact]:
    """Freeze every prediction of a crossed file whose smaller size is done and that was not frozen before."""
    found = []
    plans = {study.study: plan_study(study, store) for study in file.studies} if file.steps_up() else {}
    for small, large, target in file.steps_up():
        smaller, larger = ([plans[s.study] for s in file.of(size, target)] for size in (small, large))
        inputs = _inputs(file.name, smaller, larger)
        if all(plan.done for plan in smaller) and store.find("prediction", key_of(inputs)) is None:
            seen = _trained(store, inputs) or any(map(_begun, larger))
            found += _freeze(store, warehouse, inputs, before=not seen)
    if found:
        with duckdb.connect(str(warehouse)) as con:
            put_predictions(con, predictions_of(store))
            store_checks(con)
    return found


def predictions_of(store: Store) -> list[Artifact]:
    """All predictions of a home, oldest first."""
    found = [a for key in store.keys("prediction") if (a := store.find("prediction", key))]
    return sorted(found, key=lambda a: (a.created_at, a.key))


def put_predictions(con: duckdb.DuckDBPyConnection, predictions: Sequence[Artifact]) -> None:
    """Make these the predictions that the warehouse has."""
    con.execute("DELETE FROM stored_predictions")
    rows = [
        [a.key, canonical_json(a.inputs), canonical_json(a.meta), a.file(PAIRS).read_text(encoding="utf-8"), a.created_at]
        for a in predictions
    ]
    insert(con, "stored_predictions", rows)


def store_checks(con: duckdb.DuckDBPyConnection) -> None:
    """What became of every prediction, from the contrasts that are stored of the larger size now."""
    for table in ("predictions", "prediction_pairs"):
        con.execute(f"DELETE FROM {table}")
    frozen = con.execute("FROM stored_predictions ORDER BY frozen_at, prediction").fetchall()
    for key, inputs, meta, pairs, frozen_at in frozen:
        _check(con, key, json.loads(inputs), json.loads(meta), json.loads(pairs), frozen_at)


def _inputs(name: str, smaller: list[StudyPlan], larger: list[StudyPlan]) -> dict[str, Any]:
    study, above = smaller[0].study, larger[0].study
    return {
        "family": name, "target": study.target, "at": _point(study), "size_from": study.base.model,
        "size_to": above.base.model,
        "methods": [method.label for method in study.methods],
        "studies_from": {p.study.study: p.study.spec_hash() for p in smaller},
        "arms_from": digest([arm.spec.key for plan in smaller for arm in plan.arms]),
        "bases_from": {p.study.study: p.base.fingerprint for p in smaller},
        "bases_to": {p.study.study: p.base.fingerprint for p in larger}, "prediction_version": PREDICTION_VERSION,
    }  # fmt: skip


def _point(study: Study) -> str:
    """Where the study compares its methods: `last` or `gain=0.05`, as in `contrasts`."""
    if study.primary and study.primary.at == LAST:
        return LAST
    return at_gain((study.primary.at_gain if study.primary else None) or DEFAULT_GAIN)


def _freeze(store: Store, warehouse: Path, inputs: dict[str, Any], before: bool) -> list[Artifact]:
    """The prediction as an artifact; none where the warehouse has not loaded all that is predicted from."""
    key = key_of(inputs)
    with duckdb.connect(str(warehouse), read_only=True) as con:
        if _unfinished(con, inputs["bases_from"]):
            return []
        predicted = _pairs(con, list(inputs["studies_from"]), inputs)
    order = sorted(-abs(diff) for diff in predicted.diffs.values() if diff is not None)
    rows = [
        {
            "a": a, "b": b, "learning_rate": rate, "diff": diff,
            "sign": None if diff is None else int(math.copysign(1, diff)) if diff else 0,
            "rank": None if diff is None else order.index(-abs(diff)) + 1,
        }
        for (a, b, rate), diff in predicted.diffs.items()
    ]  # fmt: skip
    with store.create("prediction", key, inputs) as draft:
        draft.meta.update(frozen_before=before, withheld=predicted.withheld)
        (draft.path / PAIRS).write_text(canonical_json(rows), encoding="utf-8")
    return [store.get("prediction", key)]


def _trained(store: Store, inputs: dict[str, Any]) -> bool:
    """Whether any arm of this home, of whatever study, was trained on the target from one of the larger bases."""
    bases = set(inputs["bases_to"].values())
    arms = (found.inputs for key in store.keys("arm") if (found := store.find("arm", key)))
    return any(arm["base"] in bases and inputs["target"] in (arm["target"], *arm.get("then", ())) for arm in arms)


def _begun(plan: StudyPlan) -> bool:
    """Whether anything of an arm of the study can have been seen: an arm that was stopped leaves evaluations behind."""
    return any(arm.record or any(found for pairs in arm.evaluations.values() for _, found in pairs) for arm in plan.arms)


def _unfinished(con: duckdb.DuckDBPyConnection, bases: dict[str, str]) -> list[str]:
    """Of these studies (with their base's fingerprint) those that the warehouse does not have whole."""
    given = {"studies": list(bases), "bases": list(bases.values())}
    return [study for (study,) in con.execute(_UNFINISHED, given).fetchall()]


def _pairs(con: duckdb.DuckDBPyConnection, studies: list[str], inputs: dict[str, Any]) -> Pairs:
    rows = con.execute(_CONTRASTS, {"studies": studies, "at": inputs["at"], "methods": inputs["methods"]}).fetchall()
    reasons = dict.fromkeys(reason for row in rows for reason in row[4] or ())
    return Pairs({(a, b, rate): diff for a, b, rate, diff, _ in rows}, list(reasons))


def _check(
    con: duckdb.DuckDBPyConnection,
    key: str,
    inputs: dict[str, Any],
    meta: dict[str, Any],
    pairs: list[dict[str, Any]],
    when: Any,
) -> None:
    place = [key, inputs["family"], inputs["target"], inputs["at"], inputs["size_from"], inputs["size_to"]]
    bases = inputs["bases_to"]
    waiting = _unfinished(con, bases)
    found = Pairs({}, []) if waiting else _pairs(con, list(bases), inputs)
    predicted = {(p["a"], p["b"], p["learning_rate"]): p["diff"] for p in pairs}
    both = [(k, x, y) for k, x in predicted.items() if x is not None and (y := found.diffs.get(k)) is not None]
    said = agreement([(a, b) for (a, b, _), _, _ in both], [x for _, x, _ in both], [y for _, _, y in both])
    known = sum(diff is not None for diff in predicted.values())
    if waiting:
        rule = f"not checked yet: {', '.join(waiting)} not done"
        figures: list[Any] = [known, None, None, None, None]
    else:
        of = f"{len(both)} of {len(predicted)} pairs read at both sizes"
        means = f"means over {len(inputs['studies_from'])} and {len(bases)} bases"
        rule = f"{said.rule}; {of}; {means}"
        figures = [said.pairs, said.signs_held, said.tau, said.low, said.high]
    if withheld := [*meta["withheld"], *found.withheld]:
        rule = f"withheld by {len(withheld)} studies, such as {withheld[0]}; {rule}"
    insert(con, "predictions", [[*place, *figures, str(when), meta["frozen_before"], rule]])
    rows = [
        [
            *place, p["a"], p["b"], p["learning_rate"], p["diff"], p["rank"], diff := found.diffs.get(k),
            None if diff is None or p["diff"] is None else p["diff"] * diff > 0,
        ]
        for k, p in zip(predicted, pairs, strict=True)
    ]  # fmt: skip
    insert(con, "prediction_pairs", rows)
