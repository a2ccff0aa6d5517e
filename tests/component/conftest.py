"""Two small models with what lm-eval wrote about them, made once for all component tests."""

import pytest

from tests.component.two_models import ALL, prepare, run_harness


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A folder with a base, a tuned copy, and the benchmarks."""
    folder = tmp_path_factory.mktemp("models")
    prepare(folder)
    return folder


@pytest.fixture(scope="session")
def outputs(models, tmp_path_factory):
    """What lm-eval wrote about both models. Read only."""
    folder = tmp_path_factory.mktemp("outputs")
    for model in ("base", "tuned"):
        run_harness(models, model, ALL, folder)
    return folder
