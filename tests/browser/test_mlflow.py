"""MLflow's own pages of a finished study: the runs, all arms compared, the study's page as an artifact."""

from __future__ import annotations

import shutil

import pytest
from playwright.sync_api import ConsoleMessage, Page, expect

from tests.conftest import mlflow_server

pytestmark = pytest.mark.browser

NOISE = ("/mlflow/users/current", "ResizeObserver loop completed with undelivered notifications")
"""MLflow's own: it asks who is logged in where nobody can, and its layout complains of itself."""
WAIT = 60_000
ARMS = ("sft-lr1e-3-s0", "grpo-lr1e-3-s0", "learning_rate_0-lr0-s0")


@pytest.fixture(scope="module")
def served(finished_home, tmp_path_factory):
    """Address of an MLflow server on a copy of the finished home's database, and a client of it."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("mlflow")
    shutil.copy(finished_home / "mlflow.db", folder / "mlflow.db")
    with mlflow_server(folder) as address:
        yield address, MlflowClient(address)


@pytest.fixture
def page(served, watched):
    """A page that fails the test at its end when there was an error on the console that is not MLflow's own."""
    errors: list[str] = []

    def note(message: ConsoleMessage) -> None:
        text = f"{message.text} {message.location.get('url', '')}"
        if message.type == "error" and not any(noise in text for noise in NOISE):
            errors.append(text)

    watched.page.on("console", note)
    watched.page.goto(f"{served[0]}/#/experiments")
    watched.page.get_by_text("Model training", exact=True).click(timeout=WAIT)  # it starts in "GenAI", which shows no runs
    yield watched.page
    assert errors == []


def arms_listed(page: Page) -> None:
    """Open the experiment, and the study's run in it, so that its arms stand below."""
    page.get_by_role("link", name="smoke", exact=True).click(timeout=WAIT)
    study = page.get_by_role("link", name="study smoke")
    expect(study).to_be_visible(timeout=WAIT)
    assert page.get_by_role("link", name="grpo-lr1e-3-s0", exact=True).count() == 0
    study.locator("xpath=ancestor::*[@role='gridcell'][1]").locator("button").first.click()  # the + beside it
    for name in ARMS:
        expect(page.get_by_role("link", name=name, exact=True)).to_be_visible(timeout=WAIT)


def test_all_arms_ticked_and_compared_are_lines_over_method_learning_rate_gain_and_drop(page: Page):
    arms_listed(page)
    for name in ARMS:
        row = page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))
        row.get_by_role("checkbox").check(timeout=WAIT)
    page.get_by_text("Compare", exact=True).click(timeout=WAIT)
    expect(page.get_by_text("Comparing 3 Runs from 1 Experiment")).to_be_visible(timeout=WAIT)
    axes = page.locator(".parcoords .axis-title")
    expect(axes).to_have_text(["algorithm", "learning_rate", "method", "gain"], timeout=WAIT)
    page.get_by_text("Metrics:").locator("xpath=following::*[@role='combobox' or contains(@class,'select')][1]").click()
    page.keyboard.press("ArrowDown")  # from gain to drop, which is next in the list
    page.keyboard.press("Enter")
    expect(axes).to_have_text(["algorithm", "learning_rate", "method", "gain", "drop"], timeout=WAIT)


LINES = """() => [...document.querySelectorAll('.js-plotly-plot')].map(
    p => Object.fromEntries(p.data.filter(t => t.x.length > 1).map(t => [t.name, t.x.map((x, i) => [x, t.y[i]])])))"""
"""Of every chart on the page: run -> the points of its line."""


@pytest.mark.slow
def test_the_curves_of_the_arms_lie_over_one_another(served, page: Page):
    _, client = served
    experiment = client.get_experiment_by_name("smoke").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment]) if "mlflow.parentRunId" in run.data.tags}
    arms_listed(page)
    page.locator("label:has(input[value=CHART])").click(timeout=WAIT)
    box = page.get_by_placeholder("Search metric charts")
    for key in ("train/loss", "train/reward", "kl/forward", "gain", "drop", "eval/countdown/acc", "eval/places/acc"):
        known = {
            name: [[m.step, pytest.approx(m.value, abs=1e-6)] for m in client.get_metric_history(run.info.run_id, key)]
            for name, run in runs.items() if key in run.data.metrics
        }  # fmt: skip
        assert len(known) == (1 if key == "train/reward" else 3)
        assert min(map(len, known.values())) > 1, key
        box.fill(f"^{key}$", timeout=WAIT)
        for _ in range(60):
            if (drawn := page.evaluate(LINES)) == [known]:
                break
            page.wait_for_timeout(500)
        assert drawn == [known], key


def test_the_summary_is_a_table_and_every_checkpoint_a_model(served, page: Page):
    address, client = served
    experiment = client.get_experiment_by_name("smoke").experiment_id
    (parent,) = [run for run in client.search_runs([experiment]) if "mlflow.parentRunId" not in run.data.tags]
    page.goto(f"{address}/#/experiments/{experiment}/runs/{parent.info.run_id}/artifacts/method_summary.json")
    for text in ("drop_low", "grpo"):
        expect(page.get_by_text(text, exact=True).first).to_be_visible(timeout=WAIT)
    page.goto(f"{address}/#/experiments/{experiment}/models")
    for model in client.search_logged_models([experiment]):
        expect(page.get_by_role("link", name=model.name, exact=True).first).to_be_visible(timeout=WAIT)


def test_the_study_run_shows_its_description_and_its_page(served, page: Page):
    address, client = served
    experiment = client.get_experiment_by_name("smoke").experiment_id
    (parent,) = [run for run in client.search_runs([experiment]) if "mlflow.parentRunId" not in run.data.tags]
    page.goto(f"{address}/#/experiments/{experiment}/runs/{parent.info.run_id}")
    expect(page.get_by_text("What did teaching countdown cost lab/smoke?")).to_be_visible(timeout=WAIT)
    page.goto(f"{address}/#/experiments/{experiment}/runs/{parent.info.run_id}/artifacts/report/index.html")
    shown = page.frame_locator("iframe").locator("h1")
    expect(shown).to_contain_text("What did teaching", timeout=WAIT)
