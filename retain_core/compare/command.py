"""`retain compare`: reading both sides, and the comparison as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import duckdb

from retain_core.compare.addresses import Address, refuse_mixed, resolve
from retain_core.compare.origin import checkpoint_origin, run_origin
from retain_core.compare.runs import Comparison, compare_runs
from retain_core.compare.settings import differing_arms
from retain_core.compare.studies import StudiesCompared, compare_studies
from retain_core.compare.studies_text import studies_text
from retain_core.compare.text import runs_text
from retain_core.errors import InputError
from retain_core.imported.samples import read_run
from retain_core.settings import settings
from retain_core.warehouse.query import Format, open_warehouse


def compare_text(
    a: str,
    b: str,
    metrics: Sequence[str] = (),
    cluster: str | None = None,
    flips: int = 0,
    form: str = "table",
    page: Path | None = None,
) -> tuple[str, list[str]]:
    """The comparison as text, and lines that are no part of it: the notes of csv and json, and where the page is.

    `a` and `b` are folders or files of lm-eval, or both checkpoints or arms of the home, or both studies of it; `metrics`
    are `benchmark=key`. Raises InputError, one sentence, when they cannot be compared.
    """
    if form not in get_args(Format):
        raise InputError(f"unknown format {form!r}; known: {', '.join(get_args(Format))}")
    if flips and form in ("csv", "json"):
        raise InputError("--flips goes with --format table or markdown")
    if page and (page.suffix != ".html" or page.is_dir()):
        raise InputError(f"--page {page}: name a file that ends in .html")
    found = compare(a, b, asked_metrics(metrics), cluster)
    if isinstance(found, StudiesCompared):
        if flips:
            raise InputError("--flips is for two models; two studies are hundreds of them: name a checkpoint or an arm of each")
        text = studies_text(found, form)  # type: ignore[arg-type]
    else:
        text = runs_text(found, flips, form)  # type: ignore[arg-type]
    notes = [f"note: {note}" for note in found.notes] if form in ("csv", "json") else []
    if page:
        from retain_core.compare.page import write_page

        write_page(found, page, _typed(a, b, metrics, cluster))
        notes.append(f"the page is {page}")
    return text, notes


def _typed(a: str, b: str, metrics: Sequence[str], cluster: str | None) -> list[str]:
    """The command that makes this comparison again."""
    options = [part for metric in metrics for part in ("--metric", metric)]
    return ["retain", "compare", a, b, *options, *(["--cluster", cluster] if cluster is not None else [])]


def compare(a: str, b: str, metrics: dict[str, str], cluster: str | None) -> Comparison | StudiesCompared:
    """Compare what two arguments name; a path that exists comes before an address."""
    here = [Path(x).exists() or x.endswith((".json", ".jsonl")) for x in (a, b)]
    if all(here):
        left, right = read_run(Path(a), cluster), read_run(Path(b), cluster)
        if cluster is not None and not any(i.cluster is not None for x in left.benchmarks for i in x.items):
            raise InputError(f"--cluster {cluster}: no document of {a} has that field")
        return replace(compare_runs(left, right, metrics), origin=run_origin(left, right))
    if any(here):
        raise InputError(
            f"{b if here[0] else a} does not exist; compare two files or folders, or two checkpoints, arms or studies "
            "of the home"
        )
    if cluster is not None:
        raise InputError("--cluster is for sample files; the home knows the clusters of its benchmarks")
    if not settings().warehouse.is_file():
        raise InputError(f"{a} does not exist, and this home has no warehouse with anything to compare")
    with open_warehouse(settings().warehouse) as con:
        return compare_addresses(con, a, b, metrics)


def compare_addresses(
    con: duckdb.DuckDBPyConnection, a: str, b: str, metrics: dict[str, str] | None = None
) -> Comparison | StudiesCompared:
    """Compare two checkpoints or arms, or two studies, of a warehouse."""
    from retain_core.compare.checkpoints import read_checkpoints

    sides: tuple[Address, Address] = (resolve(con, a), resolve(con, b))
    refuse_mixed(*sides)
    names = sides[0].name, sides[1].name
    if sides[0].kind == "study":
        if metrics:
            raise InputError("--metric is for two models; a study declares the metric of each of its benchmarks")
        return compare_studies(con, *names)
    left, right, declared, roles = read_checkpoints(con, *names)
    found = compare_runs(left, right, declared | (metrics or {}), roles)
    notes = (*(side.note for side in sides if side.note), *found.notes)
    return replace(found, notes=notes, settings=tuple(differing_arms(con, *names)), origin=checkpoint_origin(con, *names))


def asked_metrics(metrics: Sequence[str]) -> dict[str, str]:
    """`benchmark=key` as a mapping. Raises InputError."""
    asked = {}
    for text in metrics:
        name, found, key = text.partition("=")
        if not (name and found and key):
            raise InputError(f"--metric {text}: write benchmark=metric, such as gsm8k=exact_match,flexible-extract")
        asked[name] = key
    return asked
