r"""MATH: reason, then the final answer in `\boxed{}`.

Right (paper's check): the last `\boxed{}`, else the last `$…$`, else the last number, else the whole text equals the gold
answer after the normalisation of Lewkowycz et al. 2022 (Minerva), appendix D, to which `\dfrac` -> `\frac` and dropping
`\left` and `\right` are added.
"""

from __future__ import annotations

import re
from fractions import Fraction

from retain_core.own.files import Row
from retain_core.public.boxed import last_boxed

MOST_CHARACTERS = 2000
"""A longer text is no final answer; it would only keep the patterns busy."""
_ASK = "Reason step by step, and put your final answer in \\boxed{ }."
_INLINE = re.compile(r"\$([^$]+)\$")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")

_WRITTEN_OTHERWISE = (
    ("an ", ""), ("a ", ""), (".$", "$"), ("\\$", ""), ("\\ ", ""), (" ", ""), ("mbox", "text"), (",\\text{and}", ","),
    ("\\text{and}", ","), ("\\text{m}", "\\text{}"),
)  # fmt: skip
_LEFT_OUT = (
    "square", "ways", "integers", "dollars", "mph", "inches", "ft", "hours", "km", "units", "\\ldots", "sue", "points", "feet",
    "minutes", "digits", "cents", "degrees", "cm", "gm", "pounds", "meters", "meals", "edges", "students", "childrentickets",
    "multiples", "\\text{s}", "\\text{.}", "\\text{\ns}", "\\text{}^2", "\\text{}^3", "\\text{\n}", "\\text{}", "\\mathrm{th}",
    "^\\circ", "^{\\circ}", "\\;", ",\\!", "{,}", '"', "\\dots",
)  # fmt: skip
_WRAPPED = re.compile(r"\\(?:text|textbf|overline)\{(.*?)\}|\\boxed\{(.*)\}")
_SHORT_FRACTION = re.compile(r"(frac)([^{])(.)")
_SHORT_ROOT = re.compile(r"(sqrt)([^{\[])")
_FRACTION = re.compile(r"(-?)\\frac\{(-?\d+)\}\{(-?\d+)\}|(-?\d+)/(\d+)")
_PLAIN = re.compile(r"(-?\d[\d,]{0,100}(?:\.\d{1,100})?)(\\?%)?")
"""No exponents: 1e999999999 is a number that takes all memory."""


def row_of(raw: Row) -> Row | str:
    """A row of the hub (problem, answer, subject, level, unique_id) as ours, or why it is left out."""
    if not all(isinstance(raw[name], str) and raw[name].strip() for name in ("problem", "answer")):
        return "its problem or its answer is empty"
    return {
        "prompt": f"{raw['problem'].strip()}\n\n{_ASK}",
        "gold": raw["answer"],
        "kind": f"{raw['subject']}, level {raw['level']}",
    }


def right(answer: str, row: Row) -> bool:
    """Whether the final answer is the gold one, text against text."""
    return normalised(final_answer(answer)) == normalised(row["gold"])


def lenient(answer: str, row: Row) -> bool:
    """The same, where equal numbers are equal however they are written."""
    if right(answer, row):
        return True
    said, gold = _number(normalised(final_answer(answer))), _number(normalised(row["gold"]))
    return said is not None and said == gold


def parsed(answer: str, row: Row) -> bool:  # noqa: ARG001
    """Whether an answer stands in a box."""
    return last_boxed(answer) is not None


def final_answer(text: str) -> str:
    """The part of a text that states its answer."""
    boxed = last_boxed(text)
    if boxed is not None:
        return boxed
    for pattern in (_INLINE, _NUMBER):
        if found := pattern.findall(text):
            return str(found[-1])
    return text


def normalised(answer: str) -> str:
    """An answer as it is compared; a text that is too long for one is left as it is."""
    if len(answer) > MOST_CHARACTERS:
        return answer
    # Before the words are left out: "ft" is one of them.
    text = answer.split("=")[-1].replace("\\left", "").replace("\\right", "")
    for usual, ours in _WRITTEN_OTHERWISE:
        text = text.replace(usual, ours)
    for word in _LEFT_OUT:
        text = text.replace(word, "")
    if inline := _INLINE.search(text):
        text = inline[1]
    text = _WRAPPED.sub(lambda found: found[1] or found[2] or "", text)
    for wide in ("\\dfrac", "\\tfrac"):
        text = text.replace(wide, "\\frac")
    text = _SHORT_FRACTION.sub(r"\1{\2}{\3}", text)
    text = _SHORT_ROOT.sub(r"\1{\2}", text).replace("$", "")
    return text.replace(",", "") if text.replace(",", "").isdigit() else text.strip()


def _number(text: str) -> Fraction | None:
    try:
        if found := _FRACTION.fullmatch(text):
            sign, above, below, plain_above, plain_below = found.groups()
            value = Fraction(int(above or plain_above), int(below or plain_below))
            return -value if sign else value
        if (plain := _PLAIN.fullmatch(text)) is None:
            return None
        value = Fraction(plain[1].replace(",", ""))
        return value / 100 if plain[2] else value
    except (ValueError, ZeroDivisionError):
        return None
