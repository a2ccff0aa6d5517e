"""A real Postgres for tests: the server of Debian's package `postgresql` on a temporary cluster, on loopback only."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

INSTALL = "no Postgres here: apt-get install postgresql"
SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "listen_addresses": "127.0.0.1"}


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The address `postgresql://postgres@127.0.0.1:PORT` of an empty server, whose password is in PGPASSWORD.

    Where there is none the test is skipped with the install line, and fails under CI. Postgres refuses to run as root: it
    is run as the user that the package makes.
    """
    programs = _programs()
    if programs is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(INSTALL)
    assert programs is not None
    password, port = secrets.token_hex(12), _free_port()
    who: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a socket's path has at most 107 bytes
    try:
        (folder / "password").write_text(password)
        if who:
            for path in (folder, folder / "password"):
                shutil.chown(path, "postgres", "postgres")
        cluster = ["--encoding=UTF8", "--locale=C.UTF-8", "--username=postgres", "--auth=scram-sha-256", "--no-sync"]
        initdb = [programs / "initdb", *cluster, f"--pwfile={folder}/password", "-D", folder / "data"]
        subprocess.run(initdb, cwd=folder, check=True, capture_output=True, **who)
        options = [f"-c{name}={value}" for name, value in SETTINGS.items()]
        command = [programs / "postgres", "-D", folder / "data", "-k", folder, "-p", str(port), *options]
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, **who)
        try:
            address = f"postgresql://postgres@127.0.0.1:{port}"
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PGPASSWORD", password)
                _wait_for(address, server, folder / "log")
                yield address
        finally:
            server.send_signal(signal.SIGINT)  # its fast shutdown: does not wait for clients
            server.wait(timeout=60)
    finally:
        shutil.rmtree(folder)


def new_database(address: str, name: str) -> str:
    """The address of a new, empty database. Prefect and MLflow need one each: both call a table `alembic_version`."""
    import psycopg

    with psycopg.connect(f"{address}/postgres", autocommit=True) as con:
        con.execute(f'CREATE DATABASE "{name}"')
    return f"{address}/{name}"


def dumped(database: str) -> str:
    """Every row of every table that a database holds, as text."""
    import psycopg

    with psycopg.connect(database) as con:
        tables = con.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        return "\n".join(str(row) for (table,) in tables for row in con.execute(f'SELECT t::text FROM "{table}" t'))


def _programs() -> Path | None:
    """The folder with initdb and postgres; Debian keeps one for each version, out of PATH."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(folders) if (folder / "initdb").exists()), None)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(f"{address}/postgres").close()
        except psycopg.OperationalError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        else:
            return
