"""From raw rows of the hub to our training rows and held-out items. Nothing is read or written here.

Every row is accounted for: it is trained on, held out, not needed, or left out for a reason that is counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from retain_core.canonical import digest
from retain_core.errors import InputError
from retain_core.own.files import Row
from retain_core.public.catalogue import PUBLIC, PublicData

CONVERSION_VERSION = 1
"""Raised when equal raw rows would give others of ours."""
MOSTLY = 0.9
"""Where all the rest is held out and no size is said, it is at least this share of the published items."""
TWICE = "it says what another row says"


class PublicSizes(BaseModel):
    """How many rows of a public data set a study takes, where not as many as the published one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: int | None = Field(None, ge=1, description="training prompts; default: the published number")
    items: int | None = Field(None, ge=1, description="held-out items; default: the published number, or all the rest")


class Converted(NamedTuple):
    """A public data set as a study uses it."""

    train: list[Row]
    items: list[Row]
    counts: dict[str, Any]
    """rows, left_out (reason -> rows), train, items, unused, and the published train and items."""


def convert(name: str, raw: Mapping[str, Sequence[Row]], sizes: PublicSizes | None = None) -> Converted:
    """Convert the raw rows (split -> rows) of a public data set and split them by hash.

    Rows that are alike (`cluster`) stand together, so at most one group of them lies on both sides. Items come from the
    front and training rows from the back, so another size of one does not move the other. Raises InputError with one
    sentence when a split or a column is missing, or when there are too few rows.
    """
    data, asked = PUBLIC[name], sizes or PublicSizes()
    rows, left_out = _usable(data, _rows_of(data, raw))
    total = sum(left_out.values()) + len(rows)
    train = asked.train or data.train
    open_end = data.rest and asked.items is None
    as_published = math.ceil(MOSTLY * data.items) if data.train and asked.train is None else 1
    least = train + (as_published if open_end else asked.items or data.items)
    if len(rows) < least:
        raise InputError(
            f"{name}: {data.hub} gives {len(rows):,} usable rows of {total:,}, and {least:,} are needed{_why(left_out)}; "
            f"say fewer under `data: {{sizes: {{{name}: …}}}}`"
        )
    items = len(rows) - train if open_end else asked.items or data.items
    counts = {
        "rows": total, "left_out": dict(left_out.most_common()), "train": train, "items": items,
        "unused": len(rows) - train - items, "published": {"train": data.train, "items": data.items},
    }  # fmt: skip
    return Converted(rows[len(rows) - train :][::-1], rows[:items], counts)


def _rows_of(data: PublicData, raw: Mapping[str, Sequence[Row]]) -> Sequence[Row]:
    if data.split not in raw:
        known = ", ".join(raw) or "none"
        raise InputError(f"{data.name}: {data.hub} has no split {data.split!r} any more (it has {known})")
    rows = raw[data.split]
    if not rows:
        raise InputError(f"{data.name}: the split {data.split!r} of {data.hub} has no rows")
    if missing := [column for column in data.columns if column not in rows[0]]:
        raise InputError(
            f"{data.name}: {data.hub} has no column {missing[0]!r} any more (it has {', '.join(rows[0])}); "
            f"pin a revision that has it under `data: {{revisions: {{{data.name}: …}}}}`"
        )
    return rows


def _usable(data: PublicData, raw: Sequence[Row]) -> tuple[list[Row], Counter[str]]:
    """Our rows in the order of the split, and how many were left out for which reason."""
    family = data.module()
    row_of = getattr(family, data.converter)
    left_out: Counter[str] = Counter()
    found: dict[tuple[Any, ...], Row] = {}
    prompts: set[str] = set()
    for one in raw:
        row = row_of(one)
        if isinstance(row, str):
            left_out[row] += 1
            continue
        same = tuple(row[field] for field in data.same)
        if same in found or row["prompt"] in prompts:
            left_out[TWICE] += 1
            continue
        found[same] = row
        prompts.add(row["prompt"])
    return sorted(found.values(), key=_place), left_out


def _place(row: Row) -> tuple[str, str]:
    prompt = digest(row["prompt"], 16)
    return (digest(str(row["cluster"]), 16) if "cluster" in row else prompt, prompt)


def _why(left_out: Counter[str]) -> str:
    if not left_out:
        return ""
    reason, count = left_out.most_common(1)[0]
    return f" ({count:,} are left out because {reason})"
