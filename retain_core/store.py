"""The artifact store: content-addressed folders that exist only when complete.

This module owns the layout below `RETAIN_HOME/artifacts`:

    <kind>/<key>/manifest.json     written last; its presence means that the artifact is complete
    <kind>/<key>/<files>           each with its SHA-256 and size in the manifest
    .drafts/<kind>-<key>-<unique>/ being written; removed when its writer ends, or by the next run
    .quarantine/<kind>-<key>-<unique>/  found damaged, set aside
    .leases/<name>.json            who is at work (`retain_core.lease`)
    .resume/<kind>-<key>/          what a training needs to go on after a kill (`retain_core.training.resume`)

The key is the hash of the canonical inputs of what made the artifact, so an artifact that is
present and verified is the work done. A draft is published by one atomic rename, and only while its writer still holds
the lease that it works under.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from retain_core.canonical import canonical_json, digest
from retain_core.errors import FULL, InputError, RetainError, disk_is_full
from retain_core.lease import Held, hold, living, stillness

MANIFEST = "manifest.json"
SOON = 2.0
"""Seconds that a process waits for the home before it says that it waits."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Artifact:
    """A complete, verified artifact."""

    kind: str
    key: str
    path: Path
    inputs: dict[str, Any]
    meta: dict[str, Any]
    created_at: str
    seal: str

    def file(self, name: str) -> Path:
        """The path of one of its files."""
        return self.path / name


@dataclass
class Draft:
    """An artifact being written: put files below `path` and small facts into `meta`."""

    path: Path
    meta: dict[str, Any] = field(default_factory=dict)


class Store:
    """The artifacts of one home."""

    def __init__(self, root: Path, read_only: bool = False, lease: Held | None = None) -> None:
        """`lease` is what its publications need; `leased` takes one."""
        self.root, self._read_only = root, read_only
        self._lease: Held | None = lease
        self.damaged: list[str] = []
        """What was found damaged and set aside, one sentence each, since this object was made."""

    def prepare(self) -> None:
        """Create the folders. Raises InputError when the home cannot be written."""
        try:
            for name in (".drafts", ".leases", ".quarantine"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            probe = self.root / ".drafts" / f"probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise InputError(
                f"cannot write to the home {self.root.parent}: {error.strerror}; "
                "choose another folder with RETAIN_HOME or mend its permissions"
            ) from None

    @property
    def address(self) -> str:
        """What `retain_core.remote.store_at` opens the same store from, in another process of this machine."""
        return str(self.root)

    def path(self, kind: str, key: str) -> Path:
        """Where an artifact lies, whether it exists or not."""
        return self.root / kind / key

    def find(self, kind: str, key: str) -> Artifact | None:
        """The artifact when it is complete and every byte is as written; a damaged one is set aside."""
        folder = self.path(kind, key)
        if not folder.is_dir():
            return None
        problem, body = check(folder)
        if body is None:
            self._quarantine(kind, key, problem)
            return None
        return Artifact(kind, key, folder, body["inputs"], body["meta"], body["created_at"], body["seal"])

    def get(self, kind: str, key: str) -> Artifact:
        """Like `find`, but the artifact must exist."""
        found = self.find(kind, key)
        if found is None:
            raise RetainError(f"artifact {kind}/{key} is missing below {self.root}; run the study again to recompute it")
        return found

    def keys(self, kind: str) -> list[str]:
        """Keys of all artifacts of a kind, complete or not, sorted."""
        folder = self.root / kind
        return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []

    @contextlib.contextmanager
    def leased(self, name: str) -> Iterator[None]:
        """Be the only one at work on something while the block runs; wait while another process is.

        What is published meanwhile is refused with LeaseLostError once another process has taken the work over.
        """
        outer = self._lease
        with hold(self.root / ".leases", name) as self._lease:
            try:
                yield
            finally:
                self._lease = outer

    def living(self) -> set[str]:
        """Names of the leases that a living process holds, on whatever machine."""
        return living(self.root / ".leases")

    def unfinished(self, kind: str, key: str) -> Store:
        """A store for what the making of an artifact leaves on its way, under the same lease."""
        return Store(self.root / ".resume" / f"{kind}-{key}", lease=self._lease)

    def forget(self, kind: str, key: str) -> None:
        """Remove an artifact that is not needed any more."""
        folder, away = self.path(kind, key), self.root / ".drafts" / f"old-{uuid.uuid4().hex}"
        away.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            folder.rename(away)
        shutil.rmtree(away, ignore_errors=True)

    def remove(self) -> None:
        """Remove everything that is in this store."""
        shutil.rmtree(self.root)

    def note(self, folder: str, name: str) -> Path:
        """Where a text lies that is kept beside the artifacts, whether it exists or not."""
        return self.root / folder / f"{name}.json"

    def notes(self, folder: str) -> list[str]:
        """Names of the texts of a folder, sorted."""
        return sorted(p.stem for p in (self.root / folder).glob("*.json"))

    def write_note(self, folder: str, name: str, text: str) -> None:
        """Replace a text that is kept beside the artifacts, in one step."""
        write_atomically(self.root / folder / f"{name}.json", text)

    def remove_leftovers(self) -> None:
        """Drop what writers that were killed left and nobody needs; while anybody is at work, it may be theirs and stays."""
        with stillness(self.root / ".leases") as still:
            if not still:
                return
            for path in (self.root / ".drafts").iterdir():
                shutil.rmtree(path, ignore_errors=True)
            for path in (self.root / ".resume").glob("*-*"):
                if self.path(*path.name.split("-", 1)).is_dir():
                    shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def create(self, kind: str, key: str, inputs: dict[str, Any]) -> Iterator[Draft]:
        """Write an artifact: publish it when the block ends, leave nothing when the block raises."""
        draft = Draft(self.root / ".drafts" / f"{kind}-{key}-{uuid.uuid4().hex[:12]}")
        draft.path.mkdir(parents=True)
        try:
            yield draft
            _write_manifest(draft, kind, key, inputs)
            self._publish(draft.path, kind, key)
        except Exception as error:
            if disk_is_full(error):
                raise RetainError(FULL) from error
            raise
        finally:
            shutil.rmtree(draft.path, ignore_errors=True)

    def _publish(self, draft: Path, kind: str, key: str) -> None:
        with self._lease.held() if self._lease else contextlib.nullcontext():
            self._place(draft, kind, key)

    def _place(self, draft: Path, kind: str, key: str) -> None:
        final = self.path(kind, key)
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.rename(final)
        except OSError:
            if not (final / MANIFEST).exists():
                raise
            # Another writer published the same key first: the content is the same by construction.

    def _quarantine(self, kind: str, key: str, problem: str) -> None:
        if self._read_only:
            self.damaged.append(f"{kind}/{key}: {problem}; the next run will recompute it")
            return
        folder = self.root / ".quarantine"
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f"{kind}-{key}-{uuid.uuid4().hex[:12]}"
        with contextlib.suppress(FileNotFoundError):  # another process that found it so was faster
            self.path(kind, key).rename(aside)
        self.damaged.append(f"{kind}/{key}: {problem}; set aside as {aside}, will be recomputed")


