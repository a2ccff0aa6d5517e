"""The page says what the warehouse says, loads nothing from anywhere, and takes whatever a study holds."""

from __future__ import annotations

import csv
import html
import html.parser
import itertools
import json
import re
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pytest

from retain_core.cost import parameter_count
from retain_core.errors import InputError
from retain_core.report import changed
from retain_core.report.build import study_page, write_report
from retain_core.report.exports import latex
from retain_core.report.page import json_block, render
from retain_core.report.palette import DARK, LIGHT, PAPER, look, places
from retain_core.report.results import read_results
from retain_core.report.words import amount, interval, points, span, where
from retain_core.study_file import load_study
from retain_core.warehouse.query import open_warehouse
from tests.conftest import ROOT
from tests.synthetic import METHODS, TARGET, Truth, analyse_again, fill, made_scores

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028{{7*7}}"
RTL = "\u05e9\u05dc\u05d5\u05dd \u202e\U0001f469\u200d\U0001f680 100 %"


@pytest.fixture(scope="module")
def folder(finished_home, tmp_path_factory) -> Path:
    reports = tmp_path_factory.mktemp("reports")
    return write_report(finished_home / "warehouse.duckdb", reports, "smoke").parent


@pytest.fixture(scope="module")
def page(folder) -> str:
    return (folder / "index.html").read_text()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A made-up study with a declared contrast at a gain, controls and an exact score."""
    path = tmp_path_factory.mktemp("made") / "warehouse.duckdb"
    primary = {"contrast": ["harmful", "harmless"], "predict": ">", "at_gain": 0.1, "at": None, "margin": 0.02, "looks": 1}
    methods = {name: METHODS[name] for name in ("harmful", "harmless", "dear", "twin")}
    fill(path, made_scores(methods, seeds=(0, 1), primary=primary, controls=True, base="lab/made"), texts=True).close()
    return path


@pytest.fixture
def spoilt(made, tmp_path):
    """A function: change the copied warehouse, read the visible part of the new page."""

    def written(*statements: str, again: bool = False) -> str:
        shutil.copy(made, tmp_path / "warehouse.duckdb")
        with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as con:
            if again:
                analyse_again(con, *statements)
            else:
                for statement in statements:
                    con.execute(statement)
        return page_of(tmp_path / "warehouse.duckdb")

    return written


def page_of(warehouse: Path) -> str:
    """The page of the made-up study, without the files beside it."""
    with open_warehouse(warehouse) as con:
        return render(study_page(con, read_results(con, "made"), warehouse.parent / "artifacts"))


def visible(page: str) -> str:
    """What stands in the document apart from style, scripts and data."""
    return re.sub(r"(?s)<(script|style)\b.*?</\1>", "", page)


def data(page: str) -> dict:
    return json.loads(re.search(r'(?s)<script type="application/json" id="data">(.*?)</script>', page).group(1))


class Elements(html.parser.HTMLParser):
    """Every element with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_the_page_loads_nothing(page):
    elements = Elements(page).found
    assert not [
        (tag, a) for tag, a in elements if {"src", "srcset", "data"} & set(a) or tag in ("link", "iframe", "object", "img")
    ]
    assert {a["href"][0] for tag, a in elements if "href" in a} == {"#"}
    assert not [name for _, a in elements for name in a if name.startswith("on")]
    (policy,) = [a["content"] for tag, a in elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert "http" not in policy
    assert not re.findall(r"url\(|@import", page.split("<style>")[1].split("</style>")[0])


def test_every_method_stands_in_the_table_with_every_seed(page, warehouse):
    rows = warehouse.execute("SELECT method, gain, \"drop\", gain_by_seed FROM method_summary WHERE role = 'method'").fetchall()
    assert len(rows) == 2
    for method, gain, drop, by_seed in rows:
        for name, values in (("methods", (gain, drop)), ("seeds", by_seed)):
            table = page.split(f'id="table-{name}"')[1].split("</table>")[0]
            line = next(part for part in table.split("<tr>") if f"</svg>{method}<td" in part)
            for value in values:
                assert points(value) in line


def test_the_page_has_the_controls_and_the_provenance(page, warehouse):
    assert "learning_rate_0" in page
    for word in ("1 of 6 controls passed", "spec hash", "torch 2.", "lm_eval 0.4", "A laboratory result", "One seed only"):
        assert word in visible(page)
    (used,) = warehouse.execute("SELECT DISTINCT hardware FROM arms WHERE role <> 'base'").fetchone()
    assert re.search(r", 1 of \d+ cores$|^\d+ x ", used)
    assert f'<td>trained on<td class="wrap">{html.escape(used)}' in page


def test_the_files_beside_the_page_are_those_that_the_docs_name(folder):
    text = (ROOT / "docs" / "report.md").read_text()
    for name in sorted(p.name for p in folder.iterdir()):
        assert f"`{name}`" in text, f"docs/report.md does not say what {name} is"


def test_every_section_is_in_the_docs(page):
    text = (ROOT / "docs" / "report.md").read_text()
    for title in re.findall(r"<section id=\"\w+\">\n<h2>(.*?)</h2>", page):
        assert f"**{title}**" in text


def test_the_files_say_what_the_warehouse_says(folder, warehouse):
    rows = list(csv.DictReader((folder / "methods.csv").open()))
    found = warehouse.execute("SELECT method, \"drop\" FROM method_summary WHERE role = 'method' ORDER BY ALL").fetchall()
    assert sorted((row["method"], float(row["drop"])) for row in rows) == found
    count = warehouse.execute("SELECT count(*) FROM gain_drop WHERE role = 'method'").fetchone()[0]
    assert len(list(csv.DictReader((folder / "checkpoints.csv").open()))) == count
    for method, drop in found:
        assert points(drop) in next(
            line for line in (folder / "headline.md").read_text().splitlines() if f"| {method} |" in line
        )
        said = next(line for line in (folder / "headline.tex").read_text().splitlines() if line.startswith(method))
        assert points(drop).replace("-", "$-$") in said
    assert (folder / "gain_drop.svg").read_text().count("<path") > count


def test_the_study_file_beside_the_page_is_the_study(folder, warehouse):
    (known,) = warehouse.execute("SELECT spec_hash FROM studies WHERE is_current").fetchone()
    assert load_study(folder / "study.yaml").spec_hash() == known


def test_the_headline_is_one_sentence(made):
    page = visible(page_of(made))
    con = duckdb.connect(str(made), read_only=True)
    p = con.execute('SELECT diff, ci_low, ci_high, verdict, robust FROM contrasts WHERE "primary"').fetchone()
    con.close()
    (answer,) = re.findall(r'(?s)<p class="answer" id="answer">(.*?)</p>', page)
    assert answer.count(". ") == 0
    assert amount(p[0]) in answer
    assert "where both had gained 10 points" in answer
    assert f"95 % interval: {span(p[1], p[2])}" in answer
    assert (p[3], p[4]) == ("supported", True)
    assert "as the study predicted; the sign stays whichever benchmark is left out" in answer


def test_the_first_screen_says_what_each_of_the_two_lost(made, finished_home):
    """At the gain of the contrast from `matched_gain`, at the end of training from `method_summary`."""
    for path, sql, end in (
        (made, 'SELECT method, "drop", ci_low, ci_high FROM matched_gain WHERE abs(gain - 0.1) < 1e-9', "10 points"),
        (finished_home / "warehouse.duckdb", 'SELECT method, "drop", drop_low, drop_high FROM method_summary', "half of them)"),
    ):
        with open_warehouse(path) as con:
            (study,) = con.execute("SELECT study FROM studies").fetchone()
            a, b = con.execute('SELECT a, b FROM contrasts WHERE "primary"').fetchone()
            lost = {method: figures for method, *figures in con.execute(sql).fetchall()}
            page = visible(render(study_page(con, read_results(con, study), path.parent / "artifacts")))
        (said,) = re.findall(r"<dt>Lost</dt><dd>(.*?)</dd>", page)
        told = [f"{name} <b>{points(lost[name][0])}</b> {interval(*lost[name][1:])}" for name in (a, b)]
        assert said.startswith(", ".join(told) + " points, at the ")
        assert said.endswith(end)


def test_controls_that_were_not_run_count_as_not_passed(page):
    first = visible(page).split("<section")[0]
    assert "controls base_mixture, constant_reward, random_reward, style_placebo and planted_harm were not run" in first
    assert "Not all controls passed (base_mixture, constant_reward and 3 more)" in first
    assert 'class="chip good"' not in first


# Bad input


def test_what_comes_from_data_is_escaped(spoilt):
    page = spoilt(
        f"UPDATE arms SET status = 'failed', error = '{EVIL}' WHERE arm = 'made/harmful-lr0.0001-s1'",
        f"UPDATE flipped SET response = '{EVIL}', base_response = '{RTL}'",
        f"UPDATE items SET prompt = '{EVIL} {RTL}'",
        *(f"UPDATE {t} SET method = '{EVIL}' WHERE method = 'twin'" for t in ("arms", "intervals", "matched", "pareto")),
        f"UPDATE studies SET spec = replace(CAST(spec AS VARCHAR), '\"twin\"', '{json.dumps(EVIL)}')",
    )
    assert page.count("<script") == 3
    assert "<img" not in visible(page)
    assert visible(page).count("&lt;img src=x") > 3
    assert "{{7*7}}" in page
    assert "\u2028" not in page.split('id="data">')[1].split("</script>")[0]
    told = data(page)
    assert told["items"][0]["response"] == EVIL
    assert told["items"][0]["base_response"] == RTL
    assert EVIL in {row["method"] for row in told["datasets"]["checkpoints"]}


def test_a_block_of_json_cannot_end_early():
    value = [EVIL, "\u2029", "]]>", "<!--", "half \ud83d of one"]
    text = json_block(value)
    assert not re.findall("[<>&\u2028\u2029]", text)
    assert json.loads(text)[:4] == value[:4]
    text.encode()
    with pytest.raises(ValueError, match="JSON compliant"):
        json_block([float("nan")])


def test_latex_is_escaped():
    assert latex(r"50% of_x & {y} #1 $ ~ ^ \end") == (
        r"50\% of\_x \& \{y\} \#1 \$ \textasciitilde{} \textasciicircum{} \textbackslash{}end"
    )


def test_long_answers_are_cut_and_it_says_so(spoilt):
    page = spoilt(f"UPDATE flipped SET response = '{'long ' * 5000}'")
    assert max(len(row["response"]) for row in data(page)["items"]) < changed.LONGEST + 50
    assert f"Texts longer than {changed.LONGEST} characters are cut" in visible(page)
    assert len(page) < 4e6


def test_figures_that_are_no_numbers_are_shown_as_missing(spoilt):
    page = spoilt(
        """UPDATE comparisons SET "drop" = 'nan', score = 'nan' WHERE evaluation_id IN (SELECT evaluation_id
           FROM named_evaluations WHERE checkpoint = 'made/dear-lr0.0001-s0@20')""",
        "UPDATE contrasts SET diff_far = 'nan' WHERE \"primary\"",
    )
    told = data(page)
    (unknown,) = [row for row in told["datasets"]["checkpoints"] if row["drop"] is None]
    assert (unknown["method"], unknown["step"], unknown["gain"]) == ("dear", 20, None)
    assert "1 checkpoint without a figure" in visible(page)
    assert not re.findall(r"\bnan\b", visible(page), re.IGNORECASE)


def test_a_failed_control_withholds_and_is_told_first(spoilt):
    page = spoilt("UPDATE arms SET status = 'failed' WHERE method = 'style_placebo'", again=True)
    first = visible(page).split("<section")[0]
    assert "No verdict, as control style_placebo was not run. For what it is worth, " in first
    assert "Not all controls passed (style_placebo), so read nothing into the differences below." in first
    assert "as the study predicted" not in first


def test_a_control_that_ran_and_failed_withholds_too(spoilt):
    page = spoilt(
        """UPDATE sample_scores SET score = 1 - score WHERE item % 10 = 0 AND metric_id = 1 AND evaluation_id IN (
        SELECT evaluation_id FROM named_evaluations WHERE checkpoint LIKE 'made/learning_rate_0-%@80')""",
        again=True,
    )
    first, rest = visible(page).split("<section", 1)
    assert "No verdict, as control learning_rate_0 " in first
    assert "Not all controls passed (learning_rate_0)" in first
    line = next(part for part in rest.split('id="table-controls"')[1].split("<tr>") if part.startswith("<td>learning_rate_0"))
    assert '<td class="bad">no' in line


def test_a_failed_arm_is_named_with_its_error_and_the_rest_is_shown(spoilt):
    page = spoilt("UPDATE arms SET status = 'failed', error = 'out of <memory>' WHERE arm = 'made/twin-lr0.0001-s1'")
    first = visible(page).split("<section")[0]
    assert "<b>1 of 22 arms are missing:</b> made/twin-lr0.0001-s1 (out of &lt;memory&gt;)." in first
    assert {row["method"] for row in data(page)["datasets"]["cells"]} == {"harmful", "harmless", "dear", "twin"}
    assert visible(page).count('class="plot"') == len(data(page)["charts"]) == 7


def test_a_study_without_retention_benchmarks_shows_the_gain(spoilt):
    page = spoilt("DELETE FROM study_benchmarks WHERE role = 'retention'", again=True)
    first = visible(page).split("<section")[0]
    assert "No retention benchmark was evaluated: there is no drop to show." in first
    told = data(page)
    assert {row["drop"] for row in told["datasets"]["checkpoints"]} == {None}
    assert min(row["gain"] for row in told["datasets"]["checkpoints"]) != 0
    assert "gain_over_training" in told["charts"]
    assert not {"gain_drop", "benchmarks", "drop_over_training"} & set(told["charts"])


def test_a_study_in_which_nothing_was_lost_says_so(spoilt, tmp_path):
    page = spoilt(
        """UPDATE sample_scores s SET score = b.score FROM named_evaluations e, sample_scores b
        WHERE e.evaluation_id = s.evaluation_id AND b.evaluation_id = e.base_evaluation_id AND b.item = s.item
        AND b.metric_id = s.metric_id AND s.item < 60000""",
        again=True,
    )
    told = data(page)
    assert {row["drop"] for row in told["datasets"]["checkpoints"]} == {0}
    assert not re.findall(r"\b(nan|inf)\b", visible(page), re.IGNORECASE)
    assert "as much as" in re.findall(r'(?s)<p class="answer" id="answer">(.*?)</p>', page)[0]
    files = write_report(tmp_path / "warehouse.duckdb", tmp_path, "made").parent
    assert (files / "gain_drop.svg").read_text().count("role-mark") > 3


def test_a_study_half_done_shows_the_rest(spoilt):
    page = visible(spoilt("UPDATE arms SET status = 'missing' WHERE method IN ('harmful', 'twin')", again=True))
    assert "arms are missing" in page
    assert "There is no verdict on <b>harmful</b> and <b>harmless</b>" in page
    assert "</svg>harmless<td" in page.split('id="table-methods"')[1].split("</table>")[0]


def test_a_study_of_which_nothing_is_done_has_a_page(spoilt):
    emptied = (
        "named_evaluations",
        "checkpoints",
        "intervals",
        "contrasts",
        "contrast_benchmarks",
        "matched",
        "pareto",
        "kl_law",
    )
    page = visible(spoilt("UPDATE arms SET status = 'missing'", *(f"DELETE FROM {table}" for table in emptied)))
    assert "No checkpoint has been evaluated yet" in page
    assert "data-chart" not in page
    assert page.count("<section") >= 2


def test_a_warehouse_of_another_version_is_one_sentence(made, tmp_path):
    shutil.copy(made, tmp_path / "warehouse.duckdb")
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as con:
        con.execute("UPDATE schema_version SET version = version - 1")
        con.execute("DROP VIEW gain_drop")
    with pytest.raises(InputError, match="another version of retain; `retain run`"):
        write_report(tmp_path / "warehouse.duckdb", tmp_path, "made")


def test_what_an_earlier_page_left_is_taken_away(finished_home, tmp_path):
    (tmp_path / "smoke").mkdir()
    for name in ("kl_law.svg", "old.csv", "notes.txt"):
        (tmp_path / "smoke" / name).write_text("of an earlier page")
    write_report(finished_home / "warehouse.duckdb", tmp_path, "smoke")
    left = {p.name for p in (tmp_path / "smoke").iterdir() if p.read_text() == "of an earlier page"}
    assert left == {"notes.txt"}


def test_more_changed_answers_than_a_page_holds_are_drawn_evenly(made, monkeypatch):
    monkeypatch.setattr(changed, "_ROWS", changed._ROWS.replace(f"LIMIT {changed.MOST}", "LIMIT 70"))
    with duckdb.connect(str(made), read_only=True) as con:
        found = changed.read_changed(con, "made")
        again = changed.read_changed(con, "made")
        all_of_them = con.execute(
            """SELECT count(*), count(DISTINCT benchmark || a.method || direction) FROM flips f
            JOIN checkpoints c ON c.checkpoint = f.checkpoint JOIN arms a ON a.arm = c.arm
            WHERE c.step = 80 AND a.role = 'method'"""
        ).fetchone()
    assert found.rows == again.rows
    assert (len(found.rows), found.total, found.sampled) == (70, all_of_them[0], True)
    kinds = [(row["benchmark"], row["method"], row["direction"]) for row in found.rows]
    counts = {kind: kinds.count(kind) for kind in kinds}
    assert len(counts) == min(70, all_of_them[1])
    assert max(counts.values()) - min(counts.values()) <= 1


# Words and colours


@pytest.mark.parametrize(("value", "text"), [(0.0, "+0.0"), (-0.0001, "+0.0"), (0.123, "+12.3"), (-0.5, "-50.0"), (None, "-")])
def test_points(value, text):
    assert points(value) == text


def test_a_missing_end_is_no_interval():
    assert (interval(None, 0.1), interval(-0.1, 0.1), points(float("nan"))) == ("", "[-10.0, +10.0]", "-")


@pytest.mark.parametrize(
    ("diff", "low", "high", "said", "between"),
    [
        (0.253, 0.197, 0.309, "25.3 points more than", "19.7 to 30.9 more"),
        (-0.003, -0.009, 0.003, "0.3 points less than", "0.9 less to 0.3 more"),
        (-0.05, -0.08, -0.02, "5.0 points less than", "2.0 to 8.0 less"),
        (0.0001, -0.01, 0.01, "as much as", "1.0 less to 1.0 more"),
        (0.01, 0.0, 0.02, "1.0 point more than", "0.0 to 2.0 more"),
    ],
)
def test_differences_in_words(diff, low, high, said, between):
    assert (amount(diff), span(low, high)) == (said, between)


def test_places_in_words():
    assert where("last") == "at the end of training"
    assert where("gain=0.125") == "at the point where both had gained 12.5 points"


BLIND = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "none": np.eye(3).tolist(),
}
"""Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB."""


