"""A store on object storage: every artifact is read through a verified copy in the home.

This module owns the layout below `RETAIN_ARTIFACTS=s3://bucket/prefix`:

    <kind>/<key>/manifest.json        as in a folder (`retain_core.store`); put last, and only where there is none
    <kind>/<key>/<sha256>/<name>      its files; two writers of one key cannot mix, as other bytes have another name
    .quarantine/<kind>-<key>-<unique>/   what was found damaged
    .leases/<name>.json               who is at work; `{}` when nobody is
    .resume/<kind>-<key>/...          what a training on any machine needs to go on elsewhere: a store like this one
    studies/, imported/               what was declared and imported

`RETAIN_HOME/artifacts` holds copies of what this machine read or made: they may be removed at any time, and are never
stale, as a key stands for its content.

A lease is renewed, taken over and given back by a put on the condition that the object has the tag last seen (If-Match), so
only one of two can. Before a manifest is put the lease is renewed; a writer that was asleep cannot. Between the two puts
another could take over: what is published then is what it would make itself, and of two manifests the first stays.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retain_core.bucket import Bucket
from retain_core.errors import RetainError
from retain_core.lease import BEAT_SECONDS, Held, LeaseLostError, alive, parsed, taken, this_process, who
from retain_core.settings import Settings
from retain_core.store import MANIFEST, Artifact, Store, check

FREE = b"{}"
STALE_SECONDS = 3600.0
"""A lease that was given back so long ago is removed."""

log = logging.getLogger(__name__)


def open_store(config: Settings, read_only: bool = False) -> Store:
    """The store that RETAIN_ARTIFACTS and RETAIN_HOME name."""
    remote = config.remote_artifacts
    return RemoteStore(config.artifacts, Bucket(remote), read_only) if remote else Store(config.artifacts, read_only)


def store_at(address: str) -> Store:
    """The store that has this `Store.address`, for another process of this machine."""
    folder, _, remote = address.rpartition("::")
    return RemoteStore(Path(folder), Bucket(remote)) if "://" in remote else Store(Path(address))


class RemoteLease:
    """A lease on object storage."""

    def __init__(self, bucket: Bucket, name: str) -> None:
        self.name, self._bucket, self._object = name, bucket, f".leases/{name}.json"
        self._token, self._etag = uuid.uuid4().hex, ""
        self._lock, self._ended = threading.Lock(), threading.Event()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """The lease was renewed just now. Raises LeaseLostError when another has it."""
        self._renew()
        yield

    def take(self) -> dict[str, Any] | None:
        """Take it if it is free. Returns its holder otherwise."""
        found = self._bucket.read(self._object)
        holder = parsed(found.content) if found else None
        if holder is not None and alive(holder):
            return holder
        etag = self._bucket.write(self._object, self._body(), etag=found.etag if found else None)
        if etag is None and (etag := self._own()) is None:
            return holder or {"pid": "another", "host": "another machine"}
        self._etag = etag
        threading.Thread(target=self._beat, name=f"lease {self.name}", daemon=True).start()
        return None

    def release(self) -> None:
        """Give it back; one that was lost stays with its new holder, one that cannot be given back runs out."""
        self._ended.set()
        try:
            with self._lock:
                self._bucket.write(self._object, FREE, etag=self._etag)
        except RetainError as error:
            log.warning("the lease of %s was not given back: %s", self.name, error)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                self._renew()
            except LeaseLostError:
                return
            except RetainError as error:
                log.warning("the lease of %s was not renewed: %s", self.name, error)

    def _renew(self) -> None:
        with self._lock:
            if self._ended.is_set():
                return
            etag = self._bucket.write(self._object, self._body(), etag=self._etag) or self._own()
            if etag is None:
                found = self._bucket.read(self._object)
                holder = parsed(found.content) if found else None
                raise LeaseLostError(f"{self.name} was taken over by {who(holder)}; what this process made is not used")
            self._etag = etag

    def _own(self) -> str | None:
        """The tag of the lease when it is this one's after all: the answer to a put may be lost, and the put repeated."""
        found = self._bucket.read(self._object)
        holder = parsed(found.content) if found else None
        return found.etag if found and holder and holder["token"] == self._token else None

    def _body(self) -> bytes:
        return json.dumps({"token": self._token, **this_process(), "renewed_at": time.time()}).encode()


