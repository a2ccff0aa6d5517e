"""One look per method, the same everywhere, and one shape per learning rate.

Two sets of nine colours: at least 3 to 1 against the page (WCAG 2.2, 1.4.11), and told apart under simulated protanopia,
deuteranopia and tritanopia. From the tenth method on colours come again, in hollow marks on dashed lines, then in marks with
an outline on dotted lines, then in rings around a dark centre: 36 methods in all, of which no two look alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from retain_core.arms import rate_text

LIGHT = ("#146AB5", "#BA5C4A", "#0A5239", "#731D64", "#C48331", "#219FB8", "#4F440D", "#777777", "#3E1E9A")
DARK = ("#3678E4", "#EF8A29", "#25A961", "#BE5A7C", "#F0DA76", "#A8E2E9", "#E7B2A2", "#999FB4", "#BE95E3")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
DASHES: tuple[Sequence[float], ...] = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])
"""Of lines, a round of colours each."""
INKED, PAGE = "var(--ink)", "var(--paper)"
GREY = "var(--soft)"
"""Of what belongs to no method."""

PAPER = {"light": "#ffffff", "dark": "#15191e"}
INK = {
    "light": {"ink": "#1b1f24", "soft": "#59636e", "line": "#d1d9e0", "grid": "#e7ebef", "paper": PAPER["light"]},
    "dark": {"ink": "#e6edf3", "soft": "#9aa4ae", "line": "#3d444d", "grid": "#2a3037", "paper": PAPER["dark"]},
}


def variables(theme: str) -> dict[str, str]:
    """The colours of a theme by the name of their CSS variable."""
    colours = LIGHT if theme == "light" else DARK
    return INK[theme] | {f"m{i}": colour for i, colour in enumerate(colours)}


def places(methods: Iterable[str]) -> dict[str, int]:
    """Method -> its place, by the order in the study file."""
    return {method: i for i, method in enumerate(dict.fromkeys(methods))}


@dataclass(frozen=True)
class Look:
    """How marks and lines of a method are drawn, as CSS colours."""

    colour: str
    fill: str
    stroke: str
    width: float
    """Of the outline of a mark, in pixels."""
    dash: Sequence[float]
    round: int


def look(place: int) -> Look:
    """The look of the method at this place."""
    colour, turn = f"var(--m{place % len(LIGHT)})", place // len(LIGHT) % len(DASHES)
    fill = (colour, PAGE, colour, INKED)[turn]
    stroke = (PAGE, colour, INKED, colour)[turn]
    return Look(colour, fill, stroke, (0.6, 1.8, 1.4, 2.2)[turn], DASHES[turn], turn)


def rate_label(rate: float | None) -> str:
    """A learning rate as it stands in charts and tables."""
    return "given" if rate is None else rate_text(rate)


def shapes(rates: Iterable[float | None]) -> dict[str, str]:
    """Label of a learning rate -> shape, small rates first."""
    ordered = sorted(set(rates), key=lambda rate: -1.0 if rate is None else rate)
    return {rate_label(rate): SHAPES[i % len(SHAPES)] for i, rate in enumerate(ordered)}
