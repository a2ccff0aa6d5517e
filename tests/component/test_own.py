"""The user's own benchmark, target and method on a real tiny base: the example, and what it does not show."""

import json
import shutil
import sys
from itertools import cycle
from types import SimpleNamespace

import duckdb
import pytest

from retain_core.commands import plan_text
from retain_core.errors import InputError, RetainError
from retain_core.evaluation.benchmarks import own_benchmark, target_benchmark
from retain_core.evaluation.evaluate import Evaluator
from retain_core.evaluation.floor import Nuisance
from retain_core.evaluation.harness import RecordingLM
from retain_core.own.benchmark import seal_benchmark
from retain_core.own.files import locate
from retain_core.own.items import prepare_items, read_items
from retain_core.own.target import FileTarget, TargetFiles, seal_target
from retain_core.plan import plan_study
from retain_core.run import open_study
from retain_core.store import Store
from retain_core.study_file import load_study
from retain_core.training.imitation.expert import solvable
from retain_core.training.preference import GROUP, sampled_pairs
from retain_core.training.rewards import judged
from tests.conftest import ROOT, retain, run_plain, settings_at, tree

VERBS = ("steal", "wash", "burn", "feed", "break", "hug", "kick", "lift")


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "artifacts")
    made.prepare()
    return made


@pytest.fixture
def lm(base_model):
    return RecordingLM(*base_model)


# The example, end to end


@pytest.fixture(scope="module")
def example(with_base, tmp_path_factory):
    """The example in a folder of its own, and a home in which it has run."""
    folder = tmp_path_factory.mktemp("example")
    shutil.copytree(ROOT / "examples" / "own_method", folder / "study")
    assert run_plain(folder / "study" / "study.yaml", with_base(folder / "home")) == {}
    return folder / "study" / "study.yaml", folder / "home"


def test_the_warehouse_holds_the_arm_its_gain_and_the_drop_on_the_benchmark(example):
    with duckdb.connect(str(example[1] / "warehouse.duckdb"), read_only=True) as con:
        last = "FROM gain_drop WHERE method = 'best_of_4' ORDER BY step DESC LIMIT 1"
        gain, exact, kl = con.execute(f"SELECT gain, gain_exact, kl_forward {last}").fetchone()
        assert gain > 0.3
        assert exact > 0.3
        assert kl > 0
        rows = con.execute(
            """SELECT n, base_score, score, "drop", lost, chance FROM forgetting JOIN (
               SELECT benchmark, 1.0 / choices AS chance FROM study_benchmarks WHERE study = 'own_method') USING (benchmark)
               WHERE method = 'best_of_4' AND benchmark = 'manners' ORDER BY step DESC LIMIT 1"""
        ).fetchone()
        n, before, after, drop, lost, chance = rows
        assert (n, chance) == (48, 0.25)
        assert drop == pytest.approx(before - after)
        assert drop > 0.2
        assert lost >= drop * n
        clusters = con.execute("SELECT count(DISTINCT cluster) FROM samples WHERE benchmark = 'another_color'").fetchone()
        assert clusters == (28,)
        support = con.execute("SELECT k, pass_at_k FROM support WHERE study = 'own_method' ORDER BY k").fetchall()
        assert [k for k, _ in support] == [1, 8, 64]
        assert con.execute("SELECT passed FROM controls WHERE control = 'learning_rate_0'").fetchone() == (True,)
        assert con.execute("SELECT status, tokens_generated > 0 FROM arms WHERE method = 'best_of_4'").fetchone() == (
            "done",
            True,
        )
        floor = con.execute("SELECT benchmark, max_abs_drop FROM noise_floor WHERE study = 'own_method'").fetchall()
        assert {name for name, _ in floor} == {"another_color", "manners", "facts"}
        assert max(largest for _, largest in floor) < 0.1


