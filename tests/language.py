"""Sentence tables for the instruction checks, learned from a text of our own, so that no test needs a network."""

from pathlib import Path

from retain_core.public.language import make_tables

TEXT = (
    "The lake was calm. Nobody spoke for a while. Then the wind rose, and the boats began to move. Was it time to go home? "
    "We thought so. The path was long! It led through a wood, over a hill and past an old mill. There we rested. "
) * 20


def sentence_tables(folder: Path) -> None:
    """Make them below a folder, where this process and those that it starts find them."""
    make_tables(folder, TEXT)
