"""A decision of the gate as text and as a document."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from retain_core.compare.text import COLUMNS, heading, points, tables
from retain_core.gate.decide import MOST_TIMES, Decision
from retain_core.warehouse.query import Format


def as_json(decision: Decision) -> dict[str, Any]:
    """The decision as one document: fractions, as in the warehouse; rows as `retain compare` has them."""
    found, mean = decision.comparison, decision.mean
    return {
        "decision": decision.word, "exit_code": decision.exit_code, "sentence": sentence(decision), "margin": decision.margin,
        "base": found.a.source, "model": found.b.source, "benchmarks": mean.benchmarks, "drop": mean.drop,
        "ci_low": mean.ci_low, "ci_high": mean.ci_high, "at_least": decision.at_least, "at_most": decision.at_most,
        "detectable": decision.detectable, "times_items": decision.times,
        "harmed": [row.benchmark for row in decision.harmed],
        "rows": [{column: asdict(row)[column] for column in COLUMNS} for row in found.rows], "notes": list(found.notes),
    }  # fmt: skip


def told(decision: Decision, form: Format) -> str:
    """The decision, what it rests on, and what to do where there is none."""
    found = decision.comparison
    blocks = [sentence(decision), heading(found), *tables(found, form), "\n".join(remarks(decision))]
    if found.notes:
        blocks.append("\n".join(f"Note: {note}" for note in found.notes))
    return "\n\n".join(blocks)


def sentence(decision: Decision) -> str:
    """The decision in one sentence, with its interval."""
    mean, margin = decision.mean, f"the margin of {100 * decision.margin:g} points"
    over = (
        f"a mean drop over {mean.benchmarks} benchmarks"
        if mean.benchmarks > 1
        else f"a drop on {decision.counted[0].benchmark}"
    )
    interval = "no interval" if mean.ci_low is None or mean.ci_high is None else (
        f"95 % interval {points(mean.ci_low)} to {points(mean.ci_high)}")  # fmt: skip
    drop = f"{over} of {points(mean.drop)} points ({interval})"
    if decision.word == "ALLOW":
        assert decision.at_most is not None
        sure = ", which is a loss," if decision.at_least is not None and decision.at_least > 0 else ""
        return f"ALLOW: {drop}{sure} is below {margin}: it is at most {points(decision.at_most)} points, 95 % sure."
    if decision.word == "REJECT":
        return f"REJECT: {drop} is a loss beyond chance, and not shown to be below {margin}."
    if decision.at_most is None:
        return f"INCONCLUSIVE: {drop} cannot be judged against {margin}."
    open_ = f"drops up to {points(decision.at_most)} points are not excluded, and {margin} is less"
    return f"INCONCLUSIVE: {drop} is no loss beyond chance, but {open_}."


def remarks(decision: Decision) -> list[str]:
    """What could have been seen, which benchmark the mean hides, and what to do where nothing was decided."""
    lines = []
    if decision.harmed:
        lost = ", ".join(f"{row.benchmark} {points(row.drop)}" for row in decision.harmed)
        lines.append(f"Lost more than the margin by themselves, beyond chance (Holm): {lost}.")
    if decision.detectable is not None:
        lines.append(f"Smallest true mean drop that these items show 4 times in 5: {100 * decision.detectable:.1f} points.")
    if decision.word == "INCONCLUSIVE":
        lines.append(_more_items(decision))
    lines.append("This speaks for this checkpoint only: training it again with another seed would give other numbers.")
    return lines


def _more_items(decision: Decision) -> str:
    if decision.times is None or decision.detectable is None:
        return "What to do: the notes say which interval is refused and why; more items or more clusters there would give one."
    drop = decision.mean.drop
    if decision.times > 1 or drop <= 0:
        times, then = decision.times, "a model that lost nothing is then allowed 4 times in 5"
    else:
        # These items would allow a model that lost nothing; what is open is whether the drop that was seen is real.
        times, then = (decision.detectable / drop) ** 2, f"a true drop of {points(drop)} points is then seen 4 times in 5"
    if times > MOST_TIMES:
        return "What to do: no number of items would decide at this margin; declare a larger one."
    items = ", ".join(f"{row.benchmark} {row.n} -> {_rounded(times * row.n)}" for row in decision.counted)
    return f"What to do: evaluate both on about {times:.1f} times as many items ({items}): {then}."


def _rounded(items: float) -> int:
    """Two digits are all that such a figure has."""
    return int(float(f"{items:.2g}"))
