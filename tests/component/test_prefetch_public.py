"""`retain prefetch` of public data and `--pin`, against a hub on this machine that has rows of our own in the same schemas."""

import csv
import json
import subprocess
import sys

import pytest

from retain_core.public.catalogue import PUBLIC
from tests.conftest import ROOT, environment
from tests.hub import SHA, Hub
from tests.language import sentence_tables
from tests.public import raw_rows
from tests.unit.test_public_study import TEXT as NAMED

TEXT = NAMED.replace("allenai/wildguard", "a_folder_here")


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub with all six data sets; one of them wants its terms accepted, one has lost a column."""
    folder = tmp_path_factory.mktemp("hub")
    sentence_tables(folder / "nltk_data")
    datasets = {data.hub: _repository(folder / data.hub.replace("/", "_"), data) for data in PUBLIC.values()}
    with Hub({"acme/tiny": folder}, datasets, gated=("allenai/wildjailbreak",)) as served:
        yield served


def _repository(folder, data):
    """A data set as a repository: one file, and a README that says which configuration and split it is."""
    (rows,) = raw_rows(data.name, 40).values()
    if data.name == "math_cot":
        rows = [{("task" if key == "problem" else key): value for key, value in row.items()} for row in rows]
    folder.mkdir()
    name = "rows.tsv" if data.loading else "rows.jsonl"
    with (folder / name).open("w", newline="") as stream:
        if data.loading:
            writer = csv.DictWriter(stream, rows[0].keys(), delimiter="\t")
            writer.writeheader()
            writer.writerows(rows)
        else:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
    config = data.config or "default"
    files = f"configs:\n- config_name: {config}\n  data_files:\n  - split: {data.split}\n    path: {name}\n"
    (folder / "README.md").write_text(f"---\n{files}---\n")
    return folder


def prefetch(study, folder, hub, *more):
    given = environment(folder / "home")
    settings = {k: v for k, v in given.items() if k not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    settings |= {"HF_HOME": str(folder / "cache"), "HF_ENDPOINT": hub.url}
    command = [sys.executable, "-m", "flows.cli", "prefetch", str(study), *more]
    return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=500)


def test_public_data_are_fetched_converted_counted_and_pinned(hub, tmp_path):
    wanted = [name for name in PUBLIC if name not in ("wildjailbreak", "math_cot")]
    text = TEXT.replace("math_cot, wildjailbreak, ", "").replace("base: lab/smoke", "base: lab/smoke  # the base")
    (tmp_path / "study.yaml").write_text(text)
    done = prefetch(tmp_path / "study.yaml", tmp_path, hub, "--pin")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:4] == [f"{name} ({PUBLIC[name].hub}): main is {SHA}" for name in wanted]
    assert lines[4] == f"{tmp_path / 'study.yaml'}: 4 revisions written"
    home = tmp_path / "home" / "public"
    assert [line.split(":")[0] for line in lines[5:9]] == wanted
    assert (
        f"countdown_cot: 12 training prompts and 6 items of 40 rows of {PUBLIC['countdown_cot'].hub}; commit {SHA[:12]};"
        in lines[5]
    )
    assert lines[9] == "nltk's sentence tables (punkt_tab) are here"
    (folder,) = (home / "countdown_cot").iterdir()
    assert folder.name.startswith(SHA)
    counts = json.loads((folder / "counts.json").read_text())
    assert (counts["commit"], counts["revision"], counts["rows"], counts["train"]) == (SHA, SHA, 40, 12)
    assert len((folder / "train.jsonl").read_text().splitlines()) == 12
    changed = (tmp_path / "study.yaml").read_text()
    assert [line for line in text.splitlines() if line not in changed.splitlines()] == []
    again = prefetch(tmp_path / "study.yaml", tmp_path, hub, "--pin")
    assert again.stdout.splitlines()[0] == f"{tmp_path / 'study.yaml'}: nothing to pin"
    assert "it was here, in" in again.stdout
    assert (tmp_path / "study.yaml").read_text() == changed


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("wildjailbreak", 2, "wildjailbreak: allenai/wildjailbreak is gated; accept its terms on the hub and set HF_TOKEN"),
        ("math_cot", 2, "HuggingFaceH4/MATH-500 has no column 'problem' any more (it has task, solution, answer"),
    ],
)
def test_what_cannot_be_fetched_is_one_sentence_and_leaves_nothing(hub, tmp_path, name, code, words):
    text = TEXT[: TEXT.index("data:")]
    lines = ["target: countdown", f"retention: [{name}]", "controls: []"]
    kept = [line for line in text.splitlines() if not line.startswith(("target", "retention", "controls"))]
    (tmp_path / "study.yaml").write_text("\n".join([*kept, *lines]) + "\n")
    done = prefetch(tmp_path / "study.yaml", tmp_path, hub)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert words in done.stderr
    assert not list((tmp_path / "home").glob("public/*/*"))