@contextlib.contextmanager
def lock_home(home: Path) -> Iterator[None]:
    """Be the only one who writes what is no artifact of a home: declarations, the warehouse, reports, MLflow.

    Waits for as long as another process does, and says so.
    """
    lock = FileLock(home / ".lock")
    try:
        lock.acquire(timeout=SOON)
    except Timeout:
        log.warning("another retain is writing to %s; waiting for it", home)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def key_of(inputs: dict[str, Any]) -> str:
    """The key of an artifact made from these inputs."""
    return digest(inputs)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Replace a small text file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)


def _write_manifest(draft: Draft, kind: str, key: str, inputs: dict[str, Any]) -> None:
    files = {str(p.relative_to(draft.path)): {"sha256": sha256_of(p), "bytes": p.stat().st_size} for p in _files(draft.path)}
    body: dict[str, Any] = {
        "kind": kind, "key": key, "inputs": inputs, "meta": draft.meta, "files": files,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    body = json.loads(canonical_json(body))
    body["seal"] = digest(body)
    write_atomically(draft.path / MANIFEST, json.dumps(body, indent=1, sort_keys=True))


def check(folder: Path) -> tuple[str, dict[str, Any] | None]:
    """(what is wrong with an artifact, None) or ("", its manifest)."""
    try:
        body = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        seal = body.pop("seal")
        if seal != digest(body):
            return "its manifest does not match its own seal", None
        for name, facts in body["files"].items():
            if sha256_of(folder / name) != facts["sha256"]:
                return f"{name} does not match its checksum", None
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing", None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "its manifest cannot be read", None
    return "", {**body, "seal": seal}
