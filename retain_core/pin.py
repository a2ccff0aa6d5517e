"""`retain prefetch --pin`: the commits that a study's models and data sets have now, written into its file.

Only the lines concerned change; comments and layout stay. A revision that is a whole commit hash already is left alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from retain_core.errors import InputError
from retain_core.hub import is_commit, is_hub_id
from retain_core.public.catalogue import PUBLIC
from retain_core.public.fetch import commit_of, commit_of_id
from retain_core.store import write_atomically
from retain_core.study import Study
from retain_core.study_file import Where, read_study
from retain_core.suite.benchmark import SuiteBenchmark

MODELS = ("base", "judge")
"""Keys of a study that name a model: its name, or a mapping with `model` and `revision`."""


def pin(path: Path) -> Iterator[str]:
    """Write the commits into a study file. Yields a sentence for each thing that is pinned.

    Raises InputError where the hub does not have something, RetainError where it does not answer; the file is as it was then.
    """
    from retain_core.cross import load_studies
    from retain_core.prefetch import refuse_offline

    studies = load_studies(path, fetched=False).studies
    raw = read_study(path, fetched=False).raw
    refuse_offline()
    names = dict.fromkeys(name for study in studies for name in study.public_names())
    found: dict[Where, str] = {}
    lines: list[str] = []
    for where, model, revision in _models(raw):
        found[where] = _model_commit(".".join(map(str, where[:-1])), model, revision)
        lines.append(f"{model}: {revision or 'main'} is {found[where]}")
    given = (raw.get("data") or {}).get("revisions") or {}
    for name in names:
        if not is_commit(given.get(name)):
            found["data", "revisions", name] = commit_of(PUBLIC[name], given.get(name))
            lines.append(f"{name} ({PUBLIC[name].hub}): {given.get(name) or 'main'} is {found['data', 'revisions', name]}")
    for name, hub, said in _suite(studies):
        if not is_commit(said):
            found["data", "revisions", name] = commit_of_id(name, hub, said)
            lines.append(f"{name} ({hub}): {said or 'main'} is {found['data', 'revisions', name]}")
    if found:
        with path.open(encoding="utf-8", newline="") as stream:
            text = stream.read()
        write_atomically(path, written(path, text, found))
    yield from lines
    loose = [m for m in (raw.get("cross") or {}).get("base") or [] if is_hub_id(str(m))]
    if loose:
        yield f"not pinned: {', '.join(loose)}; under `cross` a model has no place for a revision"
    yield f"{path}: {len(found)} revision{'' if len(found) == 1 else 's'} written" if found else f"{path}: nothing to pin"


def written(path: Path, text: str, values: dict[Where, str]) -> str:
    """The text of a YAML file with some values set, each at its place. Raises InputError where that cannot be done."""
    wanted = yaml.safe_load(text)
    for where, value in values.items():
        wanted, text = _set(wanted, where, value), _with(text, where, value)
    if yaml.safe_load(text) != wanted:
        told = "; ".join(f"{'.'.join(map(str, where))}: {value}" for where, value in values.items())
        raise InputError(f"{path} is written in a way that cannot be changed line by line; write yourself: {told}")
    return text


def _suite(studies: Sequence[Study]) -> list[tuple[str, str, str | None]]:
    """(name, data set of the hub, revision so far) of every benchmark of the general suite."""
    found = {
        name: (name, own.hub_data, own.revision)
        for study in studies
        for name, own in study.own.benchmarks.items()
        if isinstance(own, SuiteBenchmark)
    }
    return list(found.values())


def _models(raw: dict[str, Any]) -> Iterator[tuple[Where, str, str | None]]:
    """(place of the revision, model, revision so far) of every model of the hub that is not pinned."""
    places: list[tuple[Where, Any]] = [((key,), raw.get(key)) for key in MODELS]
    methods = raw.get("methods")
    places += [
        (("methods", number), entry)
        for number, entry in enumerate(methods if isinstance(methods, list) else [])
        if isinstance(entry, dict)
    ]
    for where, entry in places:
        said = {"model": entry} if isinstance(entry, str) else entry
        if not isinstance(said, dict) or not isinstance(said.get("model"), str):
            continue
        if is_hub_id(said["model"]) and not said["model"].startswith("lab/") and not is_commit(said.get("revision")):
            yield (*where, "revision"), said["model"], said.get("revision")


def _model_commit(what: str, model: str, revision: str | None) -> str:
    from retain_core.prefetch import HubModel, model_info

    return str(model_info(HubModel(what, model, revision)).sha)


def _set(tree: Any, where: Where, value: str) -> Any:
    """A copy of a value with one more set in it."""
    if not where:
        return value
    first, *rest = where
    if isinstance(tree, list):
        return [_set(entry, tuple(rest), value) if place == first else entry for place, entry in enumerate(tree)]
    known = {"model": tree} if isinstance(tree, str) else copy.copy(tree or {})
    return {**known, first: _set(known.get(first), tuple(rest), value)}


def _with(text: str, where: Where, value: str) -> str:
    """The text with a value at a place that may not be there yet."""
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    end = "\r\n" if "\r\n" in text else "\n"
    for depth, part in enumerate(where):
        rest, below = where[depth:], where[depth + 1 :]
        if isinstance(node, yaml.SequenceNode):
            node = node.value[int(part)]
            continue
        if isinstance(node, yaml.ScalarNode):
            start, stop = node.start_mark.index, node.end_mark.index
            if node.tag == "tag:yaml.org,2002:null":
                return f"{text[:start]} {_flow(rest, value)}{text[stop:]}"
            return f"{text[:start]}{{model: {text[start:stop]}, {_flow(rest, value)[1:]}{text[stop:]}"
        entries = {key.value: (key, child) for key, child in node.value}
        if part in entries:
            node = entries[str(part)][1]
            continue
        added = f"{part}: {_flow(below, value)}"
        if node.flow_style:
            return _into_flow(text, node, added)
        if depth == 0:
            return f"{text.rstrip()}{end}{part}:{end}{_block(below, value, end)}"
        return _into_block(text, node, entries, added, end)
    return text[: node.start_mark.index] + _plain(value) + text[node.end_mark.index :]


def _into_flow(text: str, node: yaml.MappingNode, added: str) -> str:
    place = node.value[-1][1].end_mark.index if node.value else node.start_mark.index + 1
    return f"{text[:place]}{', ' if node.value else ''}{added}{text[place:]}"


def _into_block(text: str, node: yaml.MappingNode, entries: dict[str, Any], added: str, end: str) -> str:
    """A line more: after `model` where there is one, else before all others."""
    indent = " " * node.start_mark.column
    after = entries["model"][1].end_mark.index if "model" in entries else None
    if after is None:
        return f"{text[: node.start_mark.index]}{added}{end}{indent}{text[node.start_mark.index :]}"
    line = text.find(end, after)
    line = len(text) if line < 0 else line
    return f"{text[:line]}{end}{indent}{added}{text[line:]}"


def _flow(where: Where, value: str) -> str:
    """A value below some keys, on one line."""
    text = _plain(value)
    for part in reversed(where):
        text = f"{{{part}: {text}}}"
    return text


def _block(where: Where, value: str, end: str) -> str:
    """A value below some keys, a line for each."""
    lines = ["  " * (depth + 1) + f"{part}:" for depth, part in enumerate(where)]
    return end.join([*lines[:-1], f"{lines[-1]} {_plain(value)}"]) + end


def _plain(value: str) -> str:
    """A text as YAML: in quotes where it would read as a number."""
    return value if yaml.safe_load(value) == value else f'"{value}"'
