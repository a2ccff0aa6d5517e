"""Finding checkpoints: in a folder, in a repository of the hub, in MLflow's registry.

Owns `RETAIN_HOME/registry/<name>/<version>/`: files of registered models that a server had to be asked for.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from retain_core.errors import InputError, RetainError
from retain_core.gate.watch_file import Folder, Hub, Registry, Watch
from retain_core.hub import is_wanted
from retain_core.redact import redact
from retain_core.settings import Settings

INDEX = "model.safetensors.index.json"
SECONDS = 10.0
"""Longest wait for an answer of the hub."""


@dataclass(frozen=True)
class Found:
    """A checkpoint: what it is called, and the folder that holds its files."""

    name: str
    folder: Path


def find(watch: Watch, config: Settings) -> list[Found]:
    """The checkpoints that are there now and completely written.

    Raises InputError for a place that is not there, RetainError for one that does not answer.
    """
    if watch.folder is not None:
        return in_folder(watch.folder, time.time())
    if watch.hub is not None:
        return in_hub(watch.hub)
    assert watch.registry is not None
    return in_registry(watch.registry, config)


def in_folder(folder: Folder, now: float) -> list[Found]:
    """Folders below a folder that hold a whole checkpoint, the oldest first; `now` in seconds since the epoch."""
    if not folder.path.is_dir():
        raise InputError(f"folder.path: there is no folder {folder.path}")
    whole = []
    for config in folder.path.rglob("config.json"):
        place = config.parent.relative_to(folder.path)
        if any(part.startswith((".", "tmp")) for part in place.parts) or not is_whole(config.parent):
            continue
        changed = max(path.stat().st_mtime for path in config.parent.iterdir())
        if now - changed >= folder.settle:
            name = place.as_posix() if place.parts else folder.path.name
            whole.append((changed, Found(name, config.parent)))
    return [one for _, one in sorted(whole, key=lambda pair: (pair[0], pair[1].name))]


def is_whole(folder: Path) -> bool:
    """Whether a folder holds config.json and all its safetensors: every shard that its index names, none of unnamed shards."""
    weights = {path.name for path in folder.glob("*.safetensors")}
    if not weights or not (folder / "config.json").is_file():
        return False
    if not (folder / INDEX).is_file():
        return not any("-of-" in name for name in weights)
    try:
        wanted = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False
    return bool(wanted) and wanted <= weights


def in_hub(hub: Hub) -> list[Found]:
    """The revisions of a repository, fetched into the hub's ordinary cache; one commit under two names is one checkpoint."""
    from huggingface_hub import HfApi, snapshot_download

    api, found = HfApi(), {}
    try:
        refs = api.list_repo_refs(hub.model) if not hub.revisions else None
        names = hub.revisions or tuple(ref.name for ref in [*refs.branches, *refs.tags])  # type: ignore[union-attr]
        for name in names:
            info = api.model_info(hub.model, revision=name, timeout=SECONDS)
            files = [one.rfilename for one in info.siblings or [] if is_wanted(one.rfilename)]
            whole = "config.json" in files and any(file.endswith(".safetensors") for file in files)
            if info.sha in found or not whole:
                continue
            folder = snapshot_download(hub.model, revision=info.sha, allow_patterns=files, etag_timeout=SECONDS, max_workers=4)
            found[info.sha] = Found(f"{hub.model}@{name}", Path(folder))
    except Exception as error:
        raise RetainError(f"hub: {hub.model} cannot be looked at: {_first_line(error)}") from None
    return list(found.values())


def in_registry(registry: Registry, config: Settings) -> list[Found]:
    """The versions of a registered model, the oldest first. Only files are taken; nothing is loaded through MLflow."""
    from retain_core.tracking.runs import settle

    settle()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri=config.mlflow_tracking_uri, registry_uri=config.mlflow_tracking_uri)
    try:
        client.get_registered_model(registry.model)
        if registry.alias is not None:
            numbers = [int(client.get_model_version_by_alias(registry.model, registry.alias).version)]
        else:
            quoted = registry.model.replace("'", "\\'")
            numbers = sorted(int(one.version) for one in client.search_model_versions(f"name='{quoted}'"))
        return [one for number in numbers for one in _version(client, registry.model, number, config)]
    except MlflowException as error:
        raise InputError(f"registry: {registry.model} cannot be read from MLflow: {_first_line(error)}") from None


def _version(client: object, model: str, number: int, config: Settings) -> Iterator[Found]:
    from mlflow.artifacts import download_artifacts

    source = client.get_model_version_download_uri(model, str(number))  # type: ignore[attr-defined]
    root = Path(source.removeprefix("file://"))
    if not root.is_absolute() or not root.is_dir():
        root = config.home.absolute() / "registry" / uuid.uuid5(uuid.NAMESPACE_URL, f"{model}/{source}").hex / str(number)
        if not root.is_dir():
            draft = root.with_name(f".{number}-{uuid.uuid4().hex[:12]}")
            draft.mkdir(parents=True)
            download_artifacts(artifact_uri=source, dst_path=str(draft), tracking_uri=config.mlflow_tracking_uri)
            draft.rename(root)
    # A model that MLflow saved has its weights in a sub-folder.
    whole = sorted(path.parent for path in root.rglob("config.json") if is_whole(path.parent))
    if len(whole) == 1:
        yield Found(f"{model}/{number}", whole[0])


def _first_line(error: Exception) -> str:
    return (redact(str(error)).strip().splitlines() or [type(error).__name__])[0][:200]
