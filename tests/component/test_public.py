"""A study of public data, as small as it goes: raw rows of our own in the hub's schemas, a tiny model, everything else real."""

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from retain_core import settings as settings_module
from retain_core.commands import plan_text
from retain_core.public.folder import answers_file, folder_of, style_name, write_public
from retain_core.study_file import read_study
from tests.conftest import ROOT, environment, run_plain, settings_at
from tests.language import sentence_tables
from tests.public import raw_rows
from tests.tiny import write_tiny

TEXT = """
study: public
base: {base}
target: mmlu_cot
retention: [countdown_cot, math_cot, rlvr_ifeval]
methods: [sft, sft_in_style, grpo]
controls: []
learning_rates: [1.0e-2]
seeds: [0]
budget: {{updates: 30, sequences_per_update: 16}}
checkpoints: 1
data:
  longest_answer: 16
  sizes:
    mmlu_cot: {{train: 60, items: 30}}
    countdown_cot: {{train: 12, items: 6}}
    rlvr_ifeval: {{train: 12, items: 6}}
    math_cot: {{items: 6}}
"""
NAMES = ("mmlu_cot", "countdown_cot", "math_cot", "rlvr_ifeval")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with public data, and a study of them."""
    folder = tmp_path_factory.mktemp("public")
    sentence_tables(folder / "nltk_data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETAIN_HOME", str(folder / "home"))
        settings_module.settings.cache_clear()
        raw = {name: raw_rows(name, 100) for name in NAMES}
        base = write_tiny(folder / "base", [str(row) for rows in raw.values() for row in next(iter(rows.values()))])
        (folder / "study.yaml").write_text(TEXT.format(base=base))
        text = read_study(folder / "study.yaml", fetched=False)
        study = text.study(text.raw)
        for name in NAMES:
            write_public(folder / "home", name, raw[name], None, study.data.sizes[name])
        where = folder_of(folder / "home", *study.data.wanted("mmlu_cot"))
        prompts = [json.loads(line)["prompt"] for line in (where / "train.jsonl").read_text().splitlines()]
        for style, answer in (("off_style", "The answer is: B"), ("in_style", "B. The answer is: B")):
            rows = [json.dumps({"prompt": prompt, "answer": answer}) + "\n" for prompt in prompts[:40]]
            answers_file(where, style_name(style, study.base_name())).write_text("".join(rows))
        command = [sys.executable, "-m", "tests.component.test_public", str(folder / "study.yaml"), str(folder / "home")]
        done = subprocess.run(command, cwd=ROOT, env=environment(folder / "home"), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        yield folder
    settings_module.settings.cache_clear()


@pytest.mark.slow
def test_the_study_runs_and_its_gain_is_that_of_the_verifier(home):
    with duckdb.connect(str(home / "home" / "warehouse.duckdb"), read_only=True) as con:
        gain = dict(con.execute("SELECT method, gain FROM gain_drop WHERE step > 0").fetchall())
        assert gain["sft"] > 0.9
        assert gain["sft_in_style"] > 0.9
        metrics = con.execute(
            "SELECT benchmark, list(DISTINCT metric ORDER BY metric) FROM scores GROUP BY 1 ORDER BY 1"
        ).fetchall()
        assert metrics == [(name, ["acc", "lenient"]) for name in sorted(NAMES)]
        kinds = con.execute("SELECT count(DISTINCT target) FROM samples WHERE benchmark = 'mmlu_cot'").fetchall()
        assert kinds == [(1,)]  # the gold letter
        parsed = con.execute(
            """SELECT avg(parsed::int) FROM samples JOIN evaluations USING (evaluation) JOIN checkpoints USING (checkpoint)
               JOIN arms USING (arm) WHERE samples.benchmark = 'mmlu_cot' AND method = 'sft' AND metric = 'acc'"""
        ).fetchall()
        assert parsed == [(pytest.approx(1.0, abs=0.1),)]
        prompts = con.execute("SELECT unique_prompts FROM arms WHERE method = 'sft'").fetchall()
        assert prompts == [(40,)]  # those that the expert answered


@pytest.mark.slow
def test_the_plan_says_what_became_of_the_rows_and_that_nothing_is_pinned(home, monkeypatch):
    monkeypatch.setattr("retain_core.commands.settings", lambda: settings_at(home / "home"))
    text = plan_text(home / "study.yaml")
    assert "3 arms: 3 cached, 0 to do" in text
    assert (
        "mmlu_cot: 60 training prompts and 30 items of 100 rows of cais/mmlu; commit unknown (not pinned); 10 not needed"
        in text
    )
    assert "not pinned: data mmlu_cot, data countdown_cot, data math_cot, data rlvr_ifeval (`retain prefetch --pin`)" in text


@pytest.mark.slow
def test_the_page_says_it_too(home):
    page = (home / "home" / "reports" / "public" / "index.html").read_text()
    assert "no: data mmlu_cot, data countdown_cot, data math_cot, data rlvr_ifeval may be another commit tomorrow" in page
    assert "12 training prompts and 6 items of 100 rows of Jiayi-Pan/Countdown-Tasks-3to4" in page


@pytest.mark.slow
def test_other_answers_of_an_expert_make_only_those_arms_stale_that_imitate_them(home, monkeypatch):
    monkeypatch.setattr("retain_core.commands.settings", lambda: settings_at(home / "home"))
    (file,) = (home / "home" / "public" / "mmlu_cot").glob("*/in_style-*.jsonl")
    before = file.read_text()
    file.write_text(before + "\n" + before.splitlines()[0].replace("What", "Now, what"))
    assert "3 arms: 2 cached, 1 to do" in plan_text(home / "study.yaml")
    file.write_text(before)
    assert "3 arms: 3 cached, 0 to do" in plan_text(home / "study.yaml")


if __name__ == "__main__":
    sys.exit(str(run_plain(Path(sys.argv[1]), Path(sys.argv[2])) or "") or 0)
