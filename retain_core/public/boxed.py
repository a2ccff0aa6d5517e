r"""Finding the final answer in a text that reasons first."""

from __future__ import annotations

import re

_BRACES = re.compile(r"\\boxed\{|\{|\}")


def last_boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{…}` whose braces close; None where there is none. Reads the text once."""
    last, found = -1, None
    opened: list[re.Match[str]] = []
    for brace in _BRACES.finditer(text):
        if brace[0] != "}":
            opened.append(brace)
        elif opened:
            start = opened.pop()
            if start[0] != "{" and start.start() > last:
                last, found = start.start(), text[start.end() : brace.start()].strip()
    return found
