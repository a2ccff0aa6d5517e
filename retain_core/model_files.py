"""Models that were not trained here: where their files lie, what they are told apart by, and which are refused."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

from retain_core.canonical import digest
from retain_core.errors import InputError
from retain_core.hub import cached, is_hub_id, is_wanted


def model_fingerprint(folder: Path) -> str:
    """SHA-256 over the names and bytes of a model folder: the identity of weights nobody trained here.

    In the cache of the hub other programs put more files of the model beside; only those that make it count there.
    """
    seal, shared = hashlib.sha256(), folder.parent.name == "snapshots"
    for path in sorted(p for p in folder.iterdir() if p.is_file() and (not shared or is_wanted(p.name))):
        seal.update(path.name.encode() + b"\0")
        with path.open("rb") as stream:
            seal.update(hashlib.file_digest(stream, "sha256").digest())
    return seal.hexdigest()[:32]


def template_hash(folder: Path) -> str:
    """Hash of the chat template that a model folder brings; of the empty text when it brings none."""
    single, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    text = ""
    if single.is_file():
        text = _text(single)
    elif config.is_file():
        text = _json("model", config).get("chat_template") or ""
    return digest(text, 16)


def model_folder(what: str, model: str, revision: str | None) -> Path:
    """The folder of a model by its path or hub id; `what` begins the sentence of an error. Raises InputError."""
    folder = Path(model)
    if is_hub_id(model):
        found = cached(model, revision)
        if found is None:
            raise InputError(
                f"{what}: no model at {model!r}, and none of that id in the local cache of the hub; "
                "fetch it with `retain prefetch STUDY.yaml`, which needs a network once"
            )
        folder = found
    if not os.path.isfile(folder / "config.json"):
        raise InputError(
            f"{what}: no model at {model!r}: give a folder that holds config.json and safetensors weights "
            "or the id of a model of the hub"
        )
    _refuse_code(what, folder)
    return folder.absolute()


def _refuse_code(what: str, folder: Path) -> None:
    """Refuse a model folder that could only be read by running code: weights that are pickles, or Python files of its own.

    Raises InputError.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    parts: list[str] = [single.name] if single.is_file() else []
    if not parts and index.is_file():
        weights = _json(what, index).get("weight_map")
        parts = [str(part) for part in weights.values()] if isinstance(weights, dict) else []
    if not parts:
        raise InputError(
            f"{what}: {str(folder)!r} holds no .safetensors weights (model.safetensors, or its index); "
            "other formats can run code and are refused"
        )
    for part in parts:
        if Path(part).name != part or not part.endswith(".safetensors"):
            raise InputError(f"{what}: {index} names {part!r}, which is no safetensors file beside it")
        if not (folder / part).is_file():
            raise InputError(f"{what}: {folder} lacks {part}; fetch the model again")
    config = _json(what, folder / "config.json")
    kind = str(config.get("model_type", ""))
    if "auto_map" in config and not _known_to_transformers(kind):
        raise InputError(
            f"{what}: {str(folder)!r} needs code of its own (`auto_map`; transformers knows no model type {kind!r}), "
            "and retain never runs the code of a model"
        )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from None


def _json(what: str, path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{what}: cannot read {path}: {str(error).splitlines()[0]}") from None
    if not isinstance(body, dict):
        raise InputError(f"{what}: {path} holds no JSON object")
    return body


def _known_to_transformers(model_type: str) -> bool:
    """Whether transformers has code for a model type; asked of its folders, because importing it is slow."""
    if not model_type.replace("-", "_").isidentifier():
        return False
    spec = importlib.util.find_spec("transformers")
    folders = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    return any((Path(folder) / "models" / model_type.replace("-", "_") / "__init__.py").is_file() for folder in folders)
