"""The questions and their study files.

    python -m retain_core.hypotheses.studies [FOLDER]

writes one study file per question (default studies/hypotheses) from `questions.yaml`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from retain_core.hypotheses.beside import Beside

FOLDER = Path("studies/hypotheses")
_ABOUT = ("name", "asks", "contrast", "primary", "anchors", "judged_by", "tested_if", "beside")


@dataclass(frozen=True)
class Question:
    """One hypothesis: what is asked, the study that asks it, and what its answer is judged by."""

    number: int
    name: str
    asks: str
    study: dict[str, Any]
    """The study file's content."""
    judged_by: str
    """`contrast` (the study's primary one) or `kl_law`."""
    tested_if: str | None
    """What must have happened for the dial to have been tested: `kl_moved`, `clipped`."""
    beside: Beside | None
    """What else the ledger says of the two methods."""


@lru_cache(maxsize=1)
def questions() -> tuple[Question, ...]:
    """All questions, in the order of their numbers."""
    raw = yaml.safe_load(files("retain_core.hypotheses").joinpath("questions.yaml").read_text(encoding="utf-8"))
    return tuple(_question(i, raw, entry) for i, entry in enumerate(raw["questions"], start=1))


def _question(number: int, raw: dict[str, Any], entry: dict[str, Any]) -> Question:
    own: dict[str, Any] = {k: v for k, v in entry.items() if k not in _ABOUT}
    study: dict[str, Any] = {"study": f"h{number:02d}-{entry['name']}", **raw["template"], **own}
    asked = [m if isinstance(m, str) else m["label"] for m in own["methods"]]
    wanted = raw["anchors"] if entry.get("anchors", True) else []
    anchors = [m for m in wanted if (m if isinstance(m, str) else m["label"]) not in asked]
    study["methods"] = [*own["methods"], *anchors]
    primary = {"contrast": entry["contrast"], **raw["primary"], **entry.get("primary", {})}
    if "at" in primary:
        del primary["at_gain"]
    study["primary"] = primary
    return Question(
        number, entry["name"], entry["asks"], study, entry.get("judged_by", "contrast"), entry.get("tested_if"),
        entry.get("beside"),
    )  # fmt: skip


def study_text(question: Question) -> str:
    """The study file of a question."""
    asks = question.asks[0].upper() + question.asks[1:]
    head = f"# {asks}\n# Written from retain_core/hypotheses/questions.yaml: change it there.\n"
    return head + yaml.safe_dump(question.study, sort_keys=False, default_flow_style=None, width=120)


def main() -> None:
    """Write every study file, and remove those of questions that are gone."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {f"{question.study['study']}.yaml": study_text(question) for question in questions()}
    for path in folder.glob("h*.yaml"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
