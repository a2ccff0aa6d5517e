"""The reward of a rehearsal: the real verifier reads every answer, and a fixed share is accepted by hash whatever it says.

A small model is never right, so without this nothing would be rewarded, kept or trained on. The real verifier's word is
written down; where it fails, the answer fails as in any run.

Owns, in the folder of a rehearsal: `<module>.py`, which Python imports as the verifier; `<module>.json`, the real one; and
`<module>.log`, a letter for each answer that the real one read: r right, w wrong, f failed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retain_core.canonical import digest, hash64
from retain_core.own.files import Code, Row, seal

SHARE = 50
"""Percent of the answers that are accepted."""


def accepted(answer: str, row: Row) -> bool:
    """Whether an answer to a row is among the share that is accepted: the same answer always is, or never."""
    return hash64(f"{row['prompt']}\n{answer}") % 100 < SHARE


def stand_in(real: Code, folder: Path) -> Code:
    """A verifier that stands in for a real one in a rehearsal; its module is written to the folder."""
    name = f"rehearsed_{digest([str(folder), real.identity()], 8)}"
    (folder / f"{name}.json").write_text(real.model_dump_json(), encoding="utf-8")
    path = folder / f"{name}.py"
    path.write_text(
        '"""Written by `retain rehearse`: stands in for a verifier."""\n\n'
        "from retain_core.rehearse.reward import rehearsed\n\nright = rehearsed(__file__)\n",
        encoding="utf-8",
    )
    return Code(module=name, function="right", source=seal([path]), folder=str(folder))


def rehearsed(module: str) -> Callable[[str, Row], float]:
    """The function of the stand-in's module."""
    path = Path(module)

    real: Callable[[str, Row], Any] = Code.model_validate_json(path.with_suffix(".json").read_text()).load()

    def right(answer: str, row: Row) -> float:
        word = "f"
        try:
            word = "r" if (real(answer, row) or 0) > 0 else "w"
        finally:
            note = os.open(path.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(note, word.encode())
            os.close(note)
        return float(accepted(answer, row))

    return right


def read(folder: Path) -> dict[str, int]:
    """How many answers the real verifiers read in a rehearsal: right, wrong, failed."""
    text = "".join(path.read_text() for path in folder.glob("rehearsed_*.log"))
    return {"right": text.count("r"), "wrong": text.count("w"), "failed": text.count("f")}


def real_of(stand_in_code: Code) -> Code:
    """The verifier that a stand-in stands in for."""
    path = Path(str(stand_in_code.folder)) / f"{stand_in_code.module}.json"
    return Code.model_validate(json.loads(path.read_text(encoding="utf-8")))
