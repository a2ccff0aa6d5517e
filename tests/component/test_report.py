"""The page says what the warehouse says, and loads nothing from anywhere."""

import re

import pytest

from retain_core.cost import parameter_count
from retain_core.report.build import points, write_report


@pytest.fixture(scope="module")
def page(finished_home, tmp_path_factory):
    reports = tmp_path_factory.mktemp("reports")
    return write_report(finished_home / "warehouse.duckdb", reports, "smoke").read_text()


def test_the_page_loads_nothing(page):
    assert not re.findall(r"""(?:src|href)\s*=|url\(|@import|<script""", page)


def test_every_method_stands_in_the_table_with_every_seed(page, warehouse):
    rows = warehouse.execute("SELECT method, gain, \"drop\", gain_by_seed FROM method_summary WHERE role = 'method'").fetchall()
    assert len(rows) == 2
    for method, gain, drop, by_seed in rows:
        line = next(part for part in page.split("<tr>") if f"</span>{method}<td" in part)
        for value in (gain, drop, *by_seed):
            assert points(value) in line


def test_the_page_has_the_plane_the_controls_and_the_provenance(page):
    assert "<svg" in page
    assert "gain on the target (points)" in page
    assert "learning_rate_0" in page
    assert re.search(r"all 1 passed", page)
    for word in ("spec hash", "torch 2.", "lm_eval 0.4", "A laboratory result"):
        assert word in page


def test_what_comes_from_data_is_escaped(home):
    import duckdb

    with duckdb.connect(str(home / "warehouse.duckdb")) as con:
        con.execute("UPDATE arms SET status = 'failed', error = '<script>alert(1)</script>' WHERE method = 'sft'")
    text = write_report(home / "warehouse.duckdb", home / "reports", "smoke").read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize(("value", "text"), [(0.0, "+0.0"), (-0.0001, "+0.0"), (0.123, "+12.3"), (-0.5, "-50.0"), (None, "-")])
def test_points(value, text):
    assert points(value) == text


def test_the_parameter_count_is_the_models(smoke_plan, base_model):
    model, _ = base_model
    assert parameter_count(smoke_plan) == sum(p.numel() for p in model.parameters())


def test_the_estimate_before_training_is_near(smoke_plan):
    from dataclasses import replace

    before = replace(smoke_plan, dataset=None)
    assert parameter_count(before) == pytest.approx(parameter_count(smoke_plan), rel=0.1)
