"""The smoke study under a real Prefect server, from the command line and by the flow itself."""

import json

import duckdb
import pytest

from retain_core.warehouse.query import open_warehouse
from tests.conftest import retain
from tests.scan import PLANTED, where

pytestmark = pytest.mark.prefect

SAME = {
    "forgetting": "FROM forgetting ORDER BY ALL",
    "scores": "FROM scores ORDER BY ALL",
    "flips": "FROM flips ORDER BY ALL",
    "method_summary": "FROM method_summary ORDER BY ALL",
    "controls": "FROM controls ORDER BY ALL",
    "contrasts": "SELECT * EXCLUDE (declared_at) FROM contrasts ORDER BY ALL",
    "noise_floor": "FROM noise_floor ORDER BY ALL",
    "divergences": "FROM divergences ORDER BY ALL",
    "samples": "FROM samples ORDER BY ALL",
    "arms": "SELECT arm, status, updates, sequences, unique_prompts, tokens_trained, artifact FROM arms ORDER BY 1",
}


def test_the_flow_is_the_plain_functions(flow_home, finished_home):
    home, _ = flow_home
    for name, sql in SAME.items():
        found = []
        for path in (home, finished_home):
            with open_warehouse(path / "warehouse.duckdb") as con:
                found.append(con.execute(sql).fetchall())
        assert found[0] == found[1] != [], name


def test_the_closing_lines_say_what_came_out_and_where(flow_home):
    home, done = flow_home
    assert "method" in done.stdout
    assert "grpo" in done.stdout
    assert str(home / "reports" / "smoke" / "index.html") in done.stdout
    assert "control learning_rate_0: passed" in done.stdout
    assert "wall time" in done.stdout
    assert (home / "reports" / "smoke" / "index.html").is_file()


def test_prefect_saw_every_step(flow_home):
    """Prefect's own database holds the flow run and its task runs, all completed."""
    import sqlite3

    home, _ = flow_home
    with sqlite3.connect(home / "prefect" / "prefect.db") as con:
        flows = con.execute("SELECT name, state_type FROM flow_run").fetchall()
        tasks = con.execute("SELECT name, state_type FROM task_run").fetchall()
    assert flows == [("smoke", "COMPLETED")]
    assert {state for _, state in tasks} == {"COMPLETED"}
    names = {name for name, _ in tasks}
    assert {"prepare dataset", "train base lab/smoke", "evaluate base", "grpo lr=1e-3 seed=0", "load warehouse"} <= names


def test_no_secret_of_the_environment_is_written_or_printed(flow_home, tmp_path):
    home, done = flow_home
    assert where(home, list(PLANTED.values())) == []
    assert not [name for name, value in PLANTED.items() if value in done.stdout + done.stderr]
    # The same scan finds a text that lies compressed: an answer's in Parquet and DuckDB, a tag in SQLite.
    found = [path.rsplit(".", 1)[1] for path in where(home, ["smoke/sft-lr1e-3-s0"])]
    assert {"duckdb", "db", "html"} <= set(found)
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        (prompt,) = con.execute("SELECT prompt FROM items WHERE benchmark = 'places' LIMIT 1").fetchone()
    assert {path.rsplit(".", 1)[1] for path in where(home / "artifacts" / "evaluation", [prompt])} == {"parquet"}


def test_servers_listen_to_this_machine_only(flow_home):
    assert flow_home[1].ports == {"127.0.0.1"}


