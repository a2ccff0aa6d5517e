"""Small models made once for all component tests."""

import pytest

from tests.component import golden
from tests.component.two_models import ALL, prepare, run_harness
from tests.conftest import made_once


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """The folder of the tiny base that golden trajectories start from."""
    (folder,) = (made_once(tmp_path_factory, "golden", golden.base_model) / "base").iterdir()
    return folder


@pytest.fixture(scope="session")
def tokenizer(base):
    """Its tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base)


@pytest.fixture(scope="module")
def one_thread():
    """Training on one thread: the thread count is part of what decides the bits."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A folder with a base, a tuned copy, and the benchmarks."""
    return made_once(tmp_path_factory, "models", prepare)


@pytest.fixture(scope="session")
def outputs(models, tmp_path_factory):
    """What lm-eval wrote about both models. Read only."""

    def make(folder):
        for model in ("base", "tuned"):
            run_harness(models, model, ALL, folder)

    return made_once(tmp_path_factory, "outputs", make)


@pytest.fixture
def jobs(monkeypatch):
    """Every job that gets a process of its own, by name."""
    from retain_core import workers

    started = []
    real = workers.run_job

    def watched(job, arguments, log):
        started.append((job, log.stem))
        return real(job, arguments, log)

    monkeypatch.setattr(workers, "run_job", watched)
    return started