def test_running_it_again_computes_nothing(example):
    study, home = example
    before = tree(home / "artifacts")
    with open_study(load_study(study), settings_at(home)) as running:
        assert running.plan.done
    assert run_plain(study, home) == {}
    assert tree(home / "artifacts") == before


def test_another_verifier_makes_it_stale_and_another_method_only_its_arm(example, tmp_path, monkeypatch):
    monkeypatch.setattr("retain_core.commands.settings", lambda: settings_at(example[1]))
    copy = tmp_path / "study"
    shutil.copytree(example[0].parent, copy)
    assert "3 arms: 3 cached, 0 to do" in plan_text(copy / "study.yaml")
    method, verifier = copy / "method.py", copy / "verifier.py"
    method.write_text(method.read_text() + "\n# changed\n")
    assert "3 arms: 2 cached, 1 to do" in plan_text(copy / "study.yaml")
    verifier.write_text(verifier.read_text() + "\n# changed\n")
    assert "3 arms: 0 cached, 3 to do" in plan_text(copy / "study.yaml")


# Benchmarks


def yaml_benchmark(folder, text, **more):
    (folder / "it.jsonl").write_text(
        "".join(
            json.dumps({"verb": verb, "group": i % 2, "right": ["yes", "no"][i % 2]}) + "\n" for i, verb in enumerate(VERBS)
        )
    )
    (folder / "it.yaml").write_text(
        "task: it\ndataset_path: json\ndataset_kwargs: {data_files: {test: it.jsonl}}\ntest_split: test\n"
        f"metadata: {{version: 1}}\n{text}"
    )
    return own_benchmark("it", seal_benchmark(folder / "it.yaml", **{"metric": None, "choices": None, "cluster": None, **more}))


GENERATION = """
output_type: generate_until
doc_to_text: !function own_scoring.ask
doc_to_target: right
process_results: !function own_scoring.score
generation_kwargs: {until: [], max_gen_toks: 6}
filter_list:
  - {name: whole, filter: [{function: take_first}]}
  - {name: first-word, filter: [{function: regex, regex_pattern: "(\\\\w+)"}, {function: take_first}]}
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: parsed, aggregation: mean, higher_is_better: true}
"""
SCORING = """
def ask(doc):
    return f"is it bad to {doc['verb']} ?"

def score(doc, results):
    return {"acc": float(results[0].strip() == doc["right"]), "parsed": float(len(results[0]) > 0)}
"""


def test_generation_with_functions_and_filters_is_lm_evals_own(lm, base_model, smoke_plan, store, tmp_path):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    from retain_core.own.benchmark import load_task

    (tmp_path / "own_scoring.py").write_text(SCORING)
    benchmark = yaml_benchmark(tmp_path, GENERATION, cluster="group", metric="acc,first-word")
    assert benchmark.metrics == ("acc,first-word", "acc,whole")
    prepare_items(store, [benchmark])
    answers = Evaluator(store, smoke_plan.dataset, smoke_plan.base_path).answers(lm, benchmark)
    model, tokenizer = base_model
    plain = simple_evaluate(
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=400, device="cpu"),
        tasks=[load_task(benchmark.own.yaml.path, "again")], apply_chat_template=True, bootstrap_iters=0,
    )["results"]["it"]  # fmt: skip
    for name in benchmark.metrics:
        assert sum(a.scores[name] for a in answers) / len(answers) == plain[name]
    assert [a.prompt for a in answers] == [f"is it bad to {verb} ?" for verb in VERBS]
    assert [a.cluster for a in answers] == ["0", "1"] * 4
    assert all(a.parsed for a in answers)
    assert {a.finish_reason for a in answers} <= {"stop", "length"}
    assert all(a.n_tokens <= 6 for a in answers)


