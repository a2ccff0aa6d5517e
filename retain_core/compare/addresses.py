"""What A and B name in a home: a checkpoint, an arm (which stands for its last checkpoint), or a study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import duckdb

from retain_core.errors import InputError
from retain_core.imported.samples import count, few


@dataclass(frozen=True)
class Address:
    """What one side is."""

    kind: Literal["checkpoint", "study"]
    name: str
    note: str | None = None
    """Which checkpoint an arm stands for."""


def resolve(con: duckdb.DuckDBPyConnection, told: str) -> Address:
    """Find what an address names. Raises InputError for one that the home does not have, or that has no answers."""
    if con.execute("FROM evaluations WHERE checkpoint = $c LIMIT 1", {"c": told}).fetchone():
        return Address("checkpoint", told)
    if con.execute("FROM studies WHERE study = $s LIMIT 1", {"s": told}).fetchone():
        return Address("study", told)
    arm = con.execute("SELECT status, error FROM arms WHERE arm = $a", {"a": told}).fetchone()
    if arm:
        return _last(con, told, *arm)
    studies, checkpoints = (
        [x for (x,) in con.execute(f"SELECT DISTINCT {what} FROM {relation} ORDER BY ALL").fetchall()]
        for what, relation in (("study", "studies"), ("checkpoint", "evaluations"))
    )
    has = f", which has the studies {few(studies)} and the checkpoints {few(checkpoints)}" if studies else ""
    raise InputError(f"{told} is neither a file or folder nor a study, arm or checkpoint of this home{has}")


def _last(con: duckdb.DuckDBPyConnection, arm: str, status: str, error: str | None) -> Address:
    steps = con.execute(
        """SELECT checkpoint FROM checkpoints c WHERE arm = $arm AND alpha IS NULL
        AND EXISTS (FROM named_evaluations e WHERE e.checkpoint = c.checkpoint) ORDER BY step""",
        {"arm": arm},
    ).fetchall()
    if not steps:
        raise InputError(f"{arm} has no evaluated checkpoint: it is {status}" + (f" ({error})" if error else ""))
    last = steps[-1][0]
    every = count(len(steps), "checkpoint", "checkpoints")
    return Address("checkpoint", last, f"{last} is the last of {every} of the arm {arm}")


def refuse_mixed(a: Address, b: Address) -> None:
    """Raises InputError for a study beside a model."""
    if a.kind != b.kind:
        study, other = (a, b) if a.kind == "study" else (b, a)
        raise InputError(
            f"{study.name} is a study and {other.name} is one model: compare two studies, or two arms or checkpoints "
            f"such as {study.name}/base"
        )
