"""What a study says of the server that samples for its trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt

from retain_core.redact import public_address


def _address(value: str) -> str:
    plain = public_address(value)
    if plain is None or plain.rstrip("/") != value.rstrip("/"):
        raise ValueError("the server is an address without user, password and query, such as http://127.0.0.1:8000")
    return value.rstrip("/").removesuffix("/v1")


def _absolute(value: str) -> str:
    if not Path(value).is_absolute():
        raise ValueError(f"{value!r} is no absolute path, and the server may work in another folder")
    return value


class RolloutServer(BaseModel):
    """A server that holds the policy of one training at a time and samples from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    server: Annotated[str, AfterValidator(_address)] = Field(
        description="address of a vLLM server in development mode, such as http://127.0.0.1:8000"
    )
    weights: Annotated[str, AfterValidator(_absolute)] | None = Field(
        None, description="folder that trainer and server both see, such as /dev/shm: weights pass through it; null: the home"
    )
    concurrent: PositiveInt = Field(64, le=4096, description="requests at a time")
