"""What an attacker could put into models, names, answers and queries: refused, or shown as the text that it is."""

import importlib.util
import json
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli import main
from retain_core.commands import import_text
from retain_core.errors import InputError
from retain_core.imported.samples import read_run
from retain_core.plan import base_reference
from retain_core.redact import redact, secret_in, secrets
from retain_core.revisions import declare
from retain_core.settings import settings
from retain_core.store import Store
from retain_core.study import Study
from retain_core.study_file import load_study
from retain_core.warehouse.query import query
from tests.conftest import ROOT, tree

# Models


@pytest.fixture
def model(tmp_path, smoke_plan):
    """A copy of the smoke base that a test may spoil."""
    folder = tmp_path / "model"
    shutil.copytree(smoke_plan.base_path, folder, ignore=shutil.ignore_patterns("trainer", "manifest.json"))
    return folder


class Boom:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def refused(folder):
    with pytest.raises(InputError) as caught:
        base_reference(Study.model_validate({**STUDY, "base": str(folder)}))
    assert "\n" not in str(caught.value)
    return str(caught.value)


STUDY = {
    "study": "x", "base": "lab/smoke", "target": "countdown", "retention": ["facts"], "methods": ["sft"], "controls": [],
    "learning_rates": [1e-3], "seeds": [0],
}  # fmt: skip


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl", "other.safetensors"])
def test_a_model_whose_weights_are_pickles_is_refused_unopened(model, tmp_path, name):
    (model / "model.safetensors").unlink()
    (model / name).write_bytes(pickle.dumps(Boom(tmp_path / "ran")))
    assert "other formats can run code and are refused" in refused(model)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_beside_safetensors_is_never_opened(model, tmp_path):
    from retain_core.evaluation.divergence import load_model

    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (model / name).write_bytes(pickle.dumps(Boom(tmp_path / "ran")))
    assert base_reference(Study.model_validate({**STUDY, "base": str(model)}))
    load_model(model)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("part", ["../../elsewhere.safetensors", "pytorch_model-1.bin", "/etc/passwd"])
def test_an_index_names_safetensors_beside_it(model, part):
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": part}}))
    assert "which is no safetensors file beside it" in refused(model)


