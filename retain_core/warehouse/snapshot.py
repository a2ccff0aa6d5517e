"""The read-only copy of the warehouse that others read while this machine goes on writing its own.

Owns `warehouse-snapshot.duckdb` below RETAIN_SNAPSHOT, a folder or s3://bucket/prefix. It is replaced in one step: who has the
old one open keeps it, who opens it next has the new one, nobody has a part.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import duckdb

from retain_core.errors import FULL, RetainError, disk_is_full

SNAPSHOT = "warehouse-snapshot.duckdb"


def publish_snapshot(warehouse: Path, place: str) -> None:
    """Replace the snapshot at a place with a copy of the warehouse, which nobody writes meanwhile.

    Raises RetainError when the place cannot be written, or the copy cannot be read.
    """
    if "://" in place:
        from retain_core.bucket import Bucket

        with _copied(warehouse, warehouse.parent) as copy:
            Bucket(place).upload(copy, SNAPSHOT)  # S3 shows an object only when it is whole
        return
    folder = Path(place).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _copied(warehouse, folder) as copy:
            os.replace(copy, folder / SNAPSHOT)
        _flush(folder)
    except OSError as error:
        raise RetainError(FULL if disk_is_full(error) else f"no snapshot in {folder}: {error.strerror}") from error


@contextlib.contextmanager
def _copied(warehouse: Path, folder: Path) -> Iterator[Path]:
    copy = folder / f".{SNAPSHOT}.{uuid.uuid4().hex[:12]}"
    try:
        shutil.copyfile(warehouse, copy)
        _flush(copy)
        try:
            with duckdb.connect(str(copy), read_only=True) as con:
                con.execute("FROM schema_version").fetchone()
        except duckdb.Error as error:
            raise RetainError(f"no snapshot: the copy of {warehouse} cannot be read: {error}") from error
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Have the disk write a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
