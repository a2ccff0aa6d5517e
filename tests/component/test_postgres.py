"""MLflow keeps what it knows in a real Postgres instead of SQLite; Prefect does in tests/flows/test_pool.py."""

import sqlite3

import pytest

from retain_core import tracking
from retain_core.plan import plan_study
from retain_core.settings import Settings
from retain_core.store import Store
from retain_core.study_file import load_study
from tests.component.test_tracking import Logged
from tests.conftest import mlflow_server
from tests.postgres import new_database, postgres


@pytest.fixture(scope="module")
def server():
    with postgres() as address:
        yield address


def ask(address, sql):
    import psycopg

    with psycopg.connect(address) as con:
        return con.execute(sql).fetchall()


def test_databases_are_new_and_in_utf_8(server):
    for name in ("one", "other"):
        address = new_database(server, name)
        told = "SELECT current_database(), current_setting('server_encoding'), length('é 模型')"
        assert ask(address, told) == [(name, "UTF8", 4)]
        assert ask(address, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


@pytest.mark.slow
def test_a_study_in_mlflow_on_postgres_is_the_study_in_sqlite(server, home, smoke_study, tmp_path):
    database, folder = new_database(server, "mlflow"), tmp_path / "mlflow"
    folder.mkdir()
    with mlflow_server(folder, database.replace("postgresql:", "postgresql+psycopg:")) as address:
        study, config = load_study(smoke_study), Settings(home=home, mlflow_uri=address)
        tracking.log_study(config, plan_study(study, Store(config.artifacts)), study.spec_hash())
        assert Logged(address).values() == Logged(f"sqlite:///{home / 'mlflow.db'}").values()
    runs = "SELECT count(*) FROM runs"
    with sqlite3.connect(home / "mlflow.db") as con:
        assert ask(database, runs) == con.execute(runs).fetchall() != [(0,)]
