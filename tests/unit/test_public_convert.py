"""From raw rows in the schemas of the hub to ours: what is kept, what is left out and counted, how rows are split."""

import json

import pytest

from retain_core.errors import InputError
from retain_core.public.catalogue import PUBLIC, TRAINABLE
from retain_core.public.convert import TWICE, PublicSizes, convert
from tests.public import raw_rows

SMALL = PublicSizes(train=12, items=6)
ONLY_ITEMS = PublicSizes(items=6)


def small(name):
    return SMALL if name in TRAINABLE else ONLY_ITEMS


@pytest.mark.parametrize("name", PUBLIC)
def test_every_row_is_accounted_for(name):
    raw = raw_rows(name, 40)
    found = convert(name, raw, small(name))
    counts = found.counts
    assert counts["rows"] == 40 == counts["train"] + counts["items"] + counts["unused"] + sum(counts["left_out"].values())
    assert (len(found.train), len(found.items)) == (counts["train"], counts["items"]) == (12 * (name in TRAINABLE), 6)
    prompts = [row["prompt"] for row in [*found.train, *found.items]]
    assert len(set(prompts)) == len(prompts)
    assert json.loads(json.dumps(found.items)) == found.items
    assert counts["published"] == {"train": PUBLIC[name].train, "items": PUBLIC[name].items}


@pytest.mark.parametrize("name", TRAINABLE)
def test_the_split_depends_on_the_rows_alone_and_another_size_moves_nothing(name):
    raw = raw_rows(name, 40)
    found = convert(name, raw, SMALL)
    backwards = {split: rows[::-1] for split, rows in raw.items()}
    assert convert(name, backwards, SMALL)[:2] == found[:2]
    more = convert(name, raw, PublicSizes(train=15, items=6))
    assert more.items == found.items
    assert more.train[:12] == found.train
    assert convert(name, raw, PublicSizes(train=12, items=8)).train == found.train


@pytest.mark.parametrize("name", PUBLIC)
def test_a_renamed_column_a_missing_split_and_too_few_rows_are_one_sentence(name):
    raw, data = raw_rows(name, 40), PUBLIC[name]
    renamed = {data.split: [{f"{key}_": value for key, value in row.items()} for row in raw[data.split]]}
    with pytest.raises(
        InputError, match=f"{data.hub} has no column '{data.columns[0]}' any more \\(it has {data.columns[0]}_, "
    ):
        convert(name, renamed, small(name))
    with pytest.raises(InputError, match=f"has no split '{data.split}' any more \\(it has other\\)"):
        convert(name, {"other": raw[data.split]}, small(name))
    with pytest.raises(InputError, match="no rows"):
        convert(name, {data.split: []}, small(name))
    if not data.rest or data.train:
        with pytest.raises(InputError, match=r"gives \d+ usable rows of 40, and [\d,]+ are needed.*; say fewer under `data: "):
            convert(name, raw)


def test_reasons_are_counted_and_the_commonest_is_named():
    raw = raw_rows("countdown_cot", 40)
    raw["train"] += [{"target": 100, "nums": [50, 50, 0]}, {"target": 3, "nums": "1 2"}, {"target": True, "nums": [1, 1]}]
    again = {**raw["train"][0], "nums": raw["train"][0]["nums"][::-1]}
    counts = convert("countdown_cot", {"train": [*raw["train"], again]}, SMALL).counts
    assert counts["left_out"] == {
        TWICE: 1, "its target is not between 0 and 99": 1, "its numbers are no whole numbers": 2,
    }  # fmt: skip
    beyond = [{**row, "target": 100 + i} for i, row in enumerate(raw["train"])]
    with pytest.raises(
        InputError, match=r"gives 0 usable rows of 43.*\(42 are left out because its target is not between 0 and 99\)"
    ):
        convert("countdown_cot", {"train": beyond}, SMALL)


def test_all_that_is_not_trained_on_is_held_out_where_the_published_split_takes_everything():
    found = convert("mmlu_cot", raw_rows("mmlu_cot", 40), PublicSizes(train=12))
    assert (len(found.train), len(found.items), found.counts["unused"]) == (12, 28, 0)


def test_a_rest_that_is_far_smaller_than_the_published_one_is_refused():
    raw = [{**row, "question": f"{row['question']} {i}"} for i, row in enumerate(raw_rows("mmlu_cot", 40)["test"] * 346)]
    with pytest.raises(InputError, match="gives 13,800 usable rows of 13,800, and 13,838 are needed"):
        convert("mmlu_cot", {"test": raw[:13800]})
    assert convert("mmlu_cot", {"test": raw}).counts["items"] == 1840


def test_questions_on_one_passage_stand_together():
    raw = raw_rows("mmlu_cot", 40)
    for number, row in enumerate(raw["test"][:8]):
        row["question"] = (
            f"This question refers to the following information.\nA letter of 1791.\n\n{row['question']} ({number})"
        )
    found = convert("mmlu_cot", raw, PublicSizes(train=12))
    sides = [sum("A letter of 1791" in row["prompt"] for row in rows) for rows in (found.items, found.train)]
    assert sum(sides) == 8
    clusters = [row["cluster"] for row in [*found.items, *found.train[::-1]]]
    same = [place for place, name in enumerate(clusters) if "A letter of 1791" in name]
    assert same == list(range(same[0], same[0] + 8))


def test_prompts_are_those_of_the_published_shapes():
    mmlu = convert("mmlu_cot", raw_rows("mmlu_cot", 40), SMALL).items[0]
    _, options, ask = mmlu["prompt"].split("\n\n")
    assert options.splitlines()[0] == "Answer options:"
    assert [line[:3] for line in options.splitlines()[1:]] == ["A. ", "B. ", "C. ", "D. "]
    assert "The answer is: <option>" in ask
    assert mmlu["gold"] in "ABCD"
    math = convert("math_cot", raw_rows("math_cot", 40), ONLY_ITEMS).items[0]
    assert "\\boxed{" in math["prompt"]
    ifeval = convert("rlvr_ifeval", raw_rows("rlvr_ifeval", 40), SMALL).items[0]
    assert ifeval["func_name"] == ifeval["kind"]
    wild = convert("wildguardtest", raw_rows("wildguardtest", 40), ONLY_ITEMS)
    assert {(row["harmful"], row["kind"]) for row in wild.items} == {(True, "harmful"), (False, "harmless")}
    assert wild.counts["left_out"] == {"its prompt has no label": 2}