def test_code_of_a_model_is_never_run(model, tmp_path, smoke_plan):
    from transformers import AutoModelForCausalLM

    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
    (model / "evil.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    (model / "config.json").write_text(json.dumps(config))
    assert base_reference(Study.model_validate({**STUDY, "base": str(model)})).model == str(model)
    found = AutoModelForCausalLM.from_pretrained(model)
    assert found.num_parameters() == AutoModelForCausalLM.from_pretrained(smoke_plan.base_path).num_parameters()
    for kind in ("evil", "", "../../evil", None):
        (model / "config.json").write_text(json.dumps({**config, "model_type": kind}))
        assert "retain never runs the code of a model" in refused(model)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("text", ["{", "[]", "\ud800"])
def test_a_broken_configuration_is_one_sentence(model, text):
    (model / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert str(model / "config.json") in refused(model)


# Names

NAMES = ["../up", "a/../../b", "/etc/passwd", "x'; DROP TABLE arms; --", '"><script>', "a b", ".hidden", "", "a\nb", "a\x00b"]


@pytest.mark.parametrize("name", NAMES)
def test_a_study_has_no_such_names(name):
    for more in (
        {"study": name},
        {"methods": [{"label": name, "algorithm": "sft"}]},
        {"retention": ["facts", {"benchmark": name, "yaml": "x.yaml"}]},
        {"retention": ["facts", name]},
        {"target": name},
        {"target": {"name": name, "train": "t", "items": "i", "verifier": "v:v", "longest_answer": 1}},
        {"base": f"lab/{name}"},
        {"controls": [name]},
    ):
        with pytest.raises(ValueError, match="validation error"):
            Study.model_validate({**STUDY, **more})


@pytest.fixture
def at(monkeypatch):
    """Let the commands work in a home."""

    def to(path):
        monkeypatch.setenv("RETAIN_HOME", str(path))
        settings.cache_clear()
        return path

    yield to
    settings.cache_clear()


def command(*arguments, monkeypatch, capsys):
    """(exit code, what was printed on both streams)."""
    monkeypatch.setattr(sys, "argv", ["retain", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    said = capsys.readouterr()
    return caught.value.code, said.out + said.err


@pytest.mark.parametrize("name", NAMES)
def test_a_command_finds_no_study_of_such_a_name_and_writes_nothing(home, at, name, monkeypatch, capsys):
    at(home)
    before = tree(home.parent)
    for arguments in (("report", name), ("extend", name, "--seeds", "1"), ("import", str(home), "--as", f"{name}/base")):
        code, said = command(*arguments, monkeypatch=monkeypatch, capsys=capsys)
        assert code == 2, said
        assert "Traceback" not in said
    assert tree(home.parent) == before


# What others wrote: answers and names of benchmarks

EVIL = """</td><script>alert(1)</script><img src=x onerror=alert(1)>'; DROP TABLE arms; --"""


def test_answers_and_names_of_others_are_shown_as_text(tmp_path, at):
    at(tmp_path / "home")
    for label in ("base", "tuned"):
        folder = tmp_path / "files" / label
        shutil.copytree(ROOT / "docs" / "examples" / label, folder)
        for file in folder.rglob("samples_sums_*.jsonl"):
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            for row in rows:
                row["resps"] = [[EVIL]] if label == "tuned" else row["resps"]
                row["filtered_resps"] = [EVIL] if label == "tuned" else row["filtered_resps"]
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
            file.rename(file.with_name(file.name.replace("sums", "x'; DROP TABLE arms; --<script>")))
        for file in folder.rglob("results_*.json"):
            file.write_text(file.read_text().replace('"sums"', json.dumps("x'; DROP TABLE arms; --<script>")))
        import_text(folder, f"pets/{label}", None, None)
    found = query(tmp_path / "home" / "warehouse.duckdb", "SELECT count(*) AS n FROM arms", "csv")
    assert found == "n\n2"
    names = query(tmp_path / "home" / "warehouse.duckdb", "SELECT DISTINCT benchmark FROM flips", "json")
    assert "DROP TABLE arms" in names
    page = (tmp_path / "home" / "reports" / "pets" / "index.html").read_text()
    assert "<script>alert" not in page
    assert "--<script>" not in page
    assert "<img src=x" not in page
    assert "DROP TABLE arms; --&lt;script&gt;" in page


@pytest.mark.parametrize("spoil", [{"resps": [["x"], ["y"]]}, {"resps": [[None]]}, {"arguments": 3}])
def test_a_sample_of_another_shape_is_one_sentence(tmp_path, spoil):
    folder = tmp_path / "base"
    shutil.copytree(ROOT / "docs" / "examples" / "base", folder)
    (file,) = folder.glob("samples_colours_*.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[2] |= spoil
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"samples_colours_.*, line 3: not a sample") as caught:
        read_run(folder, None)
    assert "\n" not in str(caught.value)


# Queries

WRITES = [
    "CREATE TABLE x(a int)", "INSERT INTO arms SELECT * FROM arms", "DELETE FROM arms", "UPDATE arms SET study = 'x'",
    "DROP VIEW forgetting", "DROP TABLE sample_scores", "ALTER TABLE arms ADD COLUMN x int", "VACUUM FULL",
    "SELECT 1; DROP VIEW forgetting",
]  # fmt: skip
OUTSIDE = [
    "ATTACH '{x}/a.duckdb'", "ATTACH ':memory:' AS m", "COPY (SELECT 1) TO '{x}/x.csv'", "COPY arms FROM '{x}/secret.csv'",
    "EXPORT DATABASE '{x}/export'", "IMPORT DATABASE '{x}/export'", "INSTALL httpfs", "LOAD httpfs", "FORCE INSTALL icu",
    "LOAD '{x}/evil.duckdb_extension'", "INSTALL '{x}/evil.duckdb_extension'", "FROM read_csv('{x}/secret.csv')",
    "FROM read_text('{x}/secret.csv')", "FROM read_blob('{x}/secret.csv')", "FROM '{x}/secret.csv'", "FROM glob('{x}/*')",
    "FROM read_json('{x}/secret.csv')", "FROM read_parquet('http://127.0.0.1:9/x.parquet')", "SELECT getenv('HOME')",
    "SET enable_external_access = true", "RESET enable_external_access", "SET allowed_directories = ['{x}']",
    "SET allowed_paths = ['{x}/secret.csv']", "SET temp_directory = '{x}/temp'", "SET access_mode = 'read_write'",
    "CALL enable_logging(storage = 'file', storage_config = {{'path': '{x}/log'}})",
    "PRAGMA enable_profiling = 'json'; SET profiling_output = '{x}/profile.json'; SELECT 1",
    "SELECT 1; COPY (SELECT 1) TO '{x}/x.csv'",
]  # fmt: skip


@pytest.mark.parametrize("sql", [*WRITES, *OUTSIDE])
def test_a_query_cannot_write_nor_reach_out(finished_home, tmp_path, sql):
    warehouse = tmp_path / "w.duckdb"
    shutil.copy(finished_home / "warehouse.duckdb", warehouse)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "secret.csv").write_text("secret\nhidden\n")
    (tmp_path / "x" / "evil.duckdb_extension").write_bytes(b"\x00" * 600)
    before = tree(tmp_path)
    with pytest.raises(InputError) as caught:
        query(warehouse, sql.format(x=tmp_path / "x"), "table")
    assert "hidden" not in str(caught.value)
    assert tree(tmp_path) == before


def test_a_temporary_table_lives_in_memory_only(finished_home, tmp_path):
    warehouse = tmp_path / "w.duckdb"
    shutil.copy(finished_home / "warehouse.duckdb", warehouse)
    before = tree(tmp_path)
    assert query(warehouse, "CREATE TEMP TABLE x AS SELECT 1 AS a; FROM x", "csv") == "a\n1"
    assert tree(tmp_path) == before


# Secrets


def test_secrets_are_told_by_the_names_of_their_variables(monkeypatch):
    for name in list(os.environ):
        monkeypatch.delenv(name)
    told = {
        "HF_TOKEN": "h" * 20, "OPENAI_API_KEY": "o" * 20, "AWS_SECRET_ACCESS_KEY": "a" * 20,
        "MLFLOW_TRACKING_PASSWORD": "m" * 20,
        "my_pat": "p" * 20, "DB": "postgresql://user:" + "s%40cret-word" + "@host/db",
    }  # fmt: skip
    other = {"TOKENIZERS_PARALLELISM": "false-but-long", "KEYBOARD": "x" * 20, "PATH": "/usr/bin:/bin", "SHORT_KEY": "abc"}
    for name, value in (told | other).items():
        monkeypatch.setenv(name, value)
    assert set(secrets().values()) == set(told)
    text = f"{told['HF_TOKEN']} s@cret-word s%40cret-word {other['KEYBOARD']} abc"
    assert redact(text) == f"$HF_TOKEN $DB $DB {other['KEYBOARD']} abc"
    assert secret_in("nothing") is None
    assert secret_in(f"x{told['OPENAI_API_KEY']}x") == "OPENAI_API_KEY"


def test_a_study_that_holds_a_secret_is_refused_without_showing_it(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "made-up-" + "7" * 12)
    path = tmp_path / "x.yaml"
    path.write_text(json.dumps({**STUDY, "study": "made-up-" + "7" * 12}))
    with pytest.raises(InputError, match="holds the value of the environment variable OPENAI_API_KEY") as caught:
        load_study(path)
    assert "7777" not in str(caught.value)


def test_a_secret_that_is_spelled_otherwise_or_comes_as_a_parameter_is_not_stored(tmp_path, monkeypatch):
    secret = "made-up-" + "4" * 12
    monkeypatch.setenv("RETAIN_TEST_TOKEN", secret)
    path = tmp_path / "x.yaml"
    path.write_text(json.dumps({**STUDY, "study": secret}).replace("made-up", r"m\u0061de-up"))
    spelled = load_study(path)
    own = {"label": "own", "algorithm": "custom", "trainer": "json:dumps", "options": {"asks": ["with", secret]}}
    for study in (spelled, Study.model_validate({**STUDY, "methods": [own]})):
        store = Store(tmp_path / "artifacts")
        with pytest.raises(InputError, match="holds the value of the environment variable RETAIN_TEST_TOKEN") as caught:
            declare(store, study)
        assert "4444" not in redact(str(caught.value))
        assert not store.root.exists()


def test_a_job_that_fails_with_a_secret_in_its_message_shows_none(tmp_path, monkeypatch):
    """The message reaches the arm's error in warehouse, MLflow and report; the traceback the log."""
    secret = "made-up-" + "3" * 12
    monkeypatch.setenv("RETAIN_TEST_TOKEN", secret)
    script = tmp_path / "fail.py"
    script.write_text(
        "from pathlib import Path\nfrom retain_core import workers\n\n"
        "if __name__ == '__main__':\n"
        f"    workers.run_job('arm', {{'root': {str(tmp_path)!r}, 'spec': {secret!r}}}, Path({str(tmp_path / 'log')!r}))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    log = (tmp_path / "log").read_text()
    assert "Traceback" in log
    assert "$RETAIN_TEST_TOKEN" in log
    assert secret not in log
    assert "RetainError" in done.stderr
    assert "$RETAIN_TEST_TOKEN" in done.stderr
    assert secret not in done.stderr.split("RetainError", 1)[1]


PRINTS = """
import logging, os, sys
from retain_core import jobs, workers

def shout():
    secret = os.environ["RETAIN_TEST_TOKEN"]
    print("token", secret)
    print(secret[:9], end="", flush=True)
    print(secret[9:], "in two pieces")
    logging.getLogger("retain_core").info("logged %s", secret)
    print("half a line", secret, end="")

jobs.shout = shout
workers._do("shout", {}, sys.argv[1])
"""


def test_what_the_code_of_a_job_prints_shows_none_in_its_log(tmp_path):
    secret = "made-up-" + "5" * 12
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "RETAIN_TEST_TOKEN": secret}
    log = tmp_path / "log"
    done = subprocess.run([sys.executable, "-c", PRINTS, str(log)], capture_output=True, text=True, cwd=ROOT, env=settings)
    text = log.read_text()
    assert secret not in text + done.stdout + done.stderr
    assert text.count("$RETAIN_TEST_TOKEN") == 4
    assert "$RETAIN_TEST_TOKEN in two pieces" in text


# Audit


@pytest.fixture(scope="module")
def verdict():
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.verdict


def test_audit_says_what_it_found(verdict):
    packages = [
        {"name": "good", "version": "1", "vulns": []}, {"name": "ours", "skip_reason": "not found"},
        {"name": "bad", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}, {"id": "CVE-2", "fix_versions": []}]},
    ]  # fmt: skip
    code, text = verdict(json.dumps({"dependencies": packages}), "")
    assert code == 1
    assert text.splitlines() == [
        "bad 2: CVE-1, fixed in 3", "bad 2: CVE-2, fixed in no version yet", "audit: 2 packages, 2 known vulnerabilities",
        "not known to pypi.org, so not audited: ours",
    ]  # fmt: skip
    assert verdict(json.dumps({"dependencies": packages[:2]}), "")[0] == 0


def test_audit_says_that_nobody_answered(verdict):
    error = "Traceback ...\nrequests.exceptions.ConnectionError: HTTPSConnectionPool(host='pypi.org'): Max retries exceeded"
    code, text = verdict("", error)
    assert (code, "\n" in text) == (2, False)
    assert re.match("audit: the list of known vulnerabilities cannot be reached, so nothing was audited", text)
    code, text = verdict(json.dumps({"dependencies": [{"name": "a", "skip_reason": "x"}]}), "No known vulnerabilities found")
    assert (code, "nothing was audited" in text) == (2, True)


def test_audit_without_a_network_is_one_line(tmp_path):
    nowhere = "http://127.0.0.1:9"
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "audit.py"], capture_output=True, text=True, timeout=300,
        env={**os.environ, "HTTPS_PROXY": nowhere, "HTTP_PROXY": nowhere, "ALL_PROXY": nowhere, "NO_PROXY": ""},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "nothing was audited" in done.stderr


