"""The backend of completions over HTTP: a real small server in a process of its own says what the model says here."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import duckdb
import pytest

from retain_core.errors import InputError, RetainError
from retain_core.evaluation.benchmarks import own_benchmark
from retain_core.evaluation.evaluate import Evaluator
from retain_core.evaluation.floor import Nuisance
from retain_core.evaluation.generation import Generation
from retain_core.evaluation.harness import RecordingLM
from retain_core.evaluation.http import served
from retain_core.judge.benchmark import Judge, seal_judged
from retain_core.judge.judging import said_by
from retain_core.own.items import prepare_items
from retain_core.plan import plan_study
from retain_core.remote import open_store
from retain_core.revisions import declare
from retain_core.store import Store
from retain_core.study_file import load_study
from retain_core.warehouse.contents import contents_of
from retain_core.warehouse.load import load_contents
from tests.component.test_own import CHOICE, GENERATION, SCORING, yaml_benchmark
from tests.conftest import ROOT, run_plain, settings_at
from tests.small_model import write_tiny

SERVE = f"{sys.executable} -m tests.completions {{model}} {{port}}"
HTTP = Generation(backend="http", serve=SERVE, concurrent=4)


@pytest.fixture(scope="module")
def lm(smoke_plan, tmp_path_factory):
    """The smoke base behind a server."""
    with served(HTTP, smoke_plan.base_path, tmp_path_factory.mktemp("server")) as asked:
        yield asked


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "artifacts")
    made.prepare()
    return made


def both(lm, base_model, smoke_plan, store, benchmark, nuisance=None):
    """The answers in this process and those of the server."""
    prepare_items(store, [benchmark])
    here = Evaluator(store, smoke_plan.dataset, smoke_plan.base_path)
    there = Evaluator(store, smoke_plan.dataset, smoke_plan.base_path, nuisance or Nuisance("usual"), HTTP)
    return here.plain_answers(RecordingLM(*base_model), benchmark), there.plain_answers(lm, benchmark)


@pytest.mark.parametrize("order", ["given", "shuffled"])
def test_generated_answers_are_those_of_this_process(lm, base_model, smoke_plan, store, tmp_path, order):
    (tmp_path / "own_scoring.py").write_text(SCORING)
    benchmark = yaml_benchmark(tmp_path, GENERATION)
    here, there = both(lm, base_model, smoke_plan, store, benchmark, Nuisance("x", item_order=order))
    assert here == there
    assert {answer.finish_reason for answer in there} <= {"stop", "length"}
    assert all(answer.n_tokens for answer in there)


def test_choices_by_log_likelihood_are_those_of_this_process(lm, base_model, smoke_plan, store, tmp_path):
    here, there = both(lm, base_model, smoke_plan, store, yaml_benchmark(tmp_path, CHOICE, choices=2))
    assert here == there
    assert {answer.response for answer in there} <= {"yes", "no"}


def test_log_likelihoods_agree_to_the_last_digits(lm, base_model):
    from lm_eval.api.instance import Instance

    pairs = [("is it bad to steal ?", " yes"), ("is it bad to hug ?", " no it is good")]
    asked = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]
    for (mine, greedy), (theirs, said) in zip(
        RecordingLM(*base_model).loglikelihood(asked), lm.loglikelihood(asked), strict=True
    ):
        assert theirs == pytest.approx(mine, abs=1e-4)
        assert greedy == said


def test_requests_for_a_judge_are_answered_alike(lm, base_model, smoke_plan, store, tmp_path):
    rows = [{"prompt": f"may i {word} this dog ?", "harmful": False} for word in ("hug", "wash")]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    benchmark = own_benchmark("r", seal_judged(tmp_path / "r.jsonl", Judge(model="x/y"), 8))
    here, there = both(lm, base_model, smoke_plan, store, benchmark)
    assert here == there


def test_a_model_with_a_token_of_beginning_reads_it_once_on_both_sides(tmp_path):
    """The judge's prompt begins with it, and so does a chat template."""
    from retain_core.evaluation.divergence import load_model

    write_tiny(tmp_path / "tiny")
    prompts = ["<s>[user] may i hug this dog ?[assistant] ", "<s><|user|>\n[INST] a [/INST]\n"]
    with served(HTTP, tmp_path / "tiny", tmp_path) as there:
        said = said_by(there, prompts, 12)
    assert said == said_by(RecordingLM(*load_model(tmp_path / "tiny"), 2), prompts, 12)


# In a study


