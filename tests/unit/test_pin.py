"""Writing revisions into the text of a study file: only the lines concerned change."""

from pathlib import Path

import pytest
import yaml

from retain_core.errors import InputError
from retain_core.pin import written

A, B = "a1" * 20, "b2" * 20
PATH = Path("study.yaml")


@pytest.mark.parametrize(
    ("before", "where", "after"),
    [
        ("base: acme/tiny # mine\nx: 1\n", ("base", "revision"), f"base: {{model: acme/tiny, revision: {A}}} # mine\nx: 1\n"),
        ("base: {model: acme/tiny}  # mine\n", ("base", "revision"), f"base: {{model: acme/tiny, revision: {A}}}  # mine\n"),
        ("base: {model: a/b, revision: main}\n", ("base", "revision"), f"base: {{model: a/b, revision: {A}}}\n"),
        (
            "base:\n    # the model\n    model: a/b  # small\n    seed: 1\n", ("base", "revision"),
            f"base:\n    # the model\n    model: a/b  # small\n    revision: {A}\n    seed: 1\n",
        ),
        ("base:\n  model: a/b", ("base", "revision"), f"base:\n  model: a/b\n  revision: {A}"),
        ("base:\r\n  model: a/b\r\nx: 1\r\n", ("base", "revision"), f"base:\r\n  model: a/b\r\n  revision: {A}\r\nx: 1\r\n"),
        (
            "methods:\n  - sft\n  - {label: t, model: a/b}\n", ("methods", 1, "revision"),
            f"methods:\n  - sft\n  - {{label: t, model: a/b, revision: {A}}}\n",
        ),
        (
            "methods:\n- label: t\n  model: a/b\n- grpo\n", ("methods", 0, "revision"),
            f"methods:\n- label: t\n  model: a/b\n  revision: {A}\n- grpo\n",
        ),
        ("x: 1\n\n\n", ("data", "revisions", "math_cot"), f"x: 1\ndata:\n  revisions:\n    math_cot: {A}\n"),
        (
            "data: {bad_rows: 0.1} # few\nx: 1\n", ("data", "revisions", "math_cot"),
            f"data: {{bad_rows: 0.1, revisions: {{math_cot: {A}}}}} # few\nx: 1\n",
        ),
        (
            "data:\n  sizes: # small\n    math_cot: {items: 1}\n", ("data", "revisions", "math_cot"),
            f"data:\n  revisions: {{math_cot: {A}}}\n  sizes: # small\n    math_cot: {{items: 1}}\n",
        ),
        ("data: {}\n", ("data", "revisions", "math_cot"), f"data: {{revisions: {{math_cot: {A}}}}}\n"),
        ("data:\nx: 1\n", ("data", "revisions", "math_cot"), f"data: {{revisions: {{math_cot: {A}}}}}\nx: 1\n"),
        (
            "data: {revisions: {math_cot: main}}\n", ("data", "revisions", "math_cot"),
            f"data: {{revisions: {{math_cot: {A}}}}}\n",
        ),
    ],
)  # fmt: skip
def test_one_value_is_set_and_nothing_else_changes(before, where, after):
    assert written(PATH, before, {where: A}) == after
    assert written(PATH, after, {where: A}) == after


def test_several_at_once():
    before = "study: s  # a name\nbase: a/b\ndata:\n  # what is taken\n  sizes: {math_cot: {items: 2}}\n"
    values = {("base", "revision"): A, ("data", "revisions", "math_cot"): B, ("data", "revisions", "mmlu_cot"): A}
    after = written(PATH, before, values)
    assert yaml.safe_load(after)["data"] == {"revisions": {"math_cot": B, "mmlu_cot": A}, "sizes": {"math_cot": {"items": 2}}}
    assert [line for line in before.splitlines() if line not in after.splitlines()] == ["base: a/b"]


def test_a_commit_of_digits_stays_a_text():
    assert yaml.safe_load(written(PATH, "base: a/b\n", {("base", "revision"): "1" * 40}))["base"]["revision"] == "1" * 40


def test_what_cannot_be_changed_line_by_line_says_what_to_write():
    with pytest.raises(InputError, match=f"write yourself: base.revision: {A}"):
        written(PATH, "x: &one {model: a/b}\nbase: *one\n", {("base", "revision"): A})
