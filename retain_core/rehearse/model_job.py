"""Building the small models, each in a process of its own: the command itself then never loads torch.

A job writes `built-<model>.json`: parameters and where the shape comes from, or the sentence that says what is wrong.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from retain_core import workers
from retain_core.devices import cores
from retain_core.errors import InputError, RetainError
from retain_core.training.target import Exchange


class Wanted(BaseModel):
    """A model that a study names, and the folder where a small one is to stand in for it."""

    what: str
    model: str
    revision: str | None
    folder: str
    texts: list[str]
    """What its vocabulary is trained on."""
    taught: list[Exchange]
    """What it is taught to say; nothing: its weights are random."""
    sayings: list[str] = []
    """All that it ever says: it reads texts as they are, without a chat template, and goes on with one of these."""


def build_models(wanted: list[Wanted], folder: Path) -> list[str]:
    """Build them side by side. Returns a sentence for each; raises InputError for one of which nothing like it can be built."""

    def build(one: Wanted) -> list[dict[str, Any]]:
        name = Path(one.folder).name
        told = folder / f"built-{name}.json"
        arguments = {"wanted": [one.model_dump()], "told": str(told)}
        workers.run_job("rehearsal_models", arguments, folder / f"model-{name}.log")
        return list(json.loads(told.read_text(encoding="utf-8")))

    with ThreadPoolExecutor(max_workers=cores()) as pool:
        found = [entry for entries in pool.map(build, wanted) for entry in entries]
    for one in found:
        if "error" in one:
            raise (InputError if one["exit_code"] == InputError.exit_code else RetainError)(one["error"])
    return [str(one["said"]) for one in found]


def job(wanted: list[dict[str, Any]], told: str) -> None:
    """What the process does."""
    from retain_core.rehearse.models import build_model, shape_of

    found: list[dict[str, Any]] = []
    for entry in wanted:
        one = Wanted.model_validate(entry)
        try:
            shape = shape_of(one.what, one.model, one.revision)
            parameters = build_model(one.what, shape, Path(one.folder), one.texts, one.taught, sayings=one.sayings)
            kind = shape.config.get("model_type")
            said = f"{one.what}: {one.model} -> a {kind} of {parameters:,} parameters, made here from {shape.source}"
            said += ", taught to answer briefly and to stop" if one.taught else ""
            if "strftime_now" in (shape.template or ""):
                said += "; CAREFUL: its chat template writes the day's date, so its prompts are others every day"
            found.append({"said": said})
        except RetainError as error:
            found.append({"error": str(error), "exit_code": error.exit_code})
    Path(told).write_text(json.dumps(found), encoding="utf-8")