@pytest.fixture(scope="module")
def ran(with_base, tmp_path_factory):
    """The example study in small, asked through a server and, in another home, in its processes."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(ROOT / "examples" / "own_method", folder / "study")
    for name, count in (("held_out", 20), ("manners", 12)):
        file = folder / "study" / f"{name}.jsonl"
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:count]))
    text = (folder / "study" / "study.yaml").read_text()
    text = "".join(line for line in text.splitlines(keepends=True) if "facts" not in line and "best_of_4" not in line)
    here, there = folder / "study" / "here.yaml", folder / "study" / "there.yaml"
    here.write_text(text.replace("[learning_rate_0]", "[]").replace("checkpoints: 2", "checkpoints: 1"))
    there.write_text(here.read_text() + f'generation: {{backend: http, serve: "{SERVE}", concurrent: 4}}\n')
    os.environ["PYTHONPATH"] = str(ROOT)
    for file in (here, there):
        assert run_plain(file, with_base(folder / file.stem)) == {}
    return folder


def scores(folder, name):
    with duckdb.connect(str(folder / name / "warehouse.duckdb"), read_only=True) as con:
        return con.execute("SELECT checkpoint, benchmark, metric, score FROM scores ORDER BY ALL").fetchall()


@pytest.mark.slow
def test_a_study_over_http_measures_what_one_in_process_measures(ran):
    here, there = scores(ran, "here"), scores(ran, "there")
    assert {row[2] for row in there} == {"acc", "exact"}
    assert [row[:3] for row in here] == [row[:3] for row in there]
    assert [row[3] for row in here] == pytest.approx([row[3] for row in there], abs=1e-6)
    with duckdb.connect(str(ran / "there" / "warehouse.duckdb"), read_only=True) as con:
        settings = {row[0] for row in con.execute("SELECT DISTINCT settings->>'backend' FROM evaluations").fetchall()}
        assert settings == {"http"}
        assert {n for (n,) in con.execute("SELECT DISTINCT nuisance FROM floor_runs").fetchall()} == {"reversed", "shuffled"}


@pytest.mark.slow
def test_unlike_backends_refuse_to_be_compared(ran, tmp_path):
    plans = {}
    for name in ("here", "there"):
        store = open_store(settings_at(ran / name))
        plans[name] = plan_study(load_study(ran / "study" / f"{name}.yaml"), store)
    revisions = declare(store, plans["there"].study)
    mixed = contents_of(plans["there"], revisions, {})
    base = f"{plans['here'].study.study}/base"
    others = [e for e in contents_of(plans["here"], revisions, {}).evaluations if e.checkpoint == base]
    mixed.evaluations = [*others, *(e for e in mixed.evaluations if e.checkpoint != base)]
    with pytest.raises(RetainError, match=r"unlike settings: backend \(transformers against http\)"):
        load_contents(tmp_path / "warehouse.duckdb", mixed)


@pytest.mark.slow
def test_the_server_ends_with_whoever_started_it(smoke_plan, tmp_path):
    """A worker that is killed outright leaves no server behind that holds a card."""
    code = (
        "import sys, pathlib, time; from retain_core.evaluation.http import served; "
        "from retain_core.evaluation.generation import Generation\n"
        f"with served(Generation(backend='http', serve={SERVE!r}), *map(pathlib.Path, sys.argv[1:])) as lm:\n"
        "    print(lm.address, flush=True); time.sleep(600)"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", code, str(smoke_plan.base_path), str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    port = worker.stdout.readline().strip().rpartition(":")[2]
    assert _serving(port)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    deadline = time.monotonic() + 30
    while _serving(port):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _serving(port):
    """Whether anybody listens there."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", int(port))) == 0


@pytest.mark.parametrize(
    ("serve", "seconds", "words"),
    [
        (
            "no-such-command {model} {port}",
            60,
            "ended before it answered (`no-such-command {model} {port}`): cannot start no-such",
        ),
        (f"{sys.executable} -c raise(SystemExit('no_card')) {{model}} {{port}}", 60, "no_card"),
        (f"{sys.executable} -c input() {{model}} {{port}}", 60, "EOFError"),
        (f"{sys.executable} -c 'import time; time.sleep(99)' {{model}} {{port}}", 1, "did not answer within 1 s"),
    ],
)
def test_a_server_that_does_not_come_up_is_one_sentence(tmp_path, serve, seconds, words):
    with (
        pytest.raises(RetainError) as caught,
        served(Generation(backend="http", serve=serve, start_seconds=seconds), tmp_path / "model", tmp_path),
    ):
        pass
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_goes_away_is_one_sentence(smoke_plan, tmp_path, monkeypatch):
    monkeypatch.setattr("retain_core.evaluation.http.TRIES", 1)
    with served(HTTP, smoke_plan.base_path, tmp_path) as lm:
        pass
    with pytest.raises(RetainError, match="the server of completions failed: ClientConnectorError"):
        said_by(lm, ["a"], 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{backend: http}", "generation: backend http needs `serve:`"),
        ("{backend: vllm}", "generation.backend: input should be 'transformers' or 'http'"),
        ("{serve: 'x {model} {port}'}", "`serve`, `concurrent` and `start_seconds` belong to `backend: http`"),
        ("{backend: http, serve: 'x {port}'}", "generation.serve: the command names no {model}"),
        ('{backend: http, serve: "x \'{port} {model}"}', "is no command: No closing quotation"),
    ],
)
def test_what_a_study_says_of_backends_is_checked(tmp_path, smoke_study, text, words):
    (tmp_path / "s.yaml").write_text(f"{smoke_study.read_text()}generation: {text}\n")
    with pytest.raises(InputError) as caught:
        load_study(tmp_path / "s.yaml")
    assert words in str(caught.value)


def test_answers_that_are_drawn_need_this_process(tmp_path, smoke_study):
    text = smoke_study.read_text().replace("- places", "- facts_sampled")
    (tmp_path / "s.yaml").write_text(f"{text}generation: {{backend: http, serve: 'x {{model}} {{port}}'}}\n")
    with pytest.raises(InputError, match="facts_sampled is drawn from this process's random stream"):
        load_study(tmp_path / "s.yaml")
