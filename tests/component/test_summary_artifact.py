"""What a study says of itself in Prefect's UI: from the warehouse, in points, without anything secret."""

import dataclasses

import pytest

from retain_core import run
from retain_core.redact import public_address
from retain_core.report.results import read_results
from retain_core.report.summary import closing_lines
from retain_core.study_file import load_study
from retain_core.summary_artifact import method_rows, summary_markdown
from tests.conftest import settings_at


@pytest.fixture(scope="module")
def results(warehouse):
    return read_results(warehouse, "smoke")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://me:secret@mlflow.example:5000/ml?token=secret#secret", "https://mlflow.example:5000/ml"),
        ("http://[::1]:5000", "http://[::1]:5000"),
        ("postgresql://me:secret@db/mlflow", None),
        ("sqlite:///mlflow.db", None),
        ("", None),
        (None, None),
    ],
)
def test_an_address_is_shown_without_what_it_carries(results, finished_home, uri, shown):
    assert public_address(uri) == shown
    config = settings_at(finished_home).model_copy(update={"mlflow_uri": uri})
    text = summary_markdown(results, config)
    assert "secret" not in text + closing_lines(config, "smoke")
    assert shown is None or f"[{shown}]({shown})" in text


def test_what_is_missing_or_failed_or_undeclared_is_said(results, finished_home):
    config = settings_at(finished_home)
    lost = {**results.arms[0], "status": "failed", "error": "out of | memory\nat step 3"}
    text = summary_markdown(dataclasses.replace(results, arms=[lost], primary=None, controls=[]), config)
    assert text.startswith("# smoke: no contrast was declared\n")
    assert f"| {lost['arm']} | out of \\| memory at step 3 |" in text
    assert "## Controls" not in text
    failed = [{**results.controls[0], "passed": False}]
    assert "**FAILED**" in summary_markdown(dataclasses.replace(results, controls=failed), config)
    late = {**results.primary, "declared_before": False, "diff": None, "verdict": "not reached"}
    text = summary_markdown(dataclasses.replace(results, primary=late), config)
    assert text.startswith("# smoke: not reached\n")
    assert "no figure" in text
    assert "exploratory" in text


def test_a_method_without_learning_rate_or_interval_has_empty_cells(results):
    bare = {**results.methods[0], "learning_rate": None, "drop": None, "drop_low": None, "drop_high": None}
    (row,) = method_rows(dataclasses.replace(results, methods=[bare]))
    assert (row["learning rate"], row["drop"], row["drop, 95 %"]) == ("", "-", "")


def test_how_far_the_base_is_stands_in_its_log(home, smoke_study):
    with run.open_study(load_study(smoke_study), settings_at(home)) as running:
        assert run.base_percent(running) == 100
        log = running.log_file("smoke/base")
        log.write_text(log.read_text() + "update 0 of 30\nupdate 9 of 30\nupdate x\n")
        assert run.base_percent(running) == 30
        log.unlink()
        assert run.base_percent(running) == 0
