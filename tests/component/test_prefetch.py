"""`retain prefetch` against a hub on this machine, and a run that asks no hub for anything."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from retain_core.hub import is_hub_id, is_wanted
from retain_core.prefetch import hub_models
from retain_core.study_file import load_study
from tests.conftest import ROOT, environment, run_plain
from tests.hub import SHA, Hub

NOWHERE = "http://127.0.0.1:9"
QUIZ = (ROOT / "examples" / "own_method" / "manners.yaml").read_text()


@pytest.fixture(scope="module")
def files(tmp_path_factory, smoke_plan):
    """A model and a data set as repositories, and a study that names both."""
    folder = tmp_path_factory.mktemp("hub")
    shutil.copytree(smoke_plan.base_path, folder / "model", ignore=shutil.ignore_patterns("trainer", "manifest.json"))
    for name in ("pytorch_model.bin", "modeling_tiny.py", "onnx/model.safetensors", "consolidated.safetensors"):
        (folder / "model" / name).parent.mkdir(exist_ok=True)
        (folder / "model" / name).write_bytes(b"unwanted")
    (folder / "pickled").mkdir()
    shutil.copy(folder / "model" / "config.json", folder / "pickled")
    (folder / "pickled" / "pytorch_model.bin").write_bytes(b"x")
    (folder / "quiz").mkdir()
    shutil.copy(ROOT / "examples" / "own_method" / "manners.jsonl", folder / "quiz" / "test.jsonl")
    local = "dataset_path: json\ndataset_kwargs: {data_files: {test: manners.jsonl}}\n"
    assert local in QUIZ
    (folder / "quiz.yaml").write_text(QUIZ.replace(local, "dataset_path: acme/quiz\n"))
    text = (ROOT / "studies" / "smoke.yaml").read_text()
    text = text.replace("lab/smoke", "acme/tiny").replace("[sft, grpo]", "[sft]").replace("  - places\n", "")
    text = text.replace("methods:", "  - {benchmark: quiz, yaml: quiz.yaml}\nmethods:")
    text = text[: text.index("primary:")].replace("controls: [learning_rate_0]", "controls: []")
    (folder / "study.yaml").write_text(text)
    (folder / "quiz_only.yaml").write_text(text.replace("acme/tiny", "lab/smoke"))
    return folder


@pytest.fixture(scope="module")
def hub(files):
    repositories = {"acme/tiny": files / "model", "acme/pickled": files / "pickled", "acme/gated": files / "model"}
    with Hub(repositories, {"acme/quiz": files / "quiz"}) as served:
        yield served


@pytest.fixture(scope="module")
def fetched(files, hub):
    """The folder of a cache into which all of the study was fetched, and what was said."""
    cache = files / "cache"
    done = retain("prefetch", files / "study.yaml", cache=cache, endpoint=hub.url)
    assert done.returncode == 0, done.stderr
    return cache, done.stdout


def retain(*arguments, cache, endpoint, home=None, module="flows.cli"):
    settings = {k: v for k, v in environment(home or cache / "home").items() if k not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    settings |= {"HF_HOME": str(cache), "HF_ENDPOINT": endpoint}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=500)


def test_prefetch_says_what_it_fetched_and_how_large_it_is(fetched, files):
    cache, said = fetched
    model, data, last = said.splitlines()
    assert model.startswith(f"base acme/tiny: main is {SHA}, 6 files, ")
    assert model.endswith(f"in {cache}/hub/models--acme--tiny/snapshots/{SHA}")
    assert data == f"data set acme/quiz: 48 items, asked by {files / 'quiz.yaml'}"
    assert last.startswith("everything is here (")
    names = {p.name for p in (cache / "hub" / "models--acme--tiny" / "snapshots" / SHA).rglob("*")}
    assert "model.safetensors" in names
    assert not names & {"pytorch_model.bin", "modeling_tiny.py", "onnx", "consolidated.safetensors"}


@pytest.mark.slow
def test_after_prefetch_the_study_runs_and_asks_no_hub(fetched, files, hub, tmp_path):
    hub.asked.clear()
    done = retain(files / "study.yaml", tmp_path, cache=fetched[0], endpoint=hub.url, module="tests.component.test_prefetch")
    assert done.returncode == 0, done.stderr
    assert hub.asked == []
    with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as con:
        found = con.execute("SELECT DISTINCT benchmark, n FROM scores ORDER BY 1").fetchall()
        assert con.execute("SELECT DISTINCT status FROM arms").fetchall() == [("done",)]
    assert found == [("addition", 400), ("countdown", 520), ("quiz", 48)]


def test_what_other_programs_add_to_the_cache_changes_no_result(fetched, files, hub):
    snapshot = fetched[0] / "hub" / "models--acme--tiny" / "snapshots" / SHA
    code = "from retain_core.plan import base_reference; from retain_core.study_file import load_study; import sys; "
    code += "print(base_reference(load_study(sys.argv[1])).fingerprint)"

    def fingerprint():
        settings = {**os.environ, "HF_HOME": str(fetched[0])}
        command = [sys.executable, "-c", code, str(files / "study.yaml")]
        return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=True).stdout

    before = fingerprint()
    (snapshot / "README.md").write_text("hello")
    assert fingerprint() == before
    (snapshot / "generation_config.json").unlink()
    assert fingerprint() != before


@pytest.mark.parametrize(("command", "endpoint"), [("run", "unreachable"), ("plan", "there")])
def test_without_prefetch_a_command_says_at_once_what_to_do(files, hub, tmp_path, command, endpoint):
    hub.asked.clear()
    started = time.monotonic()
    url = hub.url if endpoint == "there" else NOWHERE
    done = retain(command, files / "study.yaml", cache=tmp_path / "empty", endpoint=url, home=tmp_path)
    assert time.monotonic() - started < 60  # of which almost all is importing, on a busy machine
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no model at 'acme/tiny', and none of that id in the local cache of the hub" in done.stderr
    assert "`retain prefetch STUDY.yaml`" in done.stderr
    assert hub.asked == []


@pytest.mark.slow
def test_a_data_set_that_is_not_there_says_what_to_do(files, tmp_path, hub):
    hub.asked.clear()
    arguments = (files / "quiz_only.yaml", tmp_path)
    done = retain(*arguments, cache=tmp_path / "empty", endpoint=hub.url, module="tests.component.test_prefetch")
    assert done.returncode == 1
    assert "the data set acme/quiz is not in the local cache of the hub" in done.stderr
    assert "`retain prefetch STUDY.yaml`" in done.stderr
    assert hub.asked == []


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("acme/nothing", 2, "the hub has no model 'acme/nothing'"),
        ("acme/pickled", 2, "acme/pickled has no .safetensors weights; other formats can run code"),
        ("acme/gated", 2, "acme/gated is gated; accept its terms on the hub and set HF_TOKEN"),
        ("{model: acme/tiny, revision: v9}", 2, "acme/tiny has no revision 'v9'"),
        ("acme/tiny", 1, "acme/tiny cannot be fetched: "),
    ],
)
def test_what_cannot_be_fetched_is_one_sentence(files, hub, tmp_path, name, code, words):
    study = tmp_path / "study.yaml"
    study.write_text((ROOT / "studies" / "smoke.yaml").read_text().replace("lab/smoke", name))
    done = retain("prefetch", study, cache=tmp_path / "cache", endpoint=NOWHERE if code == 1 else hub.url)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert words in done.stderr


def test_a_study_of_the_lab_needs_nothing_and_says_so(tmp_path, smoke_study):
    done = retain("prefetch", smoke_study, cache=tmp_path, endpoint=NOWHERE)
    assert done.returncode == 0
    assert done.stdout == "nothing to fetch: no model and no data set of the hub is named\n"


def test_offline_is_obeyed(files, tmp_path):
    settings = {**environment(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "flows.cli", "prefetch", str(files / "study.yaml")]
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True)
    assert (done.returncode, "HF_HUB_OFFLINE is set" in done.stderr) == (2, True)


def test_external_models_count_too(tmp_path, smoke_study):
    text = smoke_study.read_text().replace(
        "[sft, grpo]", "[sft, grpo, {label: a, algorithm: external, model: acme/a, revision: v1}]"
    )
    (tmp_path / "s.yaml").write_text(text)
    assert [(m.what, m.model, m.revision) for m in hub_models(load_study(tmp_path / "s.yaml"))] == [
        ("method a", "acme/a", "v1")
    ]


def test_what_is_an_id_and_what_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    assert is_hub_id("Qwen/Qwen3-0.6B")
    assert not any(map(is_hub_id, ("models/mine", "./models/mine", "/models/mine", "../x/y", "mine", "a/b/c", "a/..", "lab/")))
    assert is_wanted("model-00001-of-00002.safetensors")
    assert not any(map(is_wanted, ("pytorch_model.bin", "x.py", "onnx/model.safetensors", "consolidated.safetensors", "x.pt")))


if __name__ == "__main__":
    from retain_core.errors import RetainError

    try:
        sys.exit(len(run_plain(Path(sys.argv[1]), Path(sys.argv[2]))))
    except RetainError as error:
        sys.exit(f"retain: {error}")
