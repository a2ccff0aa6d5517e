"""The local cache of the Hugging Face hub: where a run finds models that a study names by their id. No network is used.

The cache is the ordinary one (`HF_HOME`); nothing of the hub is kept in the home. `retain_core.prefetch` fills it.
"""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

WANTED = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.tiktoken")
"""The files of a model that are fetched, of its top folder only: no pickles and no code."""
UNWANTED = ("*/*", "consolidated*")
"""Sub-folders, and a second copy of the weights in a format of their maker."""
LONGEST = 96
"""Characters of an id, as the hub allows them."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(model: str) -> bool:
    """Whether a name is that of a model of the hub: `owner/name`, and no folder here."""
    return len(model) <= LONGEST and HUB_ID.fullmatch(model) is not None and not Path(model).exists()


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a whole commit hash, which means the same for ever."""
    return revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def cached(model: str, revision: str | None) -> Path | None:
    """The folder of a hub model in the local cache; None where it is not there. The network is not used."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def is_wanted(name: str) -> bool:
    """Whether a file is one of those that make a model."""
    return any(fnmatch(name, pattern) for pattern in WANTED) and not any(fnmatch(name, pattern) for pattern in UNWANTED)
