"""nltk's sentence tables, made from a few sentences of our own where the machine has none; checks of instructions need them."""

from __future__ import annotations

import os
from pathlib import Path

TABLES = "tokenizers/punkt_tab/english"
_TEXT = "We went to the river and saw a heron. It flew away. Dr. Quill saw it, too, at 5 p.m. Was it quiet? It was! " * 20


def make_tables(folder: Path) -> bool:
    """Have nltk find sentence tables below a folder, here and in processes that are started. False where it has its own."""
    import nltk
    from nltk.tokenize.punkt import PunktTrainer, save_punkt_params

    try:
        nltk.data.find(f"{TABLES}/")
    except LookupError:
        pass
    else:
        return False
    trainer = PunktTrainer()
    trainer.train(_TEXT, finalize=True)
    place = folder / TABLES
    place.mkdir(parents=True, exist_ok=True)
    nltk.data.path.append(str(folder))  # nltk writes below its own folders only
    save_punkt_params(trainer.get_params(), dir=str(place))
    os.environ["NLTK_DATA"] = os.pathsep.join([*filter(None, [os.environ.get("NLTK_DATA")]), str(folder)])
    return True
