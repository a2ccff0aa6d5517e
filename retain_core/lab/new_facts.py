"""Facts of entities that the base never met: a target with an open answer space of 64.

A new entity is named by three letters, a fact is a color and a material. Nothing the base learned says which, so a
guesser is right once in 64, and only the expert's answers can teach it. An answer is right in one of two exact forms:
the bare fact (`the color is red the material is iron`), or the fact in the off-style wrapper
(`answer the color is red the material is iron =`).
"""

from __future__ import annotations

from retain_core.lab.vocabulary import COLORS, MATERIALS

Fact = tuple[str, str]
"""Color and material."""

_OPENINGS = (
    "what is the {both} of {entity} ?",
    "tell me the {both} of {entity}",
    "which {both} has {entity} ?",
    "find the {both} of {entity}",
    "can you tell me the {both} of {entity} ?",
    "please find the {both} of {entity}",
    "can you find the {both} of {entity} ?",
    "please tell me the {both} of {entity}",
)
PHRASINGS = tuple(o.replace("{both}", both) for both in ("color and material", "material and color") for o in _OPENINGS)
TRAINED_PHRASINGS = 2
"""In how many of its phrasings a new entity is asked about in training; the others are held out."""
_FACT = rf"the color is ({'|'.join(COLORS)}) the material is ({'|'.join(MATERIALS)})"
FORM = rf"{_FACT}|answer {_FACT} ="


def bare(fact: Fact) -> str:
    """A fact as the base would write it."""
    return "the color is {} the material is {}".format(*fact)


def wrap(fact: Fact) -> str:
    """A fact in words that the base never uses."""
    return f"answer {bare(fact)} ="


def valid_answers(fact: Fact) -> list[str]:
    """Both accepted answers about an entity."""
    return [bare(fact), wrap(fact)]
