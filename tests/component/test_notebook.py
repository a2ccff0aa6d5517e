"""docs/explore.py runs as it stands, shows what SQL says, and keeps no hold of the warehouse."""

import importlib.util
import shutil
import subprocess
import sys
from types import SimpleNamespace

import duckdb
import pytest

from retain_core.settings import settings
from tests.conftest import ROOT, environment

NOTEBOOK = ROOT / "docs" / "explore.py"


@pytest.fixture(scope="module")
def own_home(finished_home, tmp_path_factory):
    """A home with a copy of the finished warehouse, which nobody else has open."""
    folder = tmp_path_factory.mktemp("explored")
    shutil.copy(finished_home / "warehouse.duckdb", folder)
    return folder


@pytest.fixture(scope="module")
def shown(own_home):
    """The names that the notebook defines, run as a script; of the changed answers those that SFT lost."""
    spec = importlib.util.spec_from_file_location("explore", NOTEBOOK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETAIN_HOME", str(own_home))
        settings.cache_clear()
        choices = {"arm": "smoke/sft-lr1e-3-s0", "benchmark": "all", "direction": "lost"}
        yield module.app.run(defs={name: SimpleNamespace(value=value) for name, value in choices.items()})[1]
    settings.cache_clear()


def test_it_shows_what_sql_says(shown, warehouse):
    plane = """SELECT checkpoint, round(100 * gain, 2), round(100 * "drop", 2) FROM gain_drop WHERE role = 'method'
               ORDER BY arm, step"""
    found = list(shown["points"][["checkpoint", "gain", "drop"]].itertuples(index=False, name=None))
    assert found == warehouse.execute(plane).fetchall()
    assert len(found) == 4
    drops = """SELECT benchmark, a.method, round(avg(100 * "drop"), 2)
               FROM forgetting f JOIN study_benchmarks USING (study, benchmark, metric) JOIN arms a USING (arm)
               WHERE a.role = 'method' AND f.step = 4 GROUP BY ALL ORDER BY ALL"""
    found = list(shown["drops"][["benchmark", "method", "drop"]].itertuples(index=False, name=None))
    assert found == warehouse.execute(drops).fetchall() != []
    lost = """SELECT prompt, response FROM flips WHERE checkpoint = 'smoke/sft-lr1e-3-s0@4' AND direction = 'lost'
              ORDER BY benchmark, prompt"""
    found = list(shown["changed"][["prompt", "response"]].itertuples(index=False, name=None))
    assert found == warehouse.execute(lost).fetchall() != []
    assert shown["answer"]["gain"].tolist() == [
        gain for (gain,) in warehouse.execute("SELECT gain FROM method_summary").fetchall()
    ]


def test_it_leaves_the_warehouse_to_writers_and_writes_nothing(shown, own_home):
    duckdb.connect(str(own_home / "warehouse.duckdb"), read_only=False).close()
    with pytest.raises(duckdb.Error):
        shown["ask"]("DROP VIEW forgetting")


def test_it_runs_headless_in_marimo_without_an_error(own_home, tmp_path):
    page = tmp_path / "explore.html"
    notebook = shutil.copy(NOTEBOOK, tmp_path)  # marimo keeps a session beside the notebook
    command = [sys.executable, "-m", "marimo", "export", "html", notebook, "-o", str(page)]
    done = subprocess.run(command, cwd=tmp_path, env=environment(own_home), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "smoke/grpo-lr1e-3-s0" in page.read_text(encoding="utf-8")
