"""The snapshot of the warehouse while it is replaced under its readers."""

import subprocess
import sys
import uuid

import duckdb
import pytest

from retain_core.errors import RetainError
from retain_core.warehouse.load import connect
from retain_core.warehouse.snapshot import SNAPSHOT, publish_snapshot
from tests.s3 import ENVIRONMENT, s3_server

READER = """
import sys, duckdb
rounds, seen = 0, set()
while True:
    with duckdb.connect(sys.argv[1], read_only=True) as con:
        low, high, n = con.execute("SELECT min(x), max(x), count(*) FROM probe").fetchone()
        assert low == high and n == 20000, (low, high, n)
        assert low >= max(seen, default=0), "an older one came back"
        seen.add(low)
        rounds += 1
        if low == 50:
            print(rounds, len(seen))
            break
"""


def fill(warehouse, number):
    with connect(warehouse) as con:
        con.execute(f"CREATE OR REPLACE TABLE probe AS SELECT {number} AS x FROM range(20000)")


@pytest.mark.slow
def test_a_reader_that_loops_while_it_is_replaced_50_times_sees_whole_files_only(tmp_path):
    warehouse, shown = tmp_path / "warehouse.duckdb", tmp_path / "shown"
    fill(warehouse, 0)
    publish_snapshot(warehouse, str(shown))
    with duckdb.connect(str(shown / SNAPSHOT), read_only=True) as old:
        reader = subprocess.Popen([sys.executable, "-c", READER, str(shown / SNAPSHOT)], stdout=subprocess.PIPE, text=True)
        for number in range(1, 51):
            fill(warehouse, number)
            publish_snapshot(warehouse, str(shown))
        said, _ = reader.communicate(timeout=60)
        assert old.execute("SELECT DISTINCT x FROM probe").fetchall() == [(0,)], "who has the old one open keeps it"
    assert reader.returncode == 0
    rounds, versions = map(int, said.split())
    assert rounds >= versions >= 1
    assert [p.name for p in shown.iterdir()] == [SNAPSHOT]


def test_a_copy_that_cannot_be_read_does_not_replace_a_good_one(tmp_path):
    warehouse, shown = tmp_path / "warehouse.duckdb", tmp_path / "shown"
    fill(warehouse, 7)
    publish_snapshot(warehouse, str(shown))
    warehouse.write_bytes(warehouse.read_bytes()[:5000])
    with pytest.raises(RetainError, match="cannot be read"):
        publish_snapshot(warehouse, str(shown))
    with duckdb.connect(str(shown / SNAPSHOT), read_only=True) as con:
        assert con.execute("SELECT DISTINCT x FROM probe").fetchall() == [(7,)]
    assert [p.name for p in shown.iterdir()] == [SNAPSHOT]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    fill(tmp_path / "warehouse.duckdb", 1)
    (tmp_path / "file").touch()
    with pytest.raises(RetainError, match=r"no snapshot in .*file"):
        publish_snapshot(tmp_path / "warehouse.duckdb", str(tmp_path / "file"))


def test_it_may_lie_on_s3(tmp_path, monkeypatch):
    pytest.importorskip("s3fs", reason="pip install 'retain[s3]'")
    from retain_core.bucket import Bucket

    fill(tmp_path / "warehouse.duckdb", 3)
    with s3_server() as address:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": address}.items():
            monkeypatch.setenv(name, value)
        from s3fs import S3FileSystem

        S3FileSystem.clear_instance_cache()
        place = f"s3://retain/{uuid.uuid4().hex}"
        publish_snapshot(tmp_path / "warehouse.duckdb", place)
        assert Bucket(place).download(SNAPSHOT, tmp_path / "fetched")
        S3FileSystem.clear_instance_cache()
    assert (tmp_path / "fetched").read_bytes() == (tmp_path / "warehouse.duckdb").read_bytes()
