"""A watch file: which study judges, where new checkpoints turn up, and who is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from retain_core.errors import InputError
from retain_core.hub import is_hub_id
from retain_core.study import Study
from retain_core.study_file import load_study
from retain_core.yaml_text import parse_yaml, read_text

STRICT = ConfigDict(extra="forbid", frozen=True)


class Folder(BaseModel):
    """A folder below which checkpoints are saved."""

    model_config = STRICT

    path: Path = Field(description="every folder below it with config.json and safetensors weights is a checkpoint")
    settle: float = Field(60, ge=0, description="seconds without a change before a checkpoint counts as written")


class Hub(BaseModel):
    """A repository of the hub."""

    model_config = STRICT

    model: str = Field(description="id of the repository, `owner/name`")
    revisions: tuple[str, ...] = Field((), description="branches, tags or commits; none: every branch and tag")

    @model_validator(mode="after")
    def _is_an_id(self) -> Hub:
        if not is_hub_id(self.model):
            raise ValueError(f"{self.model!r} is no id of the hub, which is `owner/name`")
        return self


class Registry(BaseModel):
    """A registered model of MLflow."""

    model_config = STRICT

    model: str = Field(min_length=1, description="name of the registered model")
    alias: str | None = Field(None, description="only the version that has this alias; none: every version")


class Notify(BaseModel):
    """Who is told of a new decision. Addresses are secrets, so this only says where they are kept."""

    model_config = STRICT

    webhook_env: str | None = Field(None, description="environment variable that holds the address of a webhook")
    webhook_secret: str | None = Field(None, description="Prefect Secret block that holds it")
    block: str | None = Field(None, description="Prefect notification block, such as `slack-webhook/alerts`")
    decisions: tuple[str, ...] = Field(("REJECT", "INCONCLUSIVE"), description="the decisions that are told")

    @model_validator(mode="after")
    def _makes_sense(self) -> Notify:
        for name in (self.webhook_env, self.webhook_secret, self.block):
            if name is not None and "://" in name:
                raise ValueError("an address is a secret: name the variable or the block that holds it")
        if self.webhook_env and self.webhook_secret:
            raise ValueError("webhook_env and webhook_secret both say where one address is; give one")
        if self.block is not None and self.block.count("/") != 1:
            raise ValueError(f"a block is named by type and name, such as slack-webhook/alerts, not {self.block!r}")
        if wrong := set(self.decisions) - {"ALLOW", "REJECT", "INCONCLUSIVE"}:
            raise ValueError(f"unknown decision {min(wrong)!r} in `decisions`; known: ALLOW, REJECT, INCONCLUSIVE")
        return self


class Watch(BaseModel):
    """What is watched."""

    model_config = STRICT

    study: Path = Field(description="study file whose base, benchmarks and margin judge")
    margin: float | None = Field(None, gt=0, lt=100, description="points; only where the study declares none")
    folder: Folder | None = None
    hub: Hub | None = None
    registry: Registry | None = None
    notify: Notify = Notify()

    @model_validator(mode="after")
    def _looks_in_one_place(self) -> Watch:
        if sum(place is not None for place in (self.folder, self.hub, self.registry)) != 1:
            raise ValueError("say where to look: one of folder, hub and registry")
        return self

    @property
    def fraction(self) -> float | None:
        """The margin as a fraction."""
        return None if self.margin is None else self.margin / 100

    def load_study(self) -> Study:
        """The study that judges. Raises InputError."""
        return load_study(self.study)


def load_watch(path: str | Path) -> Watch:
    """Read a watch file; its paths are relative to it. Raises InputError, one sentence that names the field."""
    text = read_text(path, "watch file", "name the variable instead")
    _, raw = parse_yaml(path, text, yaml.SafeLoader)
    if not isinstance(raw, dict):
        raise InputError(f"{path}: a watch file is a mapping that begins with `study: <study file>`")
    try:
        watch = Watch.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"{path}: {_sentence(error.errors()[0])}") from None
    here = Path(path).absolute().parent
    folder = watch.folder and watch.folder.model_copy(update={"path": here / watch.folder.path.expanduser()})
    return watch.model_copy(update={"study": here / watch.study, "folder": folder})


def _sentence(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "watch"
    if error["type"] == "extra_forbidden":
        return f"unknown key {where!r}"
    return f"{where}: {str(error['msg']).removeprefix('Value error, ')}"
