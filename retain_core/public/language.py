"""The language data that instruction checks need: nltk's sentence tables and langdetect. Checked before anything is run.

lm-eval's checks fetch the tables themselves when they are imported, so they are imported only once the tables are there.
"""

from __future__ import annotations

import importlib.util
import io
import os
from pathlib import Path

from retain_core.errors import InputError, RetainError

TABLES = "punkt_tab"
"""nltk's name for them."""
PACKAGES = ("langdetect", "immutabledict", "nltk")


def check_language() -> None:
    """Raises InputError with one sentence where a package or the sentence tables are missing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"rlvr_ifeval needs {', '.join(missing)}, not installed here; `pip install 'lm-eval[ifeval]'`")
    if not has_tables():
        raise InputError(
            f"rlvr_ifeval needs nltk's sentence tables ({TABLES}), which are not there; "
            "fetch them with `retain prefetch STUDY.yaml`"
        )


def has_tables() -> bool:
    """Whether nltk finds its English sentence tables."""
    import nltk

    try:
        nltk.data.find(f"tokenizers/{TABLES}/english/")
    except LookupError:
        return False
    return True


def fetch_tables() -> str:
    """Fetch nltk's sentence tables, unless they are there. Returns a sentence; raises RetainError."""
    import nltk

    if has_tables():
        return f"nltk's sentence tables ({TABLES}) are here"
    # nltk says what went wrong in lines of its own.
    if not nltk.download(TABLES, quiet=True, print_error_to=io.StringIO()) or not has_tables():
        raise RetainError(
            f"nltk's sentence tables ({TABLES}) cannot be fetched; where the network is closed, put them below a folder that "
            f"NLTK_DATA names, as tokenizers/{TABLES}/english"
        )
    return f"nltk's sentence tables ({TABLES}) are fetched"


def make_tables(folder: Path, text: str) -> None:
    """Learn sentence tables from a text and put them below a folder where nltk looks: for rehearsals without a network.

    They are nltk's own learner's and of the same format, but of a small text: what they count differs from the real ones.
    """
    import nltk
    from nltk.tokenize.punkt import PunktTrainer, save_punkt_params

    target = folder / "tokenizers" / TABLES / "english"
    if str(folder) not in nltk.data.path:
        nltk.data.path.insert(0, str(folder))
        # For the processes that are started from now on.
        os.environ["NLTK_DATA"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("NLTK_DATA")]))
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    save_punkt_params(PunktTrainer(text).get_params(), str(target))
