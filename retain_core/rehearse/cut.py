"""A target of the user's own, cut to its first rows."""

from __future__ import annotations

import json
from pathlib import Path

from retain_core.own.target import PARTS, OwnTarget
from retain_core.rehearse.shrink import NEW_TOKENS, OWN_ITEMS, TRAIN
from retain_core.study import Study
from retain_core.training.target import Exchange


def cut_target(small: Study, study: Study, folder: Path) -> tuple[Study, list[str], list[Exchange]]:
    """(the study with its target's files cut, texts, what a model is taught)."""
    own = study.own.target
    files = study.target_files
    if not isinstance(own, OwnTarget) or files is None:
        return small, [], []
    data = folder / "data"
    data.mkdir(exist_ok=True)
    changed: dict[str, object] = {"longest_answer": NEW_TOKENS, "verifier": files.verifier}
    texts: list[str] = []
    taught: list[Exchange] = []
    for part in PARTS:
        if part == "retention" and own.retention is None:
            continue
        rows = [row for _, row in own.rows(part)][: OWN_ITEMS if part == "items" else TRAIN]
        path = data / f"{part}.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        changed[part] = str(path)
        texts += [row["prompt"] for row in rows]
        if part != "items":
            taught += [(row["prompt"], row["answer"]) for row in rows if "answer" in row]
    small = small.model_copy(update={"target_files": files.model_copy(update=changed)})
    return small, texts, taught
