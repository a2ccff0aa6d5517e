"""Fetching what a study names on the Hugging Face hub into its ordinary local cache, so that a run needs no network."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retain_core.disk import size_text
from retain_core.errors import InputError, RetainError
from retain_core.hub import is_wanted
from retain_core.own.benchmark import OwnBenchmark
from retain_core.public.catalogue import PUBLIC
from retain_core.public.fetch import fetch
from retain_core.public.folder import folder_of
from retain_core.public.language import fetch_tables
from retain_core.redact import redact
from retain_core.settings import Settings
from retain_core.study import Study
from retain_core.suite.benchmark import SuiteBenchmark

SECONDS = 10.0
"""Longest wait for an answer of the hub."""


@dataclass(frozen=True)
class HubModel:
    """A model of the hub that a study names."""

    what: str
    """`base`, or which method."""
    model: str
    revision: str | None


def hub_models(study: Study) -> list[HubModel]:
    """The models of the hub that a study names."""
    return [HubModel(*one) for one in study.hub_models()]


def prefetch(studies: Sequence[Study], home: Path) -> Iterator[str]:
    """Fetch all that the studies name on the hub; public data go into the home.

    Yields a sentence for each thing, and one in the end.

    Raises InputError for what the hub does not have or retain refuses, RetainError when the hub cannot be reached.
    """
    models = list(dict.fromkeys(model for study in studies for model in hub_models(study)))
    named = [own for study in studies for own in study.own.benchmarks.values()]
    benchmarks = {str(own.yaml.path): own for own in named if isinstance(own, OwnBenchmark) and own.hub_data is not None}
    suite = {own.content: own for own in named if isinstance(own, SuiteBenchmark)}
    public = {folder_of(home, *w): w for study in studies for w in map(study.data.wanted, study.public_names())}
    if not (models or benchmarks or suite or public):
        yield "nothing to fetch: no model and no data set of the hub is named"
        return
    refuse_offline()
    total = 0
    for model in models:
        line, size = _fetch_model(model)
        total += size
        yield line
    for own in benchmarks.values():
        from retain_core.own.benchmark import task_of

        task = task_of(own)
        yield f"data set {own.hub_data}: {len(task.eval_docs):,} items, asked by {own.yaml.path}"
    for general in suite.values():
        from retain_core.suite.benchmark import loaded_revision, make_newest, tasks_of

        tasks = list(tasks_of(general).values())
        for task in tasks:
            make_newest(task)
        count, revision = sum(len(task.eval_docs) for task in tasks), loaded_revision(tasks[0]) or "an unknown revision"
        yield f"data set {general.hub_data}: {revision}, {count:,} items, asked by {general.name} of lm-eval"
    for wanted in public.values():
        yield fetch(home, wanted)
    if any(PUBLIC[wanted.name].family == "ifeval" for wanted in public.values()):
        yield fetch_tables()
    yield f"everything is here ({size_text(total)} of models): the study runs without a network from now on"


def refuse_offline() -> None:
    """Raises InputError where the hub must not be asked."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise InputError("HF_HUB_OFFLINE is set, so nothing can be fetched; unset it for this command")


def model_info(model: HubModel) -> Any:
    """What the hub says of a model. Raises InputError or RetainError."""
    from huggingface_hub import HfApi

    with _told(model):
        return HfApi().model_info(model.model, revision=model.revision or "main", files_metadata=True, timeout=SECONDS)


def _fetch_model(model: HubModel) -> tuple[str, int]:
    """Fetch one model. Returns a sentence about it, and its bytes."""
    from huggingface_hub import snapshot_download

    revision, info = model.revision or "main", model_info(model)
    with _told(model):
        files = {one.rfilename: one.size or 0 for one in info.siblings or [] if is_wanted(one.rfilename)}
        if not any(name.endswith(".safetensors") for name in files):
            raise InputError(
                f"{model.what}: {model.model} has no .safetensors weights; other formats can run code and are refused"
            )
        folder = snapshot_download(
            model.model, revision=revision, allow_patterns=list(files), etag_timeout=SECONDS, max_workers=4
        )
    size = sum(files.values())
    return f"{model.what} {model.model}: {revision} is {info.sha}, {len(files)} files, {size_text(size)}, in {folder}", size


@contextmanager
def _told(model: HubModel) -> Iterator[None]:
    """What the hub's client raises about a model, as one sentence: InputError, or RetainError where it cannot be reached."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    revision = model.revision or "main"
    try:
        yield
    except GatedRepoError:
        raise InputError(f"{model.what}: {model.model} is gated; accept its terms on the hub and set HF_TOKEN") from None
    except RevisionNotFoundError:
        raise InputError(f"{model.what}: {model.model} has no revision {revision!r}") from None
    except RepositoryNotFoundError:
        raise InputError(f"{model.what}: the hub has no model {model.model!r}, or HF_TOKEN may not see it") from None
    except (InputError, RetainError):
        raise
    except Exception as error:
        said = redact(str(error)).strip().splitlines()[:1] or [type(error).__name__]
        raise RetainError(f"{model.what}: {model.model} cannot be fetched: {said[0][:200]}") from None


def ask_experts(
    studies: Sequence[Study], config: Settings, expert: tuple[str, str] | None, in_style: str | None
) -> Iterator[str]:
    """Have a stronger model, (address, name), answer the training problems of the studies' public targets, then the base.

    `in_style` is the address of a server with the base, or `here`. Yields a sentence for each target and style.
    """
    from retain_core.plan import base_reference
    from retain_core.public.experts import ask_expert, ask_in_style, here, served
    from retain_core.public.server import Server

    folders = [(folder_of(config.home, *study.data.wanted(study.target)), study) for study in studies]
    targets = dict(folders)
    bases = {(folder, study.base_name()): study for folder, study in folders}
    if expert:
        for study in targets.values():
            yield from ask_expert(config.home, study, served(Server(*expert, config.expert_key)))
    if in_style:
        for study in bases.values():
            if study.base.lab() is not None:
                raise InputError(f"{study.study}: a base of the lab has no words for {study.target}")
            local = here(study, Path(base_reference(study).model)) if in_style == "here" else None
            yield from ask_in_style(config.home, study, local or served(Server(in_style, study.base.model, config.expert_key)))