def test_mlflow_has_one_parent_and_a_child_per_arm(flow_home):
    from mlflow import MlflowClient

    home, _ = flow_home
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("smoke")
    runs = client.search_runs([experiment.experiment_id])
    parents = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    children = [r for r in runs if "mlflow.parentRunId" in r.data.tags]
    assert len(parents) == 1
    assert {c.data.tags["mlflow.parentRunId"] for c in children} == {parents[0].info.run_id}
    assert {c.info.run_name for c in children} == {"sft-lr1e-3-s0", "grpo-lr1e-3-s0", "learning_rate_0-lr0-s0"}
    assert {r.info.status for r in runs} == {"FINISHED"}
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        for child in children:
            arm = child.data.tags["retain.arm"]
            gain, drop = con.execute(
                'SELECT gain, "drop" FROM gain_drop WHERE arm = ? ORDER BY step DESC LIMIT 1', [arm]
            ).fetchone()
            assert child.data.metrics["gain"] == gain
            assert child.data.metrics["drop"] == drop
            assert {"train/loss", "eval/countdown/acc", "eval/countdown/exact", "drop/addition"} <= set(child.data.metrics)
            history = client.get_metric_history(child.info.run_id, "eval/addition/acc")
            assert [m.step for m in history] == [0, 2, 4]
            for tag in ("study", "arm", "method", "seed", "base", "target", "spec_hash"):
                assert f"retain.{tag}" in child.data.tags


def test_a_second_run_starts_no_server_and_changes_nothing(flow_home, smoke_study):
    home, _ = flow_home
    before = {p: p.stat().st_mtime_ns for p in (home / "artifacts").rglob("*") if p.is_file()}
    prefect = (home / "prefect" / "prefect.db").stat().st_mtime_ns
    done = retain("run", str(smoke_study), home=home)
    assert done.returncode == 0, done.stderr
    assert "nothing to train or evaluate" in done.stdout
    assert "the last run that computed something took" in done.stdout
    assert {p: p.stat().st_mtime_ns for p in (home / "artifacts").rglob("*") if p.is_file()} == before
    assert (home / "prefect" / "prefect.db").stat().st_mtime_ns == prefect


def test_nothing_is_written_outside_the_home(flow_home):
    """The user's own folders stay empty: Prefect's is given, everything else goes below RETAIN_HOME."""
    _, done = flow_home
    assert done.user.is_dir()
    assert [str(p) for p in done.user.rglob("*") if p.is_file()] == []


def test_the_light_commands(flow_home, here, smoke_study, tmp_path):
    home, _ = flow_home
    plan = here("plan", str(smoke_study), home=home)
    assert "3 arms: 3 cached, 0 to do" in plan.stdout
    fresh = here("plan", str(smoke_study), home=tmp_path / "none")
    assert "3 arms: 0 cached, 3 to do" in fresh.stdout
    assert not (tmp_path / "none").exists()
    status = here("status", home=home)
    assert "smoke" in status.stdout
    assert "3/3" in status.stdout
    report = here("report", "smoke", home=home)
    assert report.stdout.strip() == str(home / "reports" / "smoke" / "index.html")
    table = here("sql", "SELECT method, gain FROM method_summary ORDER BY method LIMIT 1", "--format", "json", home=home)
    assert json.loads(table.stdout) == [{"method": "grpo", "gain": 0.0}]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nowhere.yaml"], "cannot read the study file nowhere.yaml"),
        (["sql", "FROM nothing"], "nothing"),
        (["sql", "SELECT 1", "--format", "xml"], "unknown format 'xml'"),
        (["sql", "CREATE TABLE t (a INT)"], "read-only"),
        (["sql", "SELECT * FROM read_csv('/etc/passwd')"], "disabled"),
        (["report", "other"], "no study 'other' in the warehouse; it has smoke"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(flow_home, here, arguments, words):
    done = here(*arguments, home=flow_home[0])
    assert done.returncode == 2
    assert done.stdout == ""
    assert words in done.stderr
    assert done.stderr.startswith("retain: ")
    assert "Traceback" not in done.stderr


def test_without_a_warehouse_sql_says_how_to_get_one(tmp_path):
    done = retain("sql", "SELECT 1", home=tmp_path)
    assert done.returncode == 2
    assert "retain run studies/lab.yaml" in done.stderr


def test_deployments_point_at_flows_and_studies_that_exist():
    import importlib

    import yaml

    from tests.conftest import ROOT

    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert deployments
    for deployment in deployments:
        path, name = deployment["entrypoint"].split(":")
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        flow = getattr(module, name)
        if "parameters" in deployment:
            flow.validate_parameters(deployment["parameters"])
            assert (ROOT / deployment["parameters"]["path"]).is_file()
        else:
            assert flow.parameters.required  # whoever starts it has to say what
