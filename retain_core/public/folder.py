"""Public data as they lie in a home, written by `retain prefetch` and only read by a study.

Owns RETAIN_HOME/public/<name>/<revision>-<sizes>/:
train.jsonl       training problems, where the data set is trained on
items.jsonl       held-out items
counts.json       where the rows came from, how many there were, and how many of them are which; what was left out and why
off_style.jsonl, in_style-<base>.jsonl, asked_*.jsonl   answers of a stronger model (`retain_core.public.experts`)
<revision> is the one that the study pins, or `main`; <sizes> is a hash of the sizes that it asks for.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retain_core.canonical import digest
from retain_core.errors import InputError, RetainError
from retain_core.own.files import Row
from retain_core.public.catalogue import PUBLIC
from retain_core.public.convert import CONVERSION_VERSION, Converted, PublicSizes, convert

TRAIN, ITEMS, COUNTS = "train.jsonl", "items.jsonl", "counts.json"
STYLES = ("off_style", "in_style")
"""Whose words an expert's answers are in."""


def folder_of(home: Path, name: str, revision: str | None, sizes: PublicSizes | None = None) -> Path:
    """Where a public data set lies for a study that asks for it in this way."""
    asked = digest([CONVERSION_VERSION, (sizes or PublicSizes()).model_dump()], 8)
    return home.absolute() / "public" / name / f"{(revision or 'main').replace('/', '_')}-{asked}"


def style_name(style: str, base: str) -> str:
    """A style as files are called: what a base rewrote is of that base."""
    return style if style == "off_style" else f"{style}-{base}"


def answers_file(folder: Path, style: str) -> Path:
    """The file of an expert's answers in one style, as `style_name` calls it; it need not exist."""
    return folder / f"{style}.jsonl"


def is_there(folder: Path) -> bool:
    """Whether a data set was fetched; its counts are written last."""
    return (folder / COUNTS).is_file()


def write_public(
    home: Path,
    name: str,
    raw: Mapping[str, Sequence[Row]],
    revision: str | None = None,
    sizes: PublicSizes | None = None,
    commit: str | None = None,
) -> Path:
    """Convert raw rows and write the folder of a data set in one step; what was there is replaced. Returns the folder.

    `commit` is what the revision was when the rows were fetched. Raises InputError for rows that cannot be converted.
    """
    folder, found = folder_of(home, name, revision, sizes), convert(name, raw, sizes)
    data = PUBLIC[name]
    origin = {"name": name, "hub": data.hub, "config": data.config, "split": data.split, "revision": revision, "commit": commit}
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    _write(draft, found)
    write_counts(draft, {**origin, **found.counts, "deviations": list(data.deviations)})
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    return folder


def write_counts(folder: Path, counts: Mapping[str, Any]) -> None:
    """Write the counts of a data set."""
    (folder / COUNTS).write_text(json.dumps(counts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_counts(folder: Path) -> dict[str, Any]:
    """The counts of a data set. Raises RetainError when they are not what retain wrote."""
    try:
        found = json.loads((folder / COUNTS).read_text(encoding="utf-8"))
        assert isinstance(found, dict)
    except (OSError, ValueError, AssertionError) as error:
        raise RetainError(
            f"{folder / COUNTS} is damaged; delete {folder} and run `retain prefetch STUDY.yaml` again"
        ) from error
    return found


def counts_lines(counts: Mapping[str, Any]) -> list[str]:
    """What became of the rows of a data set, in words; a further sentence for each model that was asked."""
    train, published = counts["train"], counts["published"]
    taken = (f"{train:,} training prompts and " if train else "") + f"{counts['items']:,} items"
    text = f"{counts['name']}: {taken} of {counts['rows']:,} rows of {counts['hub']}"
    commit = str(counts["commit"] or "unknown")[:12]
    more = [f"commit {commit}{'' if counts['revision'] else ' (not pinned)'}"]
    more += [f"{counts['unused']:,} not needed"] if counts["unused"] else []
    more += [f"{rows:,} left out because {reason}" for reason, rows in counts["left_out"].items()]
    if (published["train"], published["items"]) != (train, counts["items"]):
        more.append(f"the published study: {' and '.join(f'{n:,}' for n in published.values() if n)}")
    asked = counts.get("experts") or {}
    return [f"{text}; {'; '.join(more)}", *(experts_line(counts["name"], style, told) for style, told in asked.items())]


def experts_line(target: str, style: str, counts: Mapping[str, Any]) -> str:
    """What became of the answers of a model, in words."""
    what = "answers of" if style == "off_style" else "of them in the words of"
    others = [f"{counts[outcome]:,} {outcome}" for outcome in ("wrong", "cut", "refused")]
    return f"{target}: {counts['asked']:,} {what} {counts['model']}: {counts['right']:,} right and kept, {', '.join(others)}"


def read_rows_of(folder: Path, file: str) -> list[Row]:
    """The rows of one of the files."""
    lines = (folder / file).read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def refuse_missing(folder: Path, name: str) -> None:
    """Raises InputError when a data set was not fetched."""
    if not is_there(folder):
        raise InputError(
            f"{name}: {PUBLIC[name].hub} is not in {folder}; fetch it with `retain prefetch STUDY.yaml`, "
            "which needs a network once"
        )


def _write(folder: Path, found: Converted) -> None:
    for file, rows in ((TRAIN, found.train), (ITEMS, found.items)):
        if rows:
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (folder / file).write_text(text, encoding="utf-8")
