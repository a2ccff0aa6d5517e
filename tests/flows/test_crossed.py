"""A crossed file from the command line: ordinary studies under one flow, what is done is not done again."""

import json
import sqlite3

import pytest

from tests.conftest import retain

pytestmark = pytest.mark.prefect


def test_a_crossed_file_whose_studies_are_cached_starts_no_server(home, smoke_study, tmp_path):
    path = tmp_path / "smoke.yaml"
    text = smoke_study.read_text().replace("base: lab/smoke\n", "").replace("target: countdown\n", "")
    path.write_text(text + "cross: {base: [lab/smoke], target: [countdown]}\n")
    done = retain("run", str(path), home=home)
    assert done.returncode == 0, done.stderr
    assert "smoke-smoke-countdown: nothing to train or evaluate" in done.stdout
    assert "smoke-smoke-countdown | 3/3" in done.stdout
    assert not (home / "prefect").exists()
    assert (home / "reports" / "smoke-smoke-countdown" / "index.html").is_file()


@pytest.mark.slow
def test_two_base_seeds_of_the_smoke_study_run_as_two_studies_of_one_family(home, smoke_study, tmp_path):
    path = tmp_path / "smoke.yaml"
    path.write_text(smoke_study.read_text() + "cross: {seed: [0, 1]}\n")
    plan = retain("plan", str(path), home=home)
    assert "smoke: 2 studies, 6 arms: 3 cached, 3 to do" in plan.stdout
    assert "smoke-s0\n\narm" in plan.stdout

    done = retain("run", str(path), home=home)
    assert done.returncode == 0, done.stderr
    assert "smoke-s0: nothing to train or evaluate" in done.stdout
    assert "smoke-s1: 3 of 3 arms to run" in done.stdout
    with sqlite3.connect(home / "prefect" / "prefect.db") as con:
        flows = con.execute("SELECT name, state_type FROM flow_run ORDER BY start_time").fetchall()
    assert flows == [("smoke", "COMPLETED"), ("smoke-s1", "COMPLETED")]

    status = retain("status", home=home).stdout
    assert status.count("3/3") == 3
    for name in ("smoke-s0", "smoke-s1"):
        assert (home / "reports" / name / "index.html").is_file()
    sql = 'SELECT DISTINCT name, size, target, bases FROM over_bases WHERE "primary"'
    families = json.loads(retain("sql", sql, "--format", "json", home=home).stdout)
    assert families == [{"name": "smoke", "size": "lab/smoke", "target": "countdown", "bases": 2}]

    before = (home / "prefect" / "prefect.db").stat().st_mtime_ns
    again = retain("run", str(path), home=home)
    assert again.returncode == 0, again.stderr
    assert "smoke-s1: nothing to train or evaluate" in again.stdout
    assert (home / "prefect" / "prefect.db").stat().st_mtime_ns == before
