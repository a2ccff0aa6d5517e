"""Numbers and verdicts in words. Fractions come in, points go out; a dash stands for what is not known."""

from __future__ import annotations

import math
from typing import Any


def points(value: float | None) -> str:
    """A fraction as signed points with one decimal; a dash when unknown."""
    return "-" if _unknown(value) else f"{round(100 * value, 1) + 0.0:+.1f}"  # type: ignore[operator]


def interval(low: float | None, high: float | None) -> str:
    """An interval of fractions in points; empty when there is none."""
    return "" if _unknown(low) or _unknown(high) else f"[{points(low)}, {points(high)}]"


def number(value: float | None) -> str:
    """Three digits."""
    return "" if _unknown(value) else f"{value:.3g}"


def percent(value: float | None) -> str:
    """A fraction in percent with one decimal."""
    return "" if _unknown(value) else f"{100 * value:.1f}"  # type: ignore[operator]


def p_text(value: float | None) -> str:
    """A p value."""
    return "" if _unknown(value) else "< 0.0001" if value < 0.0001 else f"{value:.4f}"  # type: ignore[operator]


def counted(n: int, thing: str) -> str:
    """`1 arm`, `2,000 arms`."""
    return f"{n:,} {thing}{'' if n == 1 else 's'}"


def listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "nothing"


def where(at: str) -> str:
    """The point of a contrast: `last` or `gain=0.1`."""
    if at == "last":
        return "at the end of training"
    return f"at the point where both had gained {100 * float(at.partition('=')[2]):g} points"


def amount(diff: float) -> str:
    """How much more or less the first one lost."""
    size = f"{abs(100 * diff):.1f}"
    if size == "0.0":
        return "as much as"
    return f"{size} {'point' if size == '1.0' else 'points'} {'more' if diff > 0 else 'less'} than"


def span(low: float, high: float) -> str:
    """An interval of such differences: `0.2 less to 0.4 more`."""
    sides = ["less" if round(100 * value, 1) < 0 else "more" for value in (low, high)]
    ends = [f"{abs(100 * value):.1f}" for value in (low, high)]
    if sides[0] != sides[1]:
        return f"{ends[0]} {sides[0]} to {ends[1]} {sides[1]}"
    return " to ".join(ends if sides[0] == "more" else ends[::-1]) + f" {sides[0]}"


_WORDS = {
    "supported": "as the study predicted",
    "reversed": "the opposite of what the study predicted",
    "inconclusive": "too uncertain to tell which of the two costs more",
}


def verdict_tail(primary: dict[str, Any], margin: float) -> str:
    """What the verdict means, for someone who does not know the word."""
    word = primary["verdict"]
    if word == "equivalent":
        return f"a difference of less than {100 * margin:g} points either way, which the study calls none"
    return str(_WORDS.get(word, word))


def robust_tail(robust: bool | None) -> str:
    """Whether one benchmark decides."""
    if robust is None:
        return ""
    return "the sign stays whichever benchmark is left out" if robust else "but the sign hangs on a single benchmark"


def _unknown(value: float | None) -> bool:
    return value is None or not math.isfinite(value)
