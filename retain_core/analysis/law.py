"""Does the KL to the base say how much was lost (measurement: section 8)? One point for each checkpoint of a method.

Of a sequence of targets the first stage alone: the KL is taken on prompts of the first target.
"""

from __future__ import annotations

import numpy as np

from retain_core.analysis.scores import StudyScores
from retain_core.stats.law import LawRow, kl_law


def law_of(scores: StudyScores, rng: np.random.Generator) -> list[LawRow]:
    """Drop as a quadratic of forward KL and of the trivial predictors, over all methods and learning rates."""
    rows = []
    for cell in (cell.first_stage() for cell in scores.methods()):
        if cell.learning_rate is None:
            continue
        for place, names in enumerate(cell.checkpoints):
            drops = np.mean([scores.drops(q, names).mean(axis=0) for q in scores.retention], axis=0)
            gain = scores.measured_gain
            gains = -scores.drops(gain, names).mean(axis=0) if gain else np.full(len(names), np.nan)
            for i, step in enumerate(cell.steps):
                rows.append(
                    (
                        cell.facts["kl_forward"][place, i], drops[i], f"{cell.method} {cell.learning_rate} {cell.seeds[place]}",
                        cell.method, step * cell.learning_rate, cell.facts["weight_distance"][place, i], gains[i],
                    )
                )  # fmt: skip
    if not rows:
        return []
    kl, drop, runs, methods, pace, distance, gained = (np.array(column) for column in zip(*rows, strict=True))
    trivial = {"step x learning rate": pace, "weight distance": distance, "gain": gained}
    return kl_law(kl, drop, runs, methods, trivial, rng)
