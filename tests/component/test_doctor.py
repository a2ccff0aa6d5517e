"""`retain doctor`: each thing is broken for real, and the line that says so and how to mend it is there."""

import os
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path

import duckdb
import pytest

from retain_core import doctor, doctor_services
from retain_core.settings import Settings
from retain_core.warehouse.load import SCHEMA_VERSION, connect
from tests.conftest import retain

NOBODY = "http://user:" + "s3cret-word" + "@127.0.0.1:9"


def one(findings, level):
    """The sentence of the only finding of a level."""
    (sentence,) = (sentence for found, sentence in findings if found == level)
    return sentence


def test_a_sound_set_up_has_no_problem(tmp_path):
    told = retain("doctor", home=tmp_path)
    assert told.returncode == 0, told.stdout
    names = {line.split()[1].rstrip(":") for line in told.stdout.splitlines()}
    assert names >= {"python", "packages", "settings", "device", "threads", "home", "clock"}
    assert names >= {"warehouse", "mlflow", "prefect", "hub"}
    assert list(tmp_path.iterdir()) == []


def test_a_broken_set_up_names_everything_and_no_secret(tmp_path):
    (tmp_path / "warehouse.duckdb").write_bytes(b"not a database")
    wrong = {"RETAIN_MLFLOW_URI": NOBODY, "PREFECT_API_URL": NOBODY + "/api", "RETAIN_HOM": "x", "OMP_NUM_THREADS": "999"}
    told = retain("doctor", home=tmp_path, HF_TOKEN="hf_" + "a-token-of-mine", **wrong)
    assert told.returncode == 1
    assert {line.split()[1] for line in told.stdout.splitlines() if line.startswith("problem")} == {
        "warehouse:", "mlflow:", "prefect:",
    }  # fmt: skip
    assert "do you mean RETAIN_HOME?" in told.stdout
    assert "OMP_NUM_THREADS=999" in told.stdout
    assert "a token is set" in told.stdout
    assert "s3cret-word" not in told.stdout + told.stderr
    assert "a-token-of-mine" not in told.stdout + told.stderr


def test_a_setting_with_a_wrong_value_is_a_problem(tmp_path):
    told = retain("doctor", home=tmp_path, RETAIN_RESUME_SECONDS="often")
    assert told.returncode == 1
    assert told.stdout.startswith("problem  settings:")


def test_an_empty_setting_is_none(monkeypatch):
    for name in ("RETAIN_HOME", "RETAIN_ARTIFACTS", "RETAIN_RESUME_SECONDS"):
        monkeypatch.delenv(name, raising=False)
    unset = Settings()
    for name in ("RETAIN_HOME", "RETAIN_ARTIFACTS", "RETAIN_RESUME_SECONDS"):
        monkeypatch.setenv(name, "")
    assert Settings() == unset
    assert unset.home == Path("results")


def test_other_versions_than_the_tested_ones(tmp_path):
    file = tmp_path / "constraints.txt"
    file.write_text(f"numpy==0.1\npandas=={version('pandas')}\n")
    assert one(doctor.packages(file), "warning").startswith(f"numpy {version('numpy')} (tested 0.1); pip install")
    file.write_text(f"pandas=={version('pandas')}\n")
    assert one(doctor.packages(file), "ok") == "1 as in constraints.txt"


def test_a_home_that_is_a_file_cannot_be_written_to(tmp_path):
    (tmp_path / "home").write_text("")
    assert "set RETAIN_HOME" in one(doctor.writable(tmp_path / "home"), "problem")


@pytest.mark.skipif(not os.path.isdir("/proc/self") or sys.platform != "linux", reason="a folder nobody can write to")
def test_a_place_where_nobody_can_write():
    assert "cannot be written to" in one(doctor.writable(doctor.Path("/proc/self")), "problem")


def test_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "ROOM", {"problem": float(shutil.disk_usage(tmp_path).total), "warning": 2e9})
    assert "retain gc" in one(doctor.writable(tmp_path), "problem")


def test_a_clock_that_is_off(tmp_path):
    assert "61 s" in one(doctor.clock(tmp_path, lambda: time.time() + 61), "problem")
    assert one(doctor.clock(tmp_path), "ok")


def test_warehouses_of_other_versions(tmp_path):
    path = tmp_path / "warehouse.duckdb"
    for moved, level, mend in ((-1, "warning", "rebuilds it"), (0, "ok", "schema version"), (1, "problem", "update retain")):
        path.unlink(missing_ok=True)
        connect(path).close()
        with duckdb.connect(str(path)) as con:
            con.execute("UPDATE schema_version SET version = ?", [SCHEMA_VERSION + moved])
        assert mend in one(doctor.warehouse(path), level)


@pytest.mark.prefect
def test_a_prefect_without_pools_workers_and_deployments(tmp_path, fresh_prefect):
    found = list(doctor_services.prefect(tmp_path, {"PREFECT_API_URL": f"{fresh_prefect}/api"}))
    assert version("prefect") in one(found, "ok")
    told = [sentence for level, sentence in found if level == "warning"]
    assert [next(word for word in ("cpu-pool", "gpu-pool", "no deployments") if word in sentence) for sentence in told] == [
        "cpu-pool", "gpu-pool", "no deployments",
    ]  # fmt: skip
