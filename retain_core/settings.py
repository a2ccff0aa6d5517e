"""Where things lie: the RETAIN_* settings. Nothing else in retain takes its orders from the environment."""

from __future__ import annotations

import shlex
from functools import lru_cache
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from retain_core.redact import public_address

RESUME_SECONDS = 10.0


class Settings(BaseSettings):
    """Locations of a home; each can be set with an environment variable of the name given."""

    model_config = SettingsConfigDict(env_prefix="RETAIN_", extra="ignore", populate_by_name=True, env_ignore_empty=True)

    home: Path = Field(Path("results"), description="RETAIN_HOME: the folder that everything lies under")
    mlflow_uri: str | None = Field(None, description="RETAIN_MLFLOW_URI: an MLflow server; default sqlite in the home")
    artifacts_at: str | None = Field(
        None, validation_alias="RETAIN_ARTIFACTS",
        description="RETAIN_ARTIFACTS: where the results of several machines lie, a shared folder or s3://bucket/prefix; "
        "default artifacts/ in the home",
    )  # fmt: skip
    snapshot: str | None = Field(
        None,
        description="RETAIN_SNAPSHOT: a folder or s3://bucket/prefix for the copy that readers open; default none",
    )
    alert_url: SecretStr | None = Field(
        None, description="RETAIN_ALERT_URL: a webhook that is told of every deployment's run that fails; default none"
    )
    alert_block: str | None = Field(
        None, description="RETAIN_ALERT_BLOCK: a Prefect notification block that is told, such as slack-webhook/alerts"
    )
    expert_key: SecretStr | None = Field(
        None, description="RETAIN_EXPERT_KEY: the key of the server that `retain prefetch --experts` asks; default none"
    )
    prefect_api_wait: int = Field(
        120, ge=1, description="RETAIN_PREFECT_API_WAIT: seconds to wait for Prefect's own temporary server to start"
    )
    arms_per_device: int = Field(
        1, ge=1,
        description="RETAIN_ARMS_PER_DEVICE: how many arms share an accelerator of this machine; more than 1 pays where models "
        "are so small that the accelerator waits for the processor",
    )  # fmt: skip
    resume_seconds: float = Field(
        RESUME_SECONDS, ge=0,
        description="RETAIN_RESUME_SECONDS: how often a training writes down what it needs to go on after a kill; "
        "0 is after every update",
    )  # fmt: skip

    @property
    def artifacts(self) -> Path:
        """The folder of the content-addressed results: the truth, or this machine's copies of an object store's."""
        shared = Path(self.artifacts_at).absolute() if self.artifacts_at and not self.remote_artifacts else None
        return shared or self.home.absolute() / "artifacts"

    @property
    def remote_artifacts(self) -> str | None:
        """The object store that the results lie on, None where they lie in a folder."""
        return self.artifacts_at if self.artifacts_at and "://" in self.artifacts_at else None

    @property
    def warehouse(self) -> Path:
        """The DuckDB file, an index that can be rebuilt."""
        return self.home.absolute() / "warehouse.duckdb"

    @property
    def reports(self) -> Path:
        """One folder a study, index.html in each."""
        return self.home.absolute() / "reports"

    @property
    def mlflow_tracking_uri(self) -> str:
        """The MLflow server, or the home's own SQLite file."""
        return self.mlflow_uri or f"sqlite:///{self.home.absolute() / 'mlflow.db'}"

    @property
    def mlflow_place(self) -> str:
        """Where to look at it: an address without the password that it may hold, or the command that opens the home's own."""
        if self.mlflow_uri:
            return public_address(self.mlflow_uri) or "the store that RETAIN_MLFLOW_URI names"
        return f"mlflow ui --backend-store-uri {shlex.quote(self.mlflow_tracking_uri)}"

    @property
    def mlflow_artifacts(self) -> Path:
        """Where the home's own MLflow keeps its files."""
        return self.home.absolute() / "mlartifacts"


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