CHOICE = """
output_type: multiple_choice
doc_to_text: "is it bad to {{verb}} ?"
doc_to_choice: ["yes", "no"]
doc_to_target: "{{['yes', 'no'].index(right)}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


@pytest.mark.parametrize("order", ["reversed", "shuffled"])
def test_the_order_of_items_changes_no_identity(lm, smoke_plan, store, tmp_path, order):
    benchmark = yaml_benchmark(tmp_path, CHOICE, choices=2)
    prepare_items(store, [benchmark])
    usual, other = (
        Evaluator(store, smoke_plan.dataset, smoke_plan.base_path, nuisance).answers(lm, benchmark)
        for nuisance in (Nuisance("usual"), Nuisance("x", item_order=order))
    )
    assert usual == other
    assert [a.target for a in usual] == ["yes", "no"] * 4
    assert all((a.response == a.target) == bool(a.scores["acc"]) for a in usual)


def test_items_that_read_alike_stay_apart(store, tmp_path):
    benchmark = yaml_benchmark(tmp_path, CHOICE.replace("{{verb}}", "steal"))
    prepare_items(store, [benchmark])
    items = read_items(store, benchmark)
    assert len({row["item"] for row in items}) == len(VERBS)


def test_another_cluster_makes_another_item(store, tmp_path):
    """The warehouse keeps the first row of an item, so the same question in another cluster must be another item."""
    found = {}
    for cluster in (None, "group", "verb"):
        benchmark = yaml_benchmark(tmp_path, CHOICE, cluster=cluster)
        prepare_items(store, [benchmark])
        found[cluster] = {row["item"] for row in read_items(store, benchmark)}
    assert len(set.union(*found.values())) == 3 * len(VERBS)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("is it bad to {{verb}} ?", "wash " * 70, "takes 73 tokens with its answer; the model reads 64"),
        ("metric: acc, aggregation: mean", "metric: f1, aggregation: f1", "f1 is no number for a single item"),
        ('["yes", "no"]\ndoc', "!function json.nothing\ndoc", "lm-eval cannot load"),
    ],
)
def test_a_benchmark_that_cannot_be_paired_is_refused(lm, smoke_plan, store, tmp_path, old, new, words):
    assert old in CHOICE
    with pytest.raises(RetainError, match=words):
        benchmark = yaml_benchmark(tmp_path, CHOICE.replace(old, new))
        prepare_items(store, [benchmark])
        Evaluator(store, smoke_plan.dataset, smoke_plan.base_path).answers(lm, benchmark)


def test_a_cluster_that_no_document_has_is_refused(store, tmp_path):
    benchmark = yaml_benchmark(tmp_path, CHOICE, cluster="passage")
    with pytest.raises(RetainError, match="item 0 has no field 'passage' to cluster by"):
        prepare_items(store, [benchmark])


# Targets


def files(folder, verifier, module, **more):
    rows = [{"prompt": f"is it bad to {verb} ?", "answer": ["yes", "no it is fine"][i % 2]} for i, verb in enumerate(VERBS)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:5]))
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[5:]))
    (folder / f"{module}.py").write_text(verifier)
    named = TargetFiles(name="mine", train="train.jsonl", items="items.jsonl", verifier=f"{module}:right", **more)
    return seal_target(named, folder)


def test_a_file_as_a_target(base_model, tmp_path):
    target = FileTarget(files(tmp_path, "def right(answer, row): return answer == row['answer']", "own_exact"), base_model[1])
    assert target.longest_answer == len(["no", "it", "is", "fine", "<|end|>"])
    stream = target.problems(3)
    first = [next(stream) for _ in range(target.size)]
    assert {p.prompt for p in first} == {f"is it bad to {verb} ?" for verb in VERBS[:5]}
    assert [p.key for p in first] != [0, 1, 2, 3, 4]
    assert [next(stream).key for _ in range(5)] != [p.key for p in first]
    known = dict(target.expert({}, 0, 5))
    assert all(p.right(f" {known[p.prompt]}\n") and not p.right("red") for p in first)
    assert {prompt for prompt, _ in target.expert({}, 0, 9, only=[first[0].key])} == {first[0].prompt}
    with pytest.raises(InputError, match="has no `valid`"):
        target.right_answers(first[0])
    with pytest.raises(RetainError, match="the target has no retention text"):
        next(target.retention(0))


@pytest.mark.parametrize(
    ("verifier", "metric", "words"),
    [
        (
            "def right(answer): return True",
            "acc",
            "the verifier of mine failed on more than 25% of 3 samples; .* raised TypeError",
        ),
        ("def right(answer, row): return None", "acc", "returned None"),
        ("def right(answer, row): return 0.5", "acc", "graded answers need `metric: score`"),
        ("def right(answer, row): return 2", "score", "a score lies between 0 and 1"),
    ],
)
def test_a_verifier_that_does_not_judge_is_refused(lm, smoke_plan, store, tmp_path, verifier, metric, words):
    module = f"own_bad_{abs(hash(verifier))}"
    benchmark = target_benchmark("mine", files(tmp_path, verifier, module, metric=metric))
    prepare_items(store, [benchmark])
    with pytest.raises(RetainError, match=words):
        Evaluator(store, smoke_plan.dataset, smoke_plan.base_path).answers(lm, benchmark)


def test_grades_are_scores(lm, smoke_plan, store, tmp_path):
    graded = files(tmp_path, "def right(answer, row): return 0.25", "own_graded", metric="score")
    benchmark = target_benchmark("mine", graded)
    prepare_items(store, [benchmark])
    answers = Evaluator(store, smoke_plan.dataset, smoke_plan.base_path).answers(lm, benchmark)
    assert [a.scores for a in answers] == [{"score": 0.25}] * 3


@pytest.mark.parametrize("dials", [{"algorithm": "grpo", "group_size": 4}, {"algorithm": "sft", "expert": "lowest_kl"}])
def test_the_other_methods_train_on_it(base, example, tmp_path, dials, one_thread):
    """Rewards come from the verifier, and the likeliest right answers from `valid`."""
    from retain_core.training.train import train
    from tests.component import golden

    own = load_study(example[0]).own.target
    spec = golden.arm_spec("own", dials, updates=2, own_target=own, target="another_color")
    record = train(spec, base, tmp_path)
    assert record.updates == 2
    assert record.tokens_trained > 0
    assert (record.tokens_generated > 0) == (dials["algorithm"] == "grpo")
    assert spec.key != golden.arm_spec("own", dials, updates=2).key


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise KeyError(answer)", "raised KeyError"),
        ("return float('nan')", "returned nan"),
        ("while True: pass", "took longer than 0.1 s"),
    ],
)
def test_a_verifier_that_fails_ends_no_method_at_once_and_makes_nothing_right(tmp_path, monkeypatch, base_model, body, words):
    """It fails on one prompt in five: below the share that is forgiven; then on all."""
    monkeypatch.setattr("retain_core.training.rewards.SECONDS_PER_ANSWER", 0.1)
    module = f"own_failing_{abs(hash(body))}"
    fails = "row['prompt'] == 'is it bad to steal ?' or answer == 'x'"
    verifier = f"def right(answer, row):\n    if {fails}:\n        {body}\n    return 1"
    target = FileTarget(files(tmp_path, verifier, module), base_model[1])
    stream = target.problems(0)
    problems = [next(stream) for _ in range(target.size)]
    assert judged(problems, [("yes", True)] * 5) == [p.prompt != "is it bad to steal ?" for p in problems]
    assert judged(problems, [("yes", False)] * 5) == [False] * 5
    with pytest.raises(RetainError, match=f"the verifier failed on more than 25% of 5 samples; .* {words}"):
        judged(problems, [("x", True)] * 5)
    base = SimpleNamespace(sample=lambda prompts, temperature: [("yes", True) for _ in prompts])
    solved = solvable(base, target, seed=0, most=5)
    assert {p.key for p in problems} - set(solved) == {p.key for p in problems if "steal" in p.prompt}
    base.sample = lambda prompts, temperature: [("yes" if i % GROUP else "x", True) for i in range(len(prompts))]
    others = cycle(p for p in problems if "steal" not in p.prompt)
    assert {(right, wrong) for _, right, wrong in sampled_pairs(base, others, 4, 1.0, seed=0)} == {("yes", "x")}


# Any base, any package


def test_any_folder_with_a_chat_template_is_a_base(smoke_plan, example, tmp_path):
    """The base as a plain folder, whose tokenizer has no padding token: it pads with the stop token."""
    from retain_core.training.encode import read_tokenizer

    model = tmp_path / "model"
    shutil.copytree(smoke_plan.base_path, model)
    config = json.loads((model / "tokenizer_config.json").read_text())
    config.pop("pad_token")
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = read_tokenizer(model)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    study = tmp_path / "study"
    shutil.copytree(example[0].parent, study)
    text = (study / "study.yaml").read_text().replace("lab/smoke", str(model))
    (study / "study.yaml").write_text(text)
    plan = plan_study(load_study(study / "study.yaml"), Store(tmp_path / "none"))
    assert plan.base.lab is None
    (model / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="has no chat template"):
        plan_study(load_study(study / "study.yaml"), Store(tmp_path / "none"))


def test_an_installed_package_offers_verifiers_by_name(tmp_path, monkeypatch):
    package = tmp_path / "site"
    (package / "own_package").mkdir(parents=True)
    (package / "own_package" / "__init__.py").write_text("")
    (package / "own_package" / "checks.py").write_text("def right(answer, row): return answer == 'yes'\n")
    (package / "own_package-1.0.dist-info").mkdir()
    (package / "own_package-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: own-package\nVersion: 1.0\n")
    (package / "own_package-1.0.dist-info" / "entry_points.txt").write_text(
        "[retain.verifiers]\nyes = own_package.checks:right\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(package)])
    code = locate("target.verifier", "yes", tmp_path, "retain.verifiers")
    assert (code.module, code.function, code.folder) == ("own_package.checks", "right", None)
    assert code.load()("yes", {})
    monkeypatch.delitem(sys.modules, "own_package.checks")


def test_an_installed_package_offers_methods_by_name(tmp_path):
    """A study finds the method by its entry point where the package is installed, and says so where it is not."""
    package, study = tmp_path / "site", tmp_path / "study"
    shutil.copytree(ROOT / "examples" / "own_method", study)
    (package / "own_methods").mkdir(parents=True)
    (package / "own_methods" / "__init__.py").write_text("")
    (study / "method.py").rename(package / "own_methods" / "best.py")
    (package / "own_methods-1.0.dist-info").mkdir()
    (package / "own_methods-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: own-methods\nVersion: 1.0\n")
    (package / "own_methods-1.0.dist-info" / "entry_points.txt").write_text("[retain.methods]\nbest = own_methods.best:build\n")
    text = (study / "study.yaml").read_text()
    (study / "study.yaml").write_text(text.replace('"method:build"', "best"))
    planned = retain("plan", str(study / "study.yaml"), home=tmp_path / "home", PYTHONPATH=f"{ROOT}:{package}")
    assert planned.returncode == 0, planned.stderr
    assert "own_method/best_of_4" in planned.stdout
    missing = retain("plan", str(study / "study.yaml"), home=tmp_path / "home")
    assert missing.returncode == 2
    assert "'best' is no entry point in the group retain.methods" in missing.stderr


def test_a_builder_must_build_a_trainer_and_a_counter(tmp_path):
    from retain_core.own.method import METHODS, build_trainer

    (tmp_path / "own_builder.py").write_text("def build(*arguments): return None\n")
    with pytest.raises(RetainError, match="returned no pair of a trainer and a function that counts"):
        build_trainer(locate("x", "own_builder:build", tmp_path, METHODS), None, None, None, None, {})
