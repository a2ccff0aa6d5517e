"""Looking for a text in every byte of a folder, and in what compressed files hold; watching which ports processes open."""

import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress
from pathlib import Path

import duckdb
import psutil

PLANTED = {
    name: f"planted-{secrets.token_hex(12)}"
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
                 "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "WANDB_API_KEY", "GITHUB_TOKEN", "DATABASE_PASSWORD")
}  # fmt: skip
"""Secrets that stand in the environment while a study runs."""

_LOGS = (".db-wal", ".db-shm")


def decoded(path: Path) -> Iterator[str]:
    """What a table or a database says; nothing for other files."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        yield str(pq.read_table(path).to_pylist())
    elif path.suffix == ".duckdb":
        with duckdb.connect(str(path), read_only=True) as con:
            for (table,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall():
                yield str(con.execute(f'FROM "{table}"').fetchall())
    elif path.suffix == ".db":
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as con:
            yield "\n".join(con.iterdump())


def where(folder: Path, words: list[str]) -> list[str]:
    """`word in file` for every one that is found, in the bytes of a file or in what it says decoded."""
    # SQLite's logs come and go with the server that writes the database: read them first, what vanished is in the database.
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.suffix not in _LOGS)
    plain = []
    for path in files:
        with suppress(FileNotFoundError) if path.suffix in _LOGS else nullcontext():
            plain.append((path, path.read_bytes().decode("latin-1")))
    texts = [*plain, *((path, text) for path in files for text in decoded(path))]
    return [f"{word} in {path}" for path, text in texts for word in words if word in text]


class Ports(threading.Thread):
    """Addresses on which this process's descendants listen while the block runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[str] = set()
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.3):
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    found = child.net_connections("inet")
                    self.seen |= {c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN}

    def __enter__(self) -> "Ports":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()