class RemoteStore(Store):
    """The artifacts of an object store, and their copies in a folder."""

    def __init__(self, root: Path, bucket: Bucket, read_only: bool = False, lease: Held | None = None) -> None:
        super().__init__(root, read_only, lease)
        self._bucket = bucket
        self._notes: dict[str, str | None] = {}

    @property
    def address(self) -> str:
        """See `Store.address`."""
        return f"{self.root}::{self._bucket.url}"

    def prepare(self) -> None:
        """Create the folders of the copies. Raises RetainError when the object store does not answer."""
        super().prepare()
        self._bucket.check()

    def find(self, kind: str, key: str) -> Artifact | None:
        """The artifact, from the copy here or fetched; one that is damaged on the object store is set aside there."""
        found = super().find(kind, key)
        if found is None and not self.path(kind, key).exists() and self._fetch(kind, key):
            found = super().find(kind, key)
        return found

    def keys(self, kind: str) -> list[str]:
        """Keys of all artifacts of a kind on the object store, complete or not, sorted."""
        return self._bucket.names(kind)

    @contextlib.contextmanager
    def leased(self, name: str) -> Iterator[None]:
        """See `Store.leased`; among the processes of this machine first, then among machines."""
        with super().leased(name):
            here, there = self._lease, RemoteLease(self._bucket, name)
            with taken(there):
                self._lease = there
                try:
                    yield
                finally:
                    self._lease = here

    def living(self) -> set[str]:
        """Names of the leases that a living process holds, on whatever machine."""
        held = [entry.name for entry in self._bucket.entries(".leases") if entry.size > len(FREE)]
        found = {name: self._bucket.read(f".leases/{name}") for name in held}
        holders = {name: parsed(lease.content) for name, lease in found.items() if lease}
        return {name.removesuffix(".json") for name, holder in holders.items() if holder and alive(holder)}

    def unfinished(self, kind: str, key: str) -> Store:
        """See `Store.unfinished`; other machines see it too, and go on from it."""
        name = f".resume/{kind}-{key}"
        return RemoteStore(self.root / name, self._bucket.below(name), lease=self._lease)

    def forget(self, kind: str, key: str) -> None:
        """Remove an artifact that is not needed any more, here and there."""
        self._bucket.remove(f"{kind}/{key}/{MANIFEST}")
        self._bucket.remove(f"{kind}/{key}")
        super().forget(kind, key)

    def remove(self) -> None:
        """Remove everything that is in this store, here and there."""
        self._bucket.remove("")
        shutil.rmtree(self.root, ignore_errors=True)

    def note(self, folder: str, name: str) -> Path:
        """Where a fresh copy lies of a text that is kept beside the artifacts, whether it exists or not."""
        copy, found = super().note(folder, name), self._bucket.read(f"{folder}/{name}.json")
        self._notes[f"{folder}/{name}"] = found.etag if found else None
        if found:
            super().write_note(folder, name, found.content.decode("utf-8", errors="replace"))
        else:
            copy.unlink(missing_ok=True)
        return copy

    def notes(self, folder: str) -> list[str]:
        """Names of the texts of a folder, sorted."""
        return sorted(name.removesuffix(".json") for name in self._bucket.names(folder))

    def write_note(self, folder: str, name: str, text: str) -> None:
        """Replace a text as it was when it was last read. Raises RetainError when another machine was faster."""
        etag = self._bucket.write(f"{folder}/{name}.json", text.encode(), etag=self._notes.get(f"{folder}/{name}"))
        if etag is None:
            raise RetainError(f"{folder}/{name} was written by another machine at the same moment; run the same command again")
        self._notes[f"{folder}/{name}"] = etag
        super().write_note(folder, name, text)

    def remove_leftovers(self) -> None:
        """Drop what writers that were killed left, here; there, what finished work does not need any more."""
        super().remove_leftovers()
        for entry in self._bucket.entries(".leases"):
            if entry.size == len(FREE) and entry.age > STALE_SECONDS:
                self._bucket.remove(f".leases/{entry.name}")
        living = self.living()
        for name in self._bucket.names(".resume"):
            kind, _, key = name.partition("-")
            if name not in living and self._bucket.read(f"{kind}/{key}/{MANIFEST}"):
                self._bucket.remove(f".resume/{name}")
                shutil.rmtree(self.root / ".resume" / name, ignore_errors=True)

    def _publish(self, draft: Path, kind: str, key: str) -> None:
        manifest = (draft / MANIFEST).read_bytes()
        for name, facts in json.loads(manifest)["files"].items():
            self._bucket.upload(draft / name, _object(kind, key, name, facts))
        for _ in range(2):
            with self._lease.held() if self._lease else contextlib.nullcontext():
                made = self._bucket.write(f"{kind}/{key}/{MANIFEST}", manifest, etag=None)
            if made is not None:
                self._place(draft, kind, key)
                return
            if self.find(kind, key):  # another writer published the same key first
                return
        raise RetainError(f"{kind}/{key} cannot be published to {self._bucket.url}: what lies there is damaged, and stays")

    def _fetch(self, kind: str, key: str) -> bool:
        """Copy an artifact from the object store; False when there is none, or when it is damaged."""
        manifest = self._bucket.read(f"{kind}/{key}/{MANIFEST}")
        if manifest is None:
            return False
        draft = self.root / ".drafts" / f"{kind}-{key}-{uuid.uuid4().hex[:12]}"
        draft.mkdir(parents=True)
        try:
            (draft / MANIFEST).write_bytes(manifest.content)
            for name, facts in _files(manifest.content, draft).items():
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                self._bucket.download(_object(kind, key, name, facts), draft / name)
            problem, body = check(draft)
            if body is None:
                self._set_aside(kind, key, problem)
                return False
            self._place(draft, kind, key)
            return True
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _set_aside(self, kind: str, key: str, problem: str) -> None:
        if self._read_only:
            self.damaged.append(f"{kind}/{key}: {problem}; the next run will recompute it")
            return
        aside = f".quarantine/{kind}-{key}-{uuid.uuid4().hex[:12]}"
        # Its files stay where they are: who makes it again writes them again.
        self._bucket.copy(f"{kind}/{key}/{MANIFEST}", f"{aside}/{MANIFEST}")
        self._bucket.remove(f"{kind}/{key}/{MANIFEST}")
        self.damaged.append(f"{kind}/{key}: {problem}; set aside as {self._bucket.url}/{aside}, will be recomputed")


def _object(kind: str, key: str, name: str, facts: dict[str, Any]) -> str:
    return f"{kind}/{key}/{facts['sha256']}/{name}"


def _files(manifest: bytes, folder: Path) -> dict[str, dict[str, Any]]:
    """The files that a manifest names inside its folder; none when it cannot be read, which `check` then says."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
        files: dict[str, dict[str, Any]] = json.loads(manifest)["files"]
        if all((folder / name).resolve().is_relative_to(folder.resolve()) and facts["sha256"] for name, facts in files.items()):
            return files
    return {}
