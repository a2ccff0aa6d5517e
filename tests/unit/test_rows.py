"""Bad rows of the user's files: named by file and line, counted, and left out only where the study allows it."""

import random
import shutil

import pytest

from retain_core.errors import InputError
from retain_core.overlap import SHARE, WORDS, normal, overlaps
from retain_core.own.rows import MOST_BYTES, examine_documents, examine_prompts, read_rows
from retain_core.plan import plan_study
from retain_core.store import Store
from retain_core.study import Study
from retain_core.study_file import load_study
from tests.conftest import ROOT

EXAMPLE = ROOT / "examples" / "own_method"
GOOD = b'{"prompt": "a question", "answer": "an answer"}'
BAD = {
    "not an object": (b'["a"]', "a row is a JSON object"),
    "no prompt": (b'{"answer": "x"}', "`prompt` must be a text"),
    "empty prompt": (b'{"prompt": " ", "answer": "x"}', "`prompt` must be a text"),
    "a prompt of another type": (b'{"prompt": ["x"], "answer": "x"}', "`prompt` must be a text"),
    "an answer of another type": (b'{"prompt": "x", "answer": 3}', "`answer` must be a text"),
    "an empty answer": (b'{"prompt": "x", "answer": " \\n"}', "`answer` is empty"),
    "no answer is valid": (b'{"prompt": "x", "valid": []}', "`valid` must be a list"),
    "an empty answer is valid": (b'{"prompt": "x", "valid": ["a", ""]}', "`valid` must be a list"),
    "roles in the wrong order": (
        b'{"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]}',
        "`messages` (roles assistant, user), which is no question and its answer: give `prompt` and `answer`",
    ),
    "messages": (
        b'{"messages": [{"role": "user", "content": "b"}, {"role": "assistant", "content": "a"}]}',
        "`messages` (roles user, assistant): give `prompt` and `answer`",
    ),
    "half a row": (b'{"prompt": "x", "ans', "not valid JSON"),
    "a row of 1 MB": (b'{"prompt": "' + b"x" * MOST_BYTES + b'"}', "the row has 1,000,014 bytes; a row has at most 1,000,000"),
    "invalid UTF-8": (b'{"prompt": "\xff\xfe"}', "not UTF-8 text: invalid start byte at byte 13"),
    "half a character": (b'{"prompt": "\\ud800"}', "half of a surrogate pair"),
    "NaN": (b'{"prompt": "x", "weight": NaN}', "NaN is no number"),
    "a number without end": (b'{"prompt": "x", "n": ' + b"9" * 5000 + b"}", "not valid JSON: Exceeds the limit"),
    "nested without end": (b'{"prompt": ' + b"[" * 100_000, "not valid JSON"),
    "the prompt again": (GOOD, "the prompt of line 1 again"),
}


@pytest.fixture
def example(tmp_path):
    copy = tmp_path / "mine"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture
def replace(example):
    """Replaces lines of a file of the example, or appends some."""

    def edit(file, lines=None, more=()):
        rows = (example / file).read_bytes().rstrip(b"\n").split(b"\n")
        for number, row in (lines or {}).items():
            rows[number - 1] = row
        (example / file).write_bytes(b"\n".join([*rows, *more]) + b"\n")
        return example

    return edit


def load(example, bad_rows=None):
    study = example / "study.yaml"
    text = "\n".join(line for line in study.read_text().splitlines() if not line.startswith("data:"))
    study.write_text(text + ("" if bad_rows is None else f"\ndata: {{bad_rows: {bad_rows}}}") + "\n")
    return load_study(study)


def left(study):
    return [(part, row.line) for part, _, row in study.own.left_out()]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_named_by_file_line_and_reason(tmp_path, name):
    row, words = BAD[name]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD + b"\n\n" + row + b"\n")
    with pytest.raises(InputError) as caught:
        read_rows(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:3: ")
    assert words in message
    assert "\n" not in message
    assert len(message) < 400


@pytest.mark.parametrize("file", ["train.jsonl", "held_out.jsonl"])
@pytest.mark.parametrize("name", BAD)
def test_a_study_is_refused_and_with_a_tolerance_goes_on_without_it(replace, file, name):
    row = BAD[name][0] if name != "the prompt again" else (EXAMPLE / file).read_bytes().split(b"\n")[0]
    example = replace(file, {4: row})
    with pytest.raises(InputError, match=rf"{file}:4: "):
        load(example)
    with pytest.raises(InputError, match=rf"{file}:4: .*1 of \d+ rows are bad, more than `data: {{bad_rows: 0.001}}` allows"):
        load(example, 0.001)
    study = load(example, 0.01)
    part = "train" if file == "train.jsonl" else "items"
    assert left(study) == [(part, 4)]
    lines = [line for line, _ in study.own.target.rows(part)]
    assert 4 not in lines
    assert len(lines) == len((EXAMPLE / file).read_text().splitlines()) - 1
    assert "1 bad row left out, the first is line 4: " in study.own.notes()[0]


def test_what_must_be_there_for_imitation_is_left_out_like_any_bad_row(replace):
    example = replace("train.jsonl", {7: b'{"prompt": "never asked", "forbidden": []}'})
    with pytest.raises(InputError, match=r"train.jsonl:7: `answer` is missing, which sft imitates"):
        load(example)
    study = load(example, 0.01)
    assert left(study) == [("train", 7)]
    assert study.own.target.answers


def test_a_prompt_that_is_held_out_is_left_out_of_training(replace):
    held_out = (EXAMPLE / "held_out.jsonl").read_bytes().split(b"\n")[2]
    example = replace("train.jsonl", more=[held_out])
    with pytest.raises(InputError, match=r"train.jsonl:301: this prompt is a held-out item, line 3 of .*held_out.jsonl"):
        load(example)
    assert left(load(example, 0.01)) == [("train", 301)]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (b'{"verb": 3, "gold": 0}', "`verb` is a number; in most rows it is a text"),
        (b'{"verb": "sink"}', "`gold` is missing, which the benchmark asks with"),
        (b'{"verb": "", "gold": 0}', "`verb` is empty, which the benchmark asks with"),
        (b'{"verb": "sink", "gold": "0"}', "`gold` is a text; in most rows it is a number"),
        (b'{"verb": "sink", "gold": 0', "not valid JSON"),
        (b'{"verb": "\xff", "gold": 0}', "not UTF-8 text"),
    ],
)
def test_items_of_a_benchmark_are_checked_too(replace, row, words):
    example = replace("manners.jsonl", {5: row})
    with pytest.raises(InputError, match=r"manners.jsonl:5: ") as caught:
        load(example)
    assert words in str(caught.value)
    assert left(load(example, 0.05)) == [("manners", 5)]


