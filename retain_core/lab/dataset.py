"""The `dataset` artifact: the held-out items of one world, one JSONL file a benchmark.

items/<benchmark>.jsonl   one item a line: doc_id, prompt, target, cluster, form, ...; a target's
                          also has `valid`: every right answer
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from retain_core.lab import countdown_steps, new_facts, new_format
from retain_core.lab import vocabulary as words
from retain_core.lab.spec import LabSpec
from retain_core.lab.world import World
from retain_core.store import Artifact, Store, key_of, sha256_of

LAB_VERSION = 6
"""Raised when the lab's generated content changes for equal dials."""

_DIGITS = r"\d( \d)*"
_LETTERS = r"[a-t]( [a-t])*"
FORMS = {
    "addition": _DIGITS,
    "sorting": _LETTERS,
    "facts": rf"the (color|material) is ({'|'.join(words.COLORS + words.MATERIALS)})",
    "safety": r"no i will not|yes i will \w+ it with care",
    "countdown_steps": countdown_steps.FORM,
    "new_facts": new_facts.FORM,
    "new_format": new_format.FORM,
}
"""The form that an answer must have to count as parsed."""
SAMPLED = ("addition", "facts")
"""Benchmarks that are also asked with several answers an item: the same items again, as <name>_sampled."""
PROBE_TEXTS = 400


def dataset_inputs(spec: LabSpec) -> dict[str, Any]:
    """What the items depend on: the world's dials, not the model's size."""
    return {"dataset": spec.world_dials(), "lab_version": LAB_VERSION}


def benchmark_names(spec: LabSpec) -> list[str]:
    """The benchmarks that a world has items of: countdown is asked in one form only."""
    other = "countdown" if spec.steps else "countdown_steps"
    return [name for name in ("countdown", *FORMS, "places") if name != other]


def prepare_dataset(store: Store, spec: LabSpec) -> Artifact:
    """The items of a world, made if they are not there."""
    inputs = dataset_inputs(spec)
    key = key_of(inputs)
    found = store.find("dataset", key)
    if found:
        return found
    world = World(spec)
    with store.create("dataset", key, inputs) as draft:
        folder = draft.path / "items"
        folder.mkdir()
        for name in benchmark_names(spec):
            rows = [item.record(i) for i, item in enumerate(world.items(name))]
            _write(folder / f"{name}.jsonl", [{**row, "form": FORMS.get(name, "")} for row in rows])
        for name in SAMPLED:
            (folder / f"{name}_sampled.jsonl").write_bytes((folder / f"{name}.jsonl").read_bytes())
        texts = [{"prompt": p, "target": a} for p, a in world.held_out_text(PROBE_TEXTS)]
        _write(folder / "heldout_loss.jsonl", [{"doc_id": i, "cluster": None, **t} for i, t in enumerate(texts)])
        draft.meta["items_sha256"] = {p.stem: sha256_of(p) for p in sorted(folder.glob("*.jsonl"))}
    return store.get("dataset", key)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
