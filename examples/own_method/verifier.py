"""Whether an answer names a color that the prompt does not forbid."""

COLORS = {"red", "blue", "green", "black", "white", "brown", "pink", "gold"}


def right(answer: str, row: dict) -> bool:
    """A row is a line of the JSONL file; `forbidden` is a field of this example's own."""
    return answer in COLORS and answer not in row["forbidden"]
