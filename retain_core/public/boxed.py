r"""Finding the final answer in a text that reasons first."""

from __future__ import annotations

_BOX = "\\boxed{"


def last_boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{…}` whose braces close; None where there is none."""
    start = text.rfind(_BOX)
    while start >= 0:
        depth, first = 1, start + len(_BOX)
        for place in range(first, len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if depth == 0:
                return text[first:place].strip()
        start = text.rfind(_BOX, 0, start)
    return None
