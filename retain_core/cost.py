"""What a study will cost before it runs: counts, memory, and time where earlier arms tell it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from retain_core.lab.spec import LabSpec
from retain_core.lab.vocabulary import PRIVATE
from retain_core.plan import PlannedArm, StudyPlan
from retain_core.store import Store

_BYTES_TRAINED = 16
"""Per parameter in float32: weights 4, gradient 4, Adam's two moments 8."""
_BYTES_REFERENCE = 4
_VOCABULARY = 180 + len(PRIVATE)
"""Words of the lab beside its entity names, rounded up."""


def parameter_count(plan: StudyPlan) -> int:
    """Parameters of the base, from its safetensors headers or, for a lab base to be trained, from its shape."""
    files = sorted(plan.base_path.glob("*.safetensors")) if plan.base_ready or plan.base.lab is None else []
    if files:
        return sum(math.prod(shape) for file in files for shape in _shapes(file))
    spec: LabSpec = plan.base.lab or plan.world
    per_layer = 4 * spec.hidden**2 + 3 * spec.hidden * 4 * spec.hidden + 2 * spec.hidden
    return (spec.entities + _VOCABULARY) * spec.hidden + spec.layers * per_layer + spec.hidden


def memory_per_arm(plan: StudyPlan, arm: PlannedArm) -> int:
    """Bytes that weights, gradients and optimizer take in training; activations come on top."""
    if not arm.spec.trained:
        return parameter_count(plan) * _BYTES_REFERENCE
    compared = arm.spec.config.get("kl") or arm.spec.config["algorithm"] == "dpo"
    reference = _BYTES_REFERENCE if compared else 0
    critic = _BYTES_TRAINED if arm.spec.config["algorithm"] == "ppo" else 0
    return parameter_count(plan) * (_BYTES_TRAINED + reference + critic)


def known_seconds(store: Store) -> dict[str, float]:
    """Algorithm -> mean training seconds per update of the finished arms in this home."""
    spent: dict[str, list[float]] = {}
    for key in store.keys("arm"):
        found = store.find("arm", key)
        if found:
            spent.setdefault(found.inputs["arm"]["algorithm"], []).append(found.meta["seconds"] / found.meta["updates"])
    return {algorithm: sum(values) / len(values) for algorithm, values in spent.items()}


def seconds_per_seed(plan: StudyPlan, store: Store) -> float | None:
    """Training seconds of one more seed of every method and learning rate; None where earlier arms do not tell."""
    known = known_seconds(store)
    first = plan.study.seeds[0]
    cells = [arm.spec for arm in plan.arms if arm.spec.role == "method" and arm.spec.seed == first]
    if not cells or any(spec.config["algorithm"] not in known for spec in cells):
        return None
    return sum(known[spec.config["algorithm"]] * spec.all_updates for spec in cells)


def cost_lines(plans: Sequence[StudyPlan], store: Store, lanes: int) -> list[str]:
    """The cost of what is still to do of some studies, as sentences."""
    planned = [(plan, arm) for plan in plans for arm in plan.arms if not arm.done]
    todo = [arm for _, arm in planned]
    if not todo:
        return ["cost: nothing to train or evaluate"]
    training = [arm for arm in todo if arm.to_train]
    sequences = sum(arm.spec.all_updates * arm.spec.sequences_per_update for arm in training)
    evaluations = sum(arm.missing_evaluations for arm in todo)
    largest, parameters = max((memory_per_arm(plan, arm), parameter_count(plan)) for plan, arm in planned)
    lines = [
        f"cost: {len(todo)} arms, {sequences:,} sequences to train on, {evaluations} evaluations, {lanes} arms side by side",
        f"memory per arm: {largest / 2**20:,.0f} MiB for {parameters:,} parameters, their gradients and the "
        "optimizer; the loaded libraries (about 1 GiB) and activations come on top",
    ]
    known = known_seconds(store)
    timed = [
        known[arm.spec.config["algorithm"]] * arm.spec.all_updates for arm in training if arm.spec.config["algorithm"] in known
    ]
    if timed:
        lines.append(
            f"training time: about {sum(timed) / lanes:,.0f} s, by {len(timed)} of {len(training)} arms to train, from arms "
            "finished here"
        )
    return lines


def _shapes(file: Path) -> Iterator[list[int]]:
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return (entry["shape"] for name, entry in header.items() if name != "__metadata__")
