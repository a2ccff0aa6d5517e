"""The general suite by lm-eval's names: fetched from a hub on this machine, asked without one, scored as lm-eval scores."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from retain_core.errors import InputError
from retain_core.study_file import load_study
from retain_core.suite.catalogue import CATALOGUE
from retain_core.suite.programs import passes
from tests.conftest import ROOT
from tests.hub import SHA, Hub
from tests.small_model import write_tiny
from tests.suite_data import repositories

SUBJECTS = ("abstract_algebra", "anatomy", "astronomy")
NAMES = ("mmlu", "gsm8k", "hellaswag", "truthfulqa_mc2", "winogrande", "humaneval")


def process(command, folder, **more):
    """This module in a process of its own, which has the cache of `folder`; its last line as JSON."""
    settings = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    settings |= {"HF_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT), **more}
    done = subprocess.run(
        [sys.executable, "-m", "tests.component.test_suite", command, str(folder)], cwd=ROOT, env=settings,
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A cache into which the data sets were fetched, and a tiny model."""
    made = tmp_path_factory.mktemp("suite")
    write_tiny(made / "model", context=2048)
    with Hub({}, repositories(made / "hub", SUBJECTS)) as hub:
        (made / "said.json").write_text(json.dumps(process("fetch", made, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="0")))
    return made


@pytest.fixture(scope="module")
def asked(folder):
    """What the model answered without a network, and lm-eval's own figures."""
    return process("ask", folder, HF_HUB_OFFLINE="1")


def test_fetching_says_items_and_revision(folder):
    said = json.loads((folder / "said.json").read_text())
    assert f"data set cais/mmlu: {SHA}, 12 items, asked by mmlu of lm-eval" in said
    assert f"data set openai/openai_humaneval: {SHA}, 3 items, asked by humaneval of lm-eval" in said


def test_a_group_is_one_benchmark_whose_figure_is_the_groups(asked):
    mmlu = asked["mmlu"]
    assert mmlu["harness"]["acc"] == pytest.approx(mmlu["means"]["acc"])
    assert sorted(set(mmlu["clusters"])) == [f"mmlu_{subject}" for subject in SUBJECTS]
    assert mmlu["items"] == 12


def test_every_template_is_a_metric_of_its_own_beside_the_primary_one(asked):
    mmlu = asked["mmlu"]
    assert mmlu["metrics"] == ["acc", "acc,spelled", "acc,instructed"]
    assert set(mmlu["means"]) == set(mmlu["metrics"])
    assert mmlu["answers"] == 36
    assert mmlu["unlike_prompts"] == 3


@pytest.mark.parametrize("name", ["gsm8k", "hellaswag", "truthfulqa_mc2", "winogrande"])
def test_figures_are_lm_evals_own(asked, name):
    found = asked[name]
    assert found["harness"].keys() == found["means"].keys()
    for metric, figure in found["harness"].items():
        assert found["means"][metric] == pytest.approx(figure, abs=1e-9), metric


def test_items_are_clustered_and_say_what_would_have_been_right(asked):
    assert asked["hellaswag"]["clusters"][:3] == ["video~0", "video~0", "video~1"]
    assert asked["winogrande"]["targets"][0] == "The dog 0 saw the cat because the dog"
    assert asked["gsm8k"]["targets"][0] == "twice 7\n#### 14"


def test_a_pinned_revision_that_is_not_here_is_refused(asked):
    sentence = asked["other revision"]
    assert f"gsm8k: the local cache of the hub has openai/gsm8k at {SHA[:12]}, and the study pins 0123456789ab" in sentence
    assert "`retain prefetch STUDY.yaml`" in sentence


def test_another_revision_or_template_is_another_content(asked):
    assert len(set(asked["contents"])) == 3


@pytest.mark.parametrize(
    ("program", "right"),
    [
        ("assert 1 + 1 == 2", True),
        ("assert 1 + 1 == 3", False),
        ("import sys; sys.exit(0)", False),
        ("import os; os._exit(0)", False),
        ("while True: pass", False),
        ("x = ' ' * 2**33", False),
        ("def f(:", False),
        ("open('here', 'w').write('x'); print('é')", True),
    ],
)
def test_a_program_passes_when_it_runs_to_its_end(program, right):
    assert passes(program) is right