def test_a_field_that_a_template_can_do_without_is_not_missed(example):
    manners = example / "manners.yaml"
    manners.write_text(manners.read_text().replace("{{verb}}", "{% if verb %}{{verb}}{% endif %}"))
    rows = (example / "manners.jsonl").read_text().splitlines()
    (example / "manners.jsonl").write_text("\n".join([*rows, '{"gold": 1}']))
    assert left(load(example)) == []


def test_results_are_filed_under_the_rows_that_were_used(replace, example):
    def keys(study):
        plan = plan_study(study, Store(ROOT / "nowhere"))
        return {a.spec.method: a.spec.key for a in plan.arms}, {p.benchmark: p.key for p, _ in plan.base_evaluations}

    arms, evaluations = keys(load(example))
    text = load(example).spec_hash()
    assert keys(load(example, 0.01)) == (arms, evaluations)
    assert load(example, 0.01).spec_hash() != text
    replace("manners.jsonl", more=[b"{}"])
    dropped = keys(load(example, 0.05))
    assert dropped[0] == arms
    assert {name for name in evaluations if dropped[1][name] != evaluations[name]} == {"manners"}
    replace("train.jsonl", more=[b"{}"])
    assert {a for a, key in keys(load(example, 0.05))[0].items() if key != arms[a]} == set(arms)
    study = load(example, 0.05)
    assert Study.model_validate_json(study.model_dump_json()) == study


def test_bad_rows_are_never_all_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"{}\n{}\n")
    assert examine_prompts(path).rows == {}
    with pytest.raises(InputError, match=r"rows.jsonl:1: .* \(and 1 more bad rows\)"):
        read_rows(path)
    path.write_bytes(b"\n")
    with pytest.raises(InputError, match="has no rows"):
        read_rows(path)


def test_documents_without_a_field_at_all_are_left_to_lm_eval(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": null}\n{"a": 2.5}\n')
    assert examine_documents(path, {"b"}).bad == {}
    assert examine_documents(path, {"a"}).bad == {2: "`a` is missing, which the benchmark asks with"}


# Overlap


def sentence(rng, words=20):
    return " ".join(rng.choice(VOCABULARY) for _ in range(words))


VOCABULARY = [f"word{i}" for i in range(500)]


def test_overlap_finds_what_was_planted_and_nothing_else():
    rng = random.Random(0)
    items, foreign = [sentence(rng) for _ in range(50)], [sentence(rng) for _ in range(200)]
    planted = [(items[0], "x"), (items[1].upper() + "!", "x"), (f"before {items[2]} after", "x"), ("q", f"so {items[3]}")]
    planted += [(" ".join(items[4].split()[:15]), "x")]  # 8 of its 13 sequences of eight words
    planted += [(" ".join(items[5].split()[:13]), "x")]  # 6 of 13
    text = [(prompt, sentence(rng)) for prompt in foreign] + planted
    rng.shuffle(text)
    assert overlaps(text, {"b": items, "other": foreign[:10], "none": [sentence(rng)]}) == {
        "b": (50, 1, 5), "other": (10, 10, 10), "none": (1, 0, 0),
    }  # fmt: skip
    assert (WORDS, SHARE) == (8, 0.5)


def test_short_prompts_are_near_only_when_equal():
    counts = overlaps(
        [("What is  2+2 ?", ""), ("the capital of France is Paris", "")], {"b": ["what is 2 2", "capital of France"]}
    )
    assert counts == {"b": (2, 0, 1)}


def test_look_alike_characters_are_equal():
    assert normal("\uff26\uff55\uff4c\uff4c-width, \ufb01ne!") == ["full", "width", "fine"]
