"""The data of a rehearsal: made-up rows in the hub's columns, converted by the code that converts the hub's.

Owns, in the folder of a rehearsal: rows/<name>/<split>.jsonl, the raw rows of each public data set. What is converted from
them lies where `retain_core.public.folder` puts it, in the rehearsal's home.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retain_core.errors import InputError
from retain_core.own.benchmark import read_yaml
from retain_core.public.catalogue import PUBLIC
from retain_core.public.convert import PublicSizes
from retain_core.public.folder import ITEMS as ITEMS_FILE
from retain_core.public.folder import TRAIN as TRAIN_FILE
from retain_core.public.folder import answers_file, folder_of, read_counts, read_rows_of, style_name, write_public
from retain_core.rehearse.rows import MADE, RawRow, golds
from retain_core.rehearse.shrink import ITEMS, NEW_TOKENS, TRAIN
from retain_core.rehearse.suite_rows import SUITE
from retain_core.study import Study
from retain_core.suite.benchmark import SuiteBenchmark
from retain_core.suite.catalogue import CATALOGUE, files_of
from retain_core.training.target import Exchange

PARTS = 2
"""Parts of a group of lm-eval that are asked."""


def sized(small: Study) -> Study:
    """The study with few rows of every public data set."""
    sizes = {n: PublicSizes(train=TRAIN if n == small.target else _least_train(n), items=ITEMS) for n in small.public_names()}
    return small.model_copy(update={"data": small.data.model_copy(update={"sizes": sizes})})


def _least_train(name: str) -> int | None:
    return 1 if PUBLIC[name].train else None


def raw_rows(name: str, folder: Path, given: Path | None) -> dict[str, list[RawRow]]:
    """The raw rows of a public data set, split -> rows: made up here, or those of `given`. They are written to the folder."""
    if given is not None and (given / name).is_dir():
        found = {path.stem: _read(path) for path in sorted((given / name).glob("*.jsonl"))}
    else:
        found = {PUBLIC[name].split: MADE[name](2 * (TRAIN + ITEMS))}
    place = folder / "rows" / name
    place.mkdir(parents=True, exist_ok=True)
    for split, rows in found.items():
        (place / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return found


def write_data(small: Study, home: Path, folder: Path, given: Path | None) -> list[str]:
    """Convert the rows of every public data set that a study takes, with an expert's answers to its target's.

    Returns a sentence for each. Raises InputError where rows cannot be converted, or a verifier takes a right answer for wrong.
    """
    lines = []
    for name in small.public_names():
        raw = raw_rows(name, folder, given)
        wanted = small.data.wanted(name)
        write_public(home, name, raw, wanted.revision, wanted.sizes)
        place = folder_of(home, *wanted)
        counts = read_counts(place)
        said = f"{name}: {counts['rows']} rows in the columns of {PUBLIC[name].hub}, made here"
        checked = check_golds(name, _converted(place))
        lines.append(f"{said} -> {counts['train']} to train on, {counts['items']} held out; {checked}")
        if name == small.target:
            _write_experts(name, place, small.base_name())
    return lines


def with_suite(small: Study, folder: Path) -> tuple[Study, list[str]]:
    """The study with made-up rows for every benchmark of the general suite; a group is cut to its first parts."""
    benchmarks, lines = dict(small.own.benchmarks), []
    for name, own in benchmarks.items():
        if not isinstance(own, SuiteBenchmark):
            continue
        place = folder / "rows" / name
        place.mkdir(parents=True, exist_ok=True)
        files = {}
        for split, rows in SUITE[name](ITEMS).items():
            files[split] = str(place / f"{split}.jsonl")
            Path(files[split]).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        parts = dict(list(own.parts.items())[:PARTS])
        said = read_yaml(next(iter(parts.values())).yaml.path)
        otherwise: dict[str, Any] = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
        if asked := said.get("generation_kwargs"):
            otherwise["generation_kwargs"] = {**asked, "max_gen_toks": NEW_TOKENS}
        if said.get("num_fewshot"):
            otherwise["num_fewshot"] = 1
        benchmarks[name] = own.model_copy(update={"parts": parts, "rehearsed": otherwise, "revision": None})
        cut = f", {len(parts)} of its {len(own.parts)} parts" if len(parts) < len(own.parts) else ""
        lines.append(
            f"{name}: {ITEMS} rows in the columns of {own.hub_data}, made here{cut}; asked and scored by lm-eval's file"
        )
    return small.model_copy(update={"own": small.own.model_copy(update={"benchmarks": benchmarks})}), lines


def check_golds(name: str, rows: Sequence[RawRow]) -> str:
    """Ask the real verifier a right and a wrong answer to every row. Returns a sentence; raises InputError."""
    family, asked = PUBLIC[name].module(), 0
    for row in rows:
        if (answers := _golds(name, row)) is None:
            continue
        for answer, wanted in zip(answers, (True, False), strict=True):
            asked += 1
            if family.right(answer, row) is not wanted:
                raise InputError(
                    f"the verifier of {name} takes {answer!r} for {'wrong' if wanted else 'right'}, and it is not: "
                    f"the prompt is {row['prompt'][:100]!r}"
                )
    return f"its verifier tells {asked} right and wrong answers apart" if asked else "a judge reads the answers"


def _golds(name: str, row: RawRow) -> tuple[str, str] | None:
    try:
        return golds(name, row)
    except (IndexError, ValueError, KeyError):
        return None  # a row that was given, to which nobody here knows the answer


def taught(small: Study, home: Path) -> list[Exchange]:
    """What a small model is taught: right answers to the training prompts of a public target."""
    if small.target not in PUBLIC:
        return []
    rows = read_rows_of(folder_of(home, *small.data.wanted(small.target)), TRAIN_FILE)
    return [(row["prompt"], answers[0]) for row in rows if (answers := _golds(small.target, row))]


def texts(small: Study, home: Path) -> list[str]:
    """All prompts, for a vocabulary to be trained on; of the general suite what its files put around an item."""
    prompts = [row["prompt"] for name in small.public_names() for row in _converted(folder_of(home, *small.data.wanted(name)))]
    files = [files_of(CATALOGUE[r.benchmark])[:1] for r in small.retention if r.benchmark in CATALOGUE]
    return [*prompts, *(str(read_yaml(file).get("doc_to_text", "")) for one in files for file in one)]


def _converted(place: Path) -> list[RawRow]:
    return [row for file in (TRAIN_FILE, ITEMS_FILE) if (place / file).is_file() for row in read_rows_of(place, file)]


def _write_experts(name: str, place: Path, base: str) -> None:
    """An expert's answers in both styles: the right one, and the right one in other words."""
    rows = [(row["prompt"], said[0]) for row in read_rows_of(place, TRAIN_FILE) if (said := _golds(name, row))]
    for style, words in (("off_style", "{}"), ("in_style", "{}\n")):
        lines = [json.dumps({"prompt": prompt, "answer": words.format(answer)}) for prompt, answer in rows]
        answers_file(place, style_name(style, base)).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _read(path: Path) -> list[RawRow]:
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {str(error).splitlines()[0]}") from None
    if not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: a raw row is a JSON object")
    return rows