def test_right_programs_pass_and_others_do_not():
    from retain_core.suite.asking import _program
    from tests.suite_data import _programs

    for doc in _programs():
        assert passes(_program(doc, doc["canonical_solution"]))
        assert not passes(_program(doc, "    return a - b - 1\n"))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("humaneval", "humaneval runs programs that the model writes, on this machine and as you; where that is safe, say so"),
        ("{benchmark: gsm8k, unsafe_code: true}", "gsm8k runs no programs; leave `unsafe_code` out"),
        ("{benchmark: gsm8k, templates: 2}", "gsm8k has one prompt template, not 2"),
        ("{benchmark: mmlu, templates: 4}", "retention.1.templates: input should be less than or equal to 3"),
        ("{benchmark: gsm8k, metric: acc}", "gsm8k has no metric 'acc'; it has exact_match,strict-match"),
        ("{benchmark: gsm8k, yaml: x.yaml}", "gsm8k is a benchmark of lm-eval; give yours another name"),
        ("{benchmark: facts, revision: abc}", "`revision`, `templates` and `unsafe_code` belong to mmlu"),
        ("hellswag", "unknown benchmark 'hellswag'; did you mean 'hellaswag'?"),
    ],
)
def test_what_a_study_says_of_the_suite_is_checked(tmp_path, smoke_study, entry, words):
    (tmp_path / "s.yaml").write_text(smoke_study.read_text().replace("- places", f"- {entry}"))
    with pytest.raises(InputError) as caught:
        load_study(tmp_path / "s.yaml")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_benchmark_of_the_catalogue_is_in_the_installed_lm_eval():
    from retain_core.suite.benchmark import seal_suite

    for name, entry in CATALOGUE.items():
        found = seal_suite(name, None, templates=1 + len(entry.templates), unsafe_code=entry.programs)
        assert found.metrics[0] == entry.metric
        assert "/" in found.hub_data
    assert len(seal_suite("mmlu", None).parts) == 57


def _few_subjects():
    """Three of MMLU's 57 parts: each is a data set of its own to fetch."""
    CATALOGUE["mmlu"] = replace(CATALOGUE["mmlu"], yaml="mmlu/default/mmlu_a*.yaml")


def _fetch(folder):
    from retain_core.prefetch import prefetch

    text = (ROOT / "studies" / "smoke.yaml").read_text().replace("  - places\n", "".join(f"  - {n}\n" for n in NAMES))
    text = text.replace("- humaneval", "- {benchmark: humaneval, unsafe_code: true}")
    (folder / "study.yaml").write_text(text)
    return list(prefetch([load_study(folder / "study.yaml")], folder / "home"))


def _ask(folder):
    import torch
    from lm_eval.evaluator import evaluate

    from retain_core.errors import RetainError
    from retain_core.evaluation.benchmarks import own_benchmark
    from retain_core.evaluation.divergence import load_model
    from retain_core.evaluation.harness import RecordingLM
    from retain_core.own.items import prepare_items, read_items
    from retain_core.store import Store
    from retain_core.suite.asking import ask_suite
    from retain_core.suite.benchmark import seal_suite, tasks_of

    torch.set_num_threads(1)
    store, lm, told = Store(folder / "artifacts"), RecordingLM(*load_model(folder / "model"), 16), {}
    store.prepare()
    for name in NAMES:
        own = seal_suite(name, None, templates=3 if name == "mmlu" else 1, unsafe_code=name == "humaneval")
        benchmark = own_benchmark(name, own)
        prepare_items(store, [benchmark])
        items = read_items(store, benchmark)
        answers = ask_suite(lm, own, items)
        scored = {m: [a.scores[m] for a in answers if m in a.scores] for m in own.metrics}
        told[name] = {
            "metrics": own.metrics, "means": {m: sum(s) / len(s) for m, s in scored.items()}, "items": len(items),
            "answers": len(answers), "clusters": [row["cluster"] for row in items], "targets": [row["target"] for row in items],
        }  # fmt: skip
        if name == "humaneval":
            continue
        tasks = tasks_of(own)
        plain = evaluate(lm=lm, task_dict={"tasks": tasks}, bootstrap_iters=0, apply_chat_template=True)
        sizes = {part: len(task.eval_docs) for part, task in tasks.items()}
        figures = {}
        for metric in own.metrics:
            key = metric if ",strict" in metric or ",flexible" in metric else f"{metric},none"
            each = [(plain["results"][task.config.task].get(key), sizes[part]) for part, task in tasks.items()]
            if all(figure is not None for figure, _ in each):
                figures[metric] = sum(f * n for f, n in each) / sum(sizes.values())
        told[name]["harness"] = figures
    mmlu = seal_suite("mmlu", None, templates=3)
    asked = [next(iter(tasks_of(mmlu, template).values())) for template in (None, *mmlu.templates)]
    told["mmlu"]["unlike_prompts"] = len({task.doc_to_text(task.eval_docs[0]) for task in asked})
    pinned = seal_suite("gsm8k", None, revision="0123456789abcdef")
    try:
        tasks_of(pinned)
    except RetainError as error:
        told["other revision"] = str(error)
    told["contents"] = [mmlu.content, seal_suite("mmlu", None).content, seal_suite("mmlu", None, revision="ab").content]
    return told


if __name__ == "__main__":
    _few_subjects()
    print(json.dumps({"fetch": _fetch, "ask": _ask}[sys.argv[1]](Path(sys.argv[2]))))
