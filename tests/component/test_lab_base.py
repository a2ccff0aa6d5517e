"""The default base is what the lab promises: room to gain on the target, something to lose on the rest."""

import json

import pytest

from retain_core.evaluation.benchmarks import BENCHMARKS
from retain_core.evaluation.evaluate import Evaluator
from retain_core.evaluation.harness import RecordingLM
from retain_core.lab.base import train_base
from retain_core.lab.dataset import prepare_dataset
from retain_core.plan import BASE_THREADS
from retain_core.store import Store
from retain_core.study_file import load_study
from retain_core.support import measure_support, pass_at_k, support_key
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"), [(4, 1, 1, 0.25), (4, 2, 2, 1 - 1 / 6), (64, 0, 8, 0.0), (64, 64, 64, 1.0), (64, 1, 64, 1.0)]
)
def test_pass_at_k_by_hand(n, c, k, expected):
    assert pass_at_k(n, c, k) == pytest.approx(expected)


@pytest.mark.slow
def test_the_default_base_meets_its_conditions(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    study = load_study(ROOT / "studies" / "lab.yaml")
    store, spec = Store(tmp_path / "artifacts"), study.base.lab()
    store.prepare()
    dataset = prepare_dataset(store, spec)
    base = train_base(store, spec, BASE_THREADS)
    lm = RecordingLM(AutoModelForCausalLM.from_pretrained(base.path).eval(), AutoTokenizer.from_pretrained(base.path))
    evaluator, scores = Evaluator(store, dataset, base.path), {}
    for benchmark in study.benchmarks()[: 1 + len(study.retention)]:
        answers = evaluator.answers(lm, benchmark)
        scores[benchmark.name] = sum(a.scores["acc"] for a in answers) / len(answers)
    target = scores.pop(study.target)
    assert 0.05 <= target <= 0.5
    assert len(scores) >= 5
    assert sum(score >= 0.9 for score in scores.values()) >= 2, scores
    assert sum(0.5 <= score <= 0.8 for score in scores.values()) >= 2, scores
    measure_support(store, base.path, base.key, dataset.key, BENCHMARKS["countdown"], threads=2)
    support = store.get("support", support_key(base.key, dataset.key, BENCHMARKS["countdown"], 2)).meta["pass_at"]
    assert 0 < support["1"] <= support["8"] <= support["64"] <= 1, json.dumps(support)