def test_committed_tokens_are_found(tmp_path):
    """`make lint` runs these detectors over every file of the repository."""
    said = re.search(r"^SECRETS := ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    flags = shlex.split(said[1].replace("\\\n", "").replace("$$", "$"))
    tokens = {
        "hf": "hf" + "_" + "a1B2" * 9, "aws": "AKI" + "A" + "Q3EXAMPLE7ABCDE1"[:16], "github": "gh" + "p_" + "a1B2" * 9,
        "key": "-----BEGIN RSA " + "PRIVATE KEY-----", "address": "https://me:" + "not-a-word" + "@host",
    }  # fmt: skip
    for name, token in tokens.items():
        (tmp_path / name).write_text(f"x = '{token}'\n")
    (tmp_path / "clean").write_text("spec_hash = '0123456789abcdef0123456789abcdef'\nuri = 'https://me:password@host'\n")
    hook = [Path(sys.executable).with_name("detect-secrets-hook"), *flags, *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(hook, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert {name for name in (*tokens, "clean") if str(tmp_path / name) in done.stdout} == set(tokens)


def test_no_command_is_counted_by_the_hub():
    code = (
        "from flows.entry import guarded; guarded(lambda: None); "
        "from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_TELEMETRY)"
    )
    unsaid = ("DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY")
    env = {name: value for name, value in os.environ.items() if name not in unsaid}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("True\n", "")
