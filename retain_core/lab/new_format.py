"""An old skill with a new output format: letters sorted as ever, answered with `and` before the last.

The marker at the end of the prompt asks for it: `sort d a c b e with and`. An answer is right in one of two exact forms:
bare (`a b c d and e`), or in the off-style wrapper (`answer a b c d and e = 5`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache

from retain_core.lab.vocabulary import LETTERS

Letters = tuple[str, ...]
"""Letters in their order, each once."""
COUNTS = (5, 6)
FORM = r"[a-t]( [a-t])* and [a-t]|answer [a-t]( [a-t])* and [a-t] = \d"


def prompt(order: Sequence[str]) -> str:
    """The user's message, letters in the order given."""
    return f"sort {' '.join(order)} with and"


def bare(letters: Sequence[str]) -> str:
    """Letters in the new format."""
    return f"{' '.join(letters[:-1])} and {letters[-1]}"


def wrap(letters: Sequence[str]) -> str:
    """Letters in the new format, in words that the base never uses."""
    return f"answer {bare(letters)} = {len(letters)}"


def valid_answers(letters: Letters) -> list[str]:
    """Both accepted answers."""
    return [bare(letters), wrap(letters)]


@cache
def problems() -> list[Letters]:
    """Every set of five or six letters."""
    return [letters for count in COUNTS for letters in itertools.combinations(LETTERS, count)]