def linear(colour: str) -> np.ndarray:
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    high, low = sorted((float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (a, b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def lab(colour: str, sight: str) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    v = to_xyz @ np.clip(np.array(BLIND[sight]) @ linear(colour), 0, 1) / (to_xyz @ np.ones(3))
    f = np.where(v > 0.008856, np.cbrt(v), 7.787 * v + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize(("theme", "colours"), [("light", LIGHT), ("dark", DARK)])
def test_colours_stand_out_and_apart(theme, colours):
    assert min(contrast(colour, PAPER[theme]) for colour in colours) >= 3
    for sight in BLIND:
        apart = min(np.linalg.norm(lab(a, sight) - lab(b, sight)) for a, b in itertools.combinations(colours, 2))
        assert apart > 12, sight


def test_no_two_of_36_methods_look_alike():
    looks = [look(place) for place in places(f"method_{i}" for i in range(36)).values()]
    assert len({(one.fill, one.stroke) for one in looks}) == len({(one.colour, *one.dash) for one in looks}) == 36


def test_a_method_looks_the_same_in_every_chart_and_in_the_legend(tmp_path):
    names = [f"method_{i}" for i in range(11)]
    fill(tmp_path / "warehouse.duckdb", made_scores({name: Truth(drop=0.1) for name in names}, seeds=(0, 1), n=60)).close()
    page = page_of(tmp_path / "warehouse.duckdb")
    wanted = {name: look(i) for i, name in enumerate(names)}
    scales = [scale for chart in data(page)["charts"].values() for scale in method_scales(chart)]
    assert {channel for channel, _ in scales} == {"color", "strokeDash", "fill", "stroke", "strokeWidth"}
    of = {"color": "colour", "strokeDash": "dash", "strokeWidth": "width"}
    for channel, scale in scales:
        for name, said in zip(scale["domain"], scale["range"], strict=True):
            assert said == getattr(wanted[name], of.get(channel, channel)), (channel, name)
    for name in names:
        assert re.search(rf'<circle r="." style="fill: {re.escape(wanted[name].fill)}[;"][^<]*</circle></svg>{name}<', page)


def method_scales(value):
    """Every scale of the methods in a specification, with its channel."""
    if isinstance(value, list):
        return [found for inner in value for found in method_scales(inner)]
    if not isinstance(value, dict):
        return []
    own = [(k, v["scale"]) for k, v in value.items() if isinstance(v, dict) and v.get("field") == "method" and "scale" in v]
    return own + [found for inner in value.values() for found in method_scales(inner)]


def test_the_target_is_named_on_the_axes(made):
    told = data(page_of(made))
    titles = re.findall(r'"title": ?"([^"]*)"', json.dumps(told["charts"]["gain_drop"]))
    assert f"gain on {TARGET} (points, exact score)" in titles


def test_the_parameter_count_is_the_models(smoke_plan, base_model):
    model, _ = base_model
    assert parameter_count(smoke_plan) == sum(p.numel() for p in model.parameters())


def test_the_estimate_before_training_is_near(smoke_plan):
    from dataclasses import replace

    before = replace(smoke_plan, dataset=None)
    assert parameter_count(before) == pytest.approx(parameter_count(smoke_plan), rel=0.1)
