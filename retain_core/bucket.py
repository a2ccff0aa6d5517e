"""A folder of an object store: a few operations with conditions, each in plain words when the server refuses.

Speaks S3 through s3fs. Address, credentials and region come from botocore's settings (`AWS_ENDPOINT_URL`, `AWS_PROFILE`, ...).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retain_core.errors import InputError, RetainError

if TYPE_CHECKING:
    from s3fs import S3FileSystem

_CONFLICTS = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


@dataclass(frozen=True)
class Stored:
    """An object's bytes, and the tag that changes with them."""

    content: bytes
    etag: str


@dataclass(frozen=True)
class Entry:
    """What a listing says of an object."""

    name: str
    size: int
    age: float
    """Seconds since it was written."""


class Bucket:
    """The objects below a prefix."""

    def __init__(self, url: str) -> None:
        """`url` is s3://bucket/prefix. Raises InputError for another, and where s3fs is not installed."""
        self.url = url.rstrip("/")
        scheme, _, path = self.url.partition("://")
        if scheme != "s3" or not path:
            raise InputError(f"RETAIN_ARTIFACTS is {url}: it may be a folder or s3://bucket/prefix")
        self._bucket, _, self._prefix = path.partition("/")
        self._s3 = _filesystem()

    def below(self, prefix: str) -> Bucket:
        """The objects below a longer prefix."""
        return Bucket(f"{self.url}/{prefix}")

    def read(self, name: str) -> Stored | None:
        """An object, or None where there is none."""
        from fsspec.asyn import sync

        async def get() -> Stored:
            found = await self._s3._call_s3("get_object", Bucket=self._bucket, Key=self._key(name))
            async with found["Body"] as body:
                return Stored(await body.read(), found["ETag"])

        with self._told():
            try:
                found: Stored = sync(self._s3.loop, get)
                return found
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes, *, etag: str | None) -> str | None:
        """Replace the object that has this tag; None makes one where there is none. Returns its tag, None when refused."""
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        with self._told():
            try:
                made = self._s3.call_s3("put_object", Bucket=self._bucket, Key=self._key(name), Body=content, **condition)
            except OSError as error:
                if _code(error) in _CONFLICTS or (etag is not None and isinstance(error, FileNotFoundError)):
                    return None
                raise
            return str(made["ETag"])

    def upload(self, file: Path, name: str) -> None:
        """Write a file, whatever was there."""
        with self._told():
            self._s3.put_file(str(file), self._path(name))

    def download(self, name: str, file: Path) -> bool:
        """Write an object to a file. False where there is none."""
        with self._told():
            try:
                self._s3.get_file(self._path(name), str(file))
            except FileNotFoundError:
                return False
            return True

    def copy(self, name: str, to: str) -> None:
        """Copy an object on the server; nothing where there is none."""
        with self._told(), contextlib.suppress(FileNotFoundError):
            self._s3.cp_file(self._path(name), self._path(to))

    def remove(self, name: str) -> None:
        """Remove an object, or all below a prefix; nothing where there is none."""
        with self._told(), contextlib.suppress(FileNotFoundError):
            self._s3.rm(self._path(name), recursive=True)

    def names(self, folder: str) -> list[str]:
        """Names right below a prefix, of objects and of longer prefixes, sorted."""
        return sorted(entry.name for entry in self.entries(folder))

    def entries(self, folder: str) -> list[Entry]:
        """What lies right below a prefix."""
        with self._told():
            try:
                found = self._s3.ls(self._path(folder), detail=True, refresh=True)
            except FileNotFoundError:
                return []
        return [_entry(one) for one in found if one["name"].rstrip("/") != self._path(folder).rstrip("/")]

    def check(self) -> None:
        """Raises RetainError when the server does not answer or has no such bucket."""
        with self._told():
            self._s3.call_s3("list_objects_v2", Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _path(self, name: str) -> str:
        return f"{self._bucket}/{self._key(name)}"

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError

        try:
            yield
        except (OSError, BotoCoreError) as error:
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RetainError(f"the artifacts at {self.url} cannot be reached: {why}") from error


def _filesystem() -> S3FileSystem:
    try:
        from s3fs import S3FileSystem
    except ImportError:
        raise InputError("RETAIN_ARTIFACTS names an object store, which needs: pip install 'retain[s3]'") from None
    patience = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 4, "mode": "standard"}}
    return S3FileSystem(use_listings_cache=False, config_kwargs=patience)


def _code(error: BaseException) -> str:
    """S3's own code of an error, which s3fs translated."""
    if isinstance(error, FileExistsError):
        return "PreconditionFailed"
    response: dict[str, Any] = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _entry(listed: dict[str, Any]) -> Entry:
    written = listed.get("LastModified")
    age = time.time() - written.timestamp() if written else 0.0
    return Entry(listed["name"].rstrip("/").rpartition("/")[2], int(listed.get("size") or 0), age)
