"""Building the small models in a process of its own: the command itself then never loads torch.

The job writes `built.json`: per model its parameters and where its shape comes from, or the sentence that says what is wrong.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from retain_core import workers
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
    plain: bool = False
    """It reads texts as they are, without a chat template."""


def build_models(wanted: list[Wanted], folder: Path) -> list[str]:
    """Build them. Returns a sentence for each; raises InputError for one of which nothing like it can be built."""
    told = folder / "built.json"
    workers.run_job("rehearsal_models", {"wanted": [w.model_dump() for w in wanted], "told": str(told)}, folder / "models.log")
    found: list[dict[str, Any]] = json.loads(told.read_text(encoding="utf-8"))
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
            parameters = build_model(one.what, shape, Path(one.folder), one.texts, one.taught, plain=one.plain)
            kind = shape.config.get("model_type")
            said = f"{one.what}: {one.model} -> a {kind} of {parameters:,} parameters, made here from {shape.source}"
            said += ", taught to answer briefly and to stop" if one.taught else ""
            if "strftime_now" in (shape.template or ""):
                said += "; CAREFUL: its chat template writes the day's date, so its prompts are others every day"
            found.append({"said": said})
        except RetainError as error:
            found.append({"error": str(error), "exit_code": error.exit_code})
    Path(told).write_text(json.dumps(found), encoding="utf-8")
