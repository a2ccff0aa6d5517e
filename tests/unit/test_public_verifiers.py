"""The verifiers of the public data: answers that are right, answers that are not, and what a lenient reading forgives."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retain_core.errors import InputError
from retain_core.public import countdown, ifeval, math, mmlu
from retain_core.public.boxed import last_boxed
from retain_core.public.language import check_language
from tests.language import sentence_tables


@pytest.fixture(scope="module", autouse=True)
def tables(tmp_path_factory):
    sentence_tables(tmp_path_factory.mktemp("nltk_data"))


COUNTDOWN = {"numbers": [3, 7, 25, 50], "target": 71}


@pytest.mark.parametrize(
    "answer",
    [
        "50 + 25 - 7 + 3",
        "I try.\n\\boxed{1 + 1} was wrong, so \\boxed{(50 + 25) - (7 - 3)}",
        "\\boxed{50+25-7+3}",
        " 3 + 50 + 25 - 7 ",
    ],
)
def test_countdown_right(answer):
    assert countdown.right(answer, COUNTDOWN)
    assert countdown.lenient(answer, COUNTDOWN)
    assert countdown.parsed(answer, COUNTDOWN)


@pytest.mark.parametrize(
    "answer",
    [
        "", "71", "\\boxed{71}", "50 + 25 - 7", "50 + 25 - 7 + 3 + 0", "50 + 25 - 7 + 3 = 71", "50 + 25 - 7 + 3.0",
        "50 + 25 - 7 + --3", "50 + 25 - 7 + +3", "\\boxed{50 + 25 - 7 + 3} \\boxed{50 + 25 + 7 + 3}", "True + 70",
        "__import__('os').system('true')", "(lambda: 71)()", "50 + 25 - 7 + 3" + " + 0" * 5000, "(" * 400, "3 ** 7", "50 // 25",
        "-3 + 7 + 50 + 25", "\uff15\uff10 + 25 - 7 + 3",
    ],
)  # fmt: skip
def test_countdown_wrong(answer):
    assert not countdown.right(answer, COUNTDOWN)


def test_countdown_divisions_are_exact_and_the_result_lies_from_0_to_99():
    assert countdown.right("(50 / 25) * 7 * 3 - 0", {"numbers": [50, 25, 7, 3, 0], "target": 42})
    assert not countdown.right("50 / 7 * 7", {"numbers": [50, 7, 7], "target": 50})
    assert countdown.value_of("50 / 7 * 7") is None
    assert not countdown.right("50 / (7 - 7)", {"numbers": [50, 7, 7], "target": 0})
    assert countdown.right("3 * 50 - 7 * 9", {"numbers": [3, 50, 7, 9], "target": 87})  # passes 150 on the way
    assert not countdown.right("50 * 3", {"numbers": [50, 3], "target": 150})
    assert not countdown.right("3 - 7", {"numbers": [3, 7], "target": -4})
    assert countdown.right("7 - 7", {"numbers": [7, 7], "target": 0})


@pytest.mark.parametrize(
    ("answer", "lenient"),
    [
        ("So 50 + 25 - 7 + 3 = 71.", True),
        ("\\boxed{50 + 25 - 7 + 3 = 71}", True),
        ("We need 50 + 25 = 75 first.\n50 + 25 - 7 + 3", True),
        ("\\boxed{71}, because 50 + 25 - 7 + 3", True),
        ("50 + 25 - 7 = 68 and no more", False),
    ],
)
def test_countdown_leniently(answer, lenient):
    assert not countdown.right(answer, COUNTDOWN)
    assert countdown.lenient(answer, COUNTDOWN) is lenient


def test_countdown_forgives_latex_signs_leniently():
    row = {"numbers": [6, 2, 5], "target": 15}
    assert countdown.lenient("\\boxed{\\frac{6}{2} \\times 5}", row)
    assert countdown.lenient("$6 \\div 2 \\cdot 5 = 15$", row)
    assert not countdown.right("\\boxed{6 \\div 2 \\cdot 5}", row)


@pytest.mark.parametrize(
    ("answer", "right", "lenient"),
    [
        ("Iron rusts. The answer is: C", True, True),
        ("**The answer is: C**", True, True),
        ("The best answer is option C.", True, True),
        ("the correct answer is (c)", True, True),
        ("The answer is: B. No, the answer is: C", False, True),
        ("The answer is: B", False, False),
        ("Answer: C", False, True),
        ("C", False, True),
        ("\\boxed{C}", False, True),
        ("Calcium comes first, so C could be it but I choose (D)", False, False),
        ("", False, False),
    ],
)
def test_mmlu(answer, right, lenient):
    row = {"gold": "C"}
    assert (mmlu.right(answer, row), mmlu.lenient(answer, row)) == (right, lenient)


pieces = st.lists(
    st.sampled_from(
        ["\\boxed{", "}", "{", "$", "\\frac{1}{2}", "1e999999999", "3", " + ", "(", "/", "\n", "* * *", "The answer is: ", "C"]
    )
    | st.text(max_size=5),
    max_size=30,
).map("".join)  # fmt: skip


@given(pieces)
@settings(deadline=None, max_examples=150, database=None)
def test_whatever_a_model_says_is_right_or_not(text):
    rows = [(countdown, COUNTDOWN), (mmlu, {"gold": "C"}), (math, {"gold": "7"})]
    rows += [(ifeval, {"func_name": name, "arguments": arguments}) for name, arguments, *_ in FOLLOWED[::5]]
    for family, row in rows:
        said = family.right(text.strip(), row), family.lenient(text.strip(), row)
        assert set(map(type, said)) == {bool}
        assert said != (True, False)


@pytest.mark.parametrize(
    "text", ["\\boxed{" * 5000, "{" * 20000, "$" * 20000, " " * 20000, "1" * 20000, "\\boxed{" + "1+" * 9000 + "1}"]
)
def test_a_model_that_repeats_itself_is_judged_at_once(text):
    started = time.process_time()
    for family, row in ((countdown, COUNTDOWN), (mmlu, {"gold": "C"}), (math, {"gold": "7"})):
        assert not family.right(text, row)
        assert not family.lenient(text, row)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("\\boxed{1} \\boxed{2}", "2"),
        ("\\boxed{1} \\boxed{2", "1"),
        ("\\boxed{a{b}c}", "a{b}c"),
        ("\\boxed{a \\boxed{b} c}", "b"),
        ("} \\boxed{ x }", "x"),
        ("none", None),
    ],
)
def test_the_last_box_that_closes(text, inside):
    assert last_boxed(text) == inside


def test_mmlu_says_whether_an_answer_was_stated():
    assert mmlu.parsed("The answer is: B", {})
    assert not mmlu.parsed("It is B", {})


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("so \\boxed{\\frac{3}{4}}", "\\frac34"),
        ("\\boxed{\\dfrac{3}{4}}", "\\frac{3}{4}"),
        ("\\boxed{\\left( 3, \\frac{\\pi}{2} \\right)}", "(3,\\frac{\\pi}{2})"),
        ("\\boxed{x = 5}", "5"),
        ("\\boxed{1,234}", "1234"),
        ("\\boxed{10\\text{ cm}}", "10"),
        ("\\boxed{45^\\circ}", "45"),
        ("\\boxed{\\text{Evelyn}}", "\\text{Evelyn}"),
        ("\\boxed{\\sqrt2}", "\\sqrt{2}"),
        ("\\boxed{\\$18}", "18"),
        ("The result is $7$.", "7"),
        ("The result is 7", "7"),
        ("\\boxed{1} and finally \\boxed{\\sqrt{\\frac{1}{3}}}", "\\sqrt{\\frac{1}{3}}"),
    ],
)
def test_math_right(answer, gold):
    assert math.right(answer, {"gold": gold})


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("\\boxed{8}", "7"),
        ("7 or 8", "7"),
        ("\\boxed{}", "7"),
        ("", "7"),
        ("\\boxed{\\frac{3}{5}}", "\\frac{3}{4}"),
        ("\\boxed{7", "8"),
    ],
)
def test_math_wrong(answer, gold):
    assert not math.right(answer, {"gold": gold})
    assert not math.lenient(answer, {"gold": gold})


@pytest.mark.parametrize(
    ("answer", "gold"),
    [("\\boxed{0.75}", "\\frac{3}{4}"), ("\\boxed{3/4}", "0.75"), ("\\boxed{7.0}", "7"), ("\\boxed{50\\%}", "0.5")],
)
def test_math_leniently(answer, gold):
    assert not math.right(answer, {"gold": gold})
    assert math.lenient(answer, {"gold": gold})


FOLLOWED = [
    ("verify_keywords", {"keyword_list": ["lake", "a.b"]}, "The Lake of a.b is calm.", "The lake of axb is calm."),
    ("verify_keyword_frequency", {"word": "cat", "N": 2}, "A cat, a Cat, a category.", "A cat, a cat, a cat."),
    ("validate_forbidden_words", {"forbidden_words": ["wind"]}, "The windmill turns.", "The Wind turns."),
    ("verify_letter_frequency", {"letter": "z", "N": 2}, "Zoo zone", "Zoo zone zap"),
    ("validate_response_language", {"language": "de"}, "Der See lag still, und niemand sprach ein Wort.",
     "The lake was calm and nobody spoke a word."),
    ("verify_paragraph_count", {"N": 2}, "One.\n* * *\nTwo.", "One.\n* * *\nTwo.\n* * *\nThree."),
    ("validate_word_constraint", {"N": 3, "quantifier": "at least"}, "one two three", "one two"),
    ("validate_word_constraint", {"N": 3, "quantifier": "at most"}, "one two three", "one two three four"),
    ("validate_word_constraint", {"N": 20, "quantifier": "around"}, "word " * 22, "word " * 23),
    ("validate_word_constraint", {"N": 20, "quantifier": "around"}, "word " * 18, "word " * 17),
    ("verify_sentence_constraint", {"N": 2, "quantifier": "at least"}, "We went home. The lake was calm.", "We went home."),
    ("verify_sentence_constraint", {"N": 1, "quantifier": "at most"}, "We went home.", "We went home. The lake was calm."),
    ("verify_sentence_constraint", {"N": 3, "quantifier": "around"}, "We went home. The lake was calm.", "We went home."),
    ("validate_paragraphs", {"N": 2, "i": 2, "first_word": "Then"}, "We sat.\n\nThen we left.", "We sat.\n\nSoon we left."),
    ("verify_postscript", {"postscript_marker": "P.S."}, "Bye.\nP.S. Write soon.", "Bye. Write soon."),
    ("verify_postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP.P.S Write soon.", "Bye.\nP.S. Write soon."),
    ("validate_placeholders", {"N": 2}, "[name] lives in [town].", "[name] lives here."),
    ("verify_bullet_points", {"N": 2}, "* one\n* two", "* one\n* two\n* three"),
    ("validate_title", {}, "<<calm lake>>\nIt was calm.", "calm lake\nIt was calm."),
    ("validate_choice", {"options": "yes/no/maybe"}, "maybe", "I know"),
    ("validate_choice", {"options": "I know or I don't know"}, "I don't know", "Nobody can say"),
    ("validate_choice", {"options": ["a)", "b)", "c)"]}, "b)", "d)"),
    ("validate_highlighted_sections", {"N": 2}, "*one* and *two*", "*one* and two"),
    ("validate_sections", {"N": 2, "section_splitter": "SECTION"}, "SECTION 1\na\nSECTION 2\nb", "SECTION 1\na"),
    ("validate_json_format", {}, '```json\n{"lake": 1}\n```', "lake: 1"),
    ("validate_repeat_prompt", {"original_prompt": "Name a lake."}, "Name a lake. Como.", "Como."),
    ("validate_two_responses", {}, "Como\n******\nGarda", "Como\n******\nComo"),
    ("validate_uppercase", {}, "THE LAKE WAS CALM AND NOBODY SPOKE.", "THE LAKE WAS CALM AND NOBODY Spoke."),
    ("validate_lowercase", {}, "the lake was calm and nobody spoke.", "The lake was calm and nobody spoke."),
    ("validate_frequency_capital_words", {"N": 2, "quantifier": "at least"}, "The LAKE was VERY calm.", "The LAKE was calm."),
    ("validate_frequency_capital_words", {"N": 1, "quantifier": "at most"}, "The LAKE was calm.", "The LAKE was VERY calm."),
    ("validate_end", {"end_phrase": "Is there more?"}, "It was calm. Is there more?", "Is there more? It was calm."),
    ("validate_quotation", {}, '"The lake was calm."', 'The "lake" was calm.'),
    ("validate_no_commas", {}, "Calm and still.", "Calm, still."),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "good", "bad"), FOLLOWED)
def test_an_instruction_is_followed_or_not(name, arguments, good, bad):
    row = {"func_name": name, "arguments": arguments}
    assert ifeval.right(good, row)
    assert not ifeval.right(bad, row)
    assert not ifeval.right("", row)


def test_all_25_functions_are_tried():
    assert {name for name, *_ in FOLLOWED} == set(ifeval.FUNCTIONS)
    assert len(ifeval.FUNCTIONS) == 25


def test_what_has_no_language_follows_no_instruction_about_one():
    for name, arguments in (("validate_response_language", {"language": "de"}), ("validate_uppercase", {})):
        assert not ifeval.right("12345 ...", {"func_name": name, "arguments": arguments})


def test_the_same_text_has_the_same_language_every_time():
    row = {"func_name": "validate_response_language", "arguments": {"language": "en"}}
    assert len({ifeval.right("an lake di come", row) for _ in range(30)}) == 1


def test_missing_language_data_are_one_sentence_before_anything_is_run(monkeypatch):
    check_language()
    monkeypatch.setattr("nltk.data.path", [])
    with pytest.raises(
        InputError, match=r"^rlvr_ifeval needs nltk's sentence tables \(punkt_tab\), .*`retain prefetch STUDY.yaml`$"
    ):
        check_language()
    monkeypatch.setattr("retain_core.public.language.PACKAGES", ("langdetect", "no_such_package"))
    with pytest.raises(InputError, match=r"^rlvr_ifeval needs no_such_package, not installed here; `pip install"):
        check_language()


def test_ifeval_leniently_forgives_a_first_line_and_asterisks():
    row = {"func_name": "validate_quotation", "arguments": {}}
    assert not ifeval.right('Here it is:\n"The lake was calm."', row)
    assert ifeval.lenient('Here it is:\n"The lake was calm."', row)
    assert ifeval.lenient('**"The lake was calm."**', row)
    assert not ifeval.lenient("The lake was calm.", row)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"messages": []}, "it is not one message of a user"),
        ({"messages": "[{'role': 'user'}]"}, "it is not one message of a user"),
        ({"ground_truth": "{"}, "no JSON object with a func_name"),
        ({"ground_truth": json.dumps({"func_name": "validate_rhyme"})}, "its function 'validate_rhyme' is unknown"),
        ({"ground_truth": json.dumps({"func_name": "verify_bullet_points"})}, "verify_bullet_points lacks a usable N"),
        ({"ground_truth": json.dumps({"func_name": "verify_letter_frequency", "N": 1, "letter": "!!"})}, "a usable letter"),
        (
            {"ground_truth": json.dumps({"func_name": "validate_word_constraint", "N": 1, "quantifier": "about"})},
            "a usable quantifier",
        ),
        (
            {"ground_truth": json.dumps({"func_name": "validate_paragraphs", "N": 1, "i": 2, "first_word": "a"})},
            "asks for a paragraph that there is not",
        ),
    ],
)
def test_rows_of_which_a_class_would_draw_arguments_at_random_are_left_out(changed, reason):
    raw = {
        "messages": [{"role": "user", "content": "Name a lake. Use no commas."}], "dataset": "ifeval",
        "ground_truth": json.dumps({"func_name": "validate_no_commas", "N": None}), "constraint_type": "No Commas",
        "constraint": "Use no commas.",
    }  # fmt: skip
    good = ifeval.row_of(raw)
    assert (good["prompt"], good["func_name"], good["cluster"]) == (
        "Name a lake. Use no commas.",
        "validate_no_commas",
        "Name a lake.",
    )
    assert reason in ifeval.row_of({**raw, **changed})
