"""Raw rows of a public data set from the hub, through `datasets` and its ordinary cache."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from retain_core.errors import InputError, RetainError
from retain_core.own.files import Row
from retain_core.public.catalogue import PUBLIC, PublicData
from retain_core.public.convert import PublicSizes
from retain_core.public.folder import counts_lines, folder_of, is_there, read_counts, write_public
from retain_core.redact import redact

SECONDS = 10.0
"""Longest wait for the hub to say what a revision is."""


class Wanted(NamedTuple):
    """A public data set as a study asks for it."""

    name: str
    revision: str | None
    sizes: PublicSizes | None


def fetch(home: Path, wanted: Wanted) -> str:
    """Fetch, convert and keep a public data set that is not there yet. Returns a sentence about it.

    Raises InputError for what the hub does not have, or rows that are not as they were; RetainError when it does not answer.
    """
    folder = folder_of(home, *wanted)
    if is_there(folder):
        return f"{counts_lines(read_counts(folder))[0]}; it was here, in {folder}"
    data = PUBLIC[wanted.name]
    commit = commit_of(data, wanted.revision)
    written = write_public(home, wanted.name, {data.split: _rows(data, commit)}, wanted.revision, wanted.sizes, commit)
    return f"{counts_lines(read_counts(written))[0]}; in {written}"


def commit_of(data: PublicData, revision: str | None) -> str:
    """The commit that a revision of a data set is now. Raises InputError or RetainError."""
    return commit_of_id(data.name, data.hub, revision)


def commit_of_id(name: str, hub: str, revision: str | None) -> str:
    """The same of any data set: `name` is what the study calls it. Raises InputError or RetainError."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return str(HfApi().dataset_info(hub, revision=revision or "main", timeout=SECONDS).sha)
    except GatedRepoError:
        raise _gated(name, hub) from None
    except RevisionNotFoundError:
        raise InputError(f"{name}: {hub} has no revision {revision!r}") from None
    except RepositoryNotFoundError:
        raise InputError(f"{name}: the hub has no data set {hub!r}, or HF_TOKEN may not see it") from None
    except Exception as error:
        raise _unfetched(name, hub, error) from None


def _rows(data: PublicData, commit: str) -> list[Row]:
    from datasets import disable_progress_bars, load_dataset
    from datasets.exceptions import DatasetNotFoundError

    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        found = load_dataset(data.hub, data.config, split=data.split, revision=commit, **data.loading)
        return list(found.to_list())
    except DatasetNotFoundError as error:
        if "gated" in str(error):
            raise _gated(data.name, data.hub) from None
        raise _unfetched(data.name, data.hub, error) from None
    except ValueError as error:
        # What `datasets` raises for a configuration or a split that there is not.
        raise InputError(f"{data.name}: {data.hub} is not as it was: {_first_line(error)}") from None
    except Exception as error:
        raise _unfetched(data.name, data.hub, error) from None


def _gated(name: str, hub: str) -> InputError:
    return InputError(f"{name}: {hub} is gated; accept its terms on the hub and set HF_TOKEN")


def _unfetched(name: str, hub: str, error: Exception) -> RetainError:
    return RetainError(f"{name}: {hub} cannot be fetched: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    said = redact(str(error)).strip().splitlines()[:1] or [type(error).__name__]
    return said[0][:200]
