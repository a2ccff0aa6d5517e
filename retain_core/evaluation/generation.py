"""How checkpoints are asked: by transformers in this process, or by a server in an environment of its own.

Part of the settings of an evaluation, so that answers of one backend are never compared with those of another.
"""

from __future__ import annotations

import shlex
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, model_validator


def _command(value: str) -> str:
    try:
        parts = shlex.split(value)
    except ValueError as error:
        raise ValueError(f"{value!r} is no command: {error}") from None
    for place in ("{model}", "{port}"):
        if not any(place in part for part in parts):
            raise ValueError(f"the command names no {place}; such as `vllm serve {{model}} --port {{port}}`")
    return value


Serve = Annotated[str, AfterValidator(_command)]
"""A command that serves a model: `{model}` stands for its folder, `{port}` for where the server listens on this machine."""


class Generation(BaseModel):
    """The backend of generation and log-likelihood in a study's evaluations."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: Literal["transformers", "http"] = Field(
        "transformers", description="http: an OpenAI-compatible server of completions, such as vLLM's"
    )
    serve: Serve | None = Field(
        None, description="http: command that serves a checkpoint, such as `vllm serve {model} --port {port}`"
    )
    concurrent: PositiveInt = Field(16, le=4096, description="http: requests at a time")
    start_seconds: PositiveInt = Field(600, description="http: how long the server may take until it answers")

    @model_validator(mode="after")
    def _served(self) -> Generation:
        if self.backend == "http" and self.serve is None:
            raise ValueError("backend http needs `serve:`, the command that serves a checkpoint")
        usual = {name: one.default for name, one in type(self).model_fields.items() if name != "backend"}
        if self.backend == "transformers" and any(getattr(self, name) != value for name, value in usual.items()):
            raise ValueError("`serve`, `concurrent` and `start_seconds` belong to `backend: http`")
        return self

    def settings(self) -> dict[str, Any]:
        """What the answers depend on; how long one waits is no part of it."""
        if self.backend == "transformers":
            return {"backend": "transformers"}
        return {"backend": "http", "server": self.serve, "concurrent": self.concurrent}


TRANSFORMERS = Generation()
"""How a study is evaluated that says nothing else."""
