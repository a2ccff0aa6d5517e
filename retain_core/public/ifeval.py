"""One verifiable instruction a prompt: the 25 functions of RLVR-IFeval, checked by lm-eval's instruction classes.

An answer is right when the row's function says so; what a class cannot decide, or fails on, is wrong. docs/public.md lists
where the classes differ from the published functions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from retain_core.own.files import Row
from retain_core.public.language import check_language

Arguments = dict[str, Any]
QUANTIFIERS = ("at least", "at most", "around")
_PARAGRAPHS = re.compile(r"\*\s\*\s\*")


class Function(NamedTuple):
    """One function of the data set."""

    instruction: str
    """The class of lm-eval that checks it."""
    needs: tuple[str, ...] = ()
    """Arguments that its rows must have."""
    settings: Callable[[Arguments], list[Arguments]] = lambda _: [{}]
    """The arguments of the class; where there are several, each must say yes."""
    tidied: Callable[[str], str] = str
    """The answer as the class expects it."""


def _about(count: str, relation: str, more: Callable[[Arguments], Arguments] = lambda _: {}, slack: float = 0.1) -> Any:
    """Settings of a class that counts: at least, at most, or around N (within 10 % and at least 1, or exactly 1)."""

    def settings(given: Arguments) -> list[Arguments]:
        low = high = given["N"]
        if given.get("quantifier") == "around":
            tolerance = max(round(low * slack), 1)
            low, high = low - tolerance, high + tolerance
        bounds = {"at least": [("at least", low)], "at most": [("less than", high + 1)]}.get(
            str(given.get("quantifier")), [("at least", low), ("less than", high + 1)]
        )
        return [{count: max(bound, 0), relation: word, **more(given)} for word, bound in bounds]

    return settings


def _renamed(**names: str) -> Callable[[Arguments], list[Arguments]]:
    return lambda given: [{theirs: given[ours] for theirs, ours in names.items()}]


def _escaped(words: list[str]) -> list[str]:
    return [re.escape(word.strip()) for word in words]


def _marker(given: Arguments) -> list[Arguments]:
    marker = given["postscript_marker"].strip()
    return [{"postscript_marker": marker if marker in ("P.S.", "P.P.S") else re.escape(marker)}]


def _word(given: Arguments) -> Arguments:
    return {"keyword": rf"(?<!\w){re.escape(given['word'].strip())}(?!\w)"}


FUNCTIONS: dict[str, Function] = {
    "verify_keywords": Function(
        "keywords:existence", ("keyword_list",), lambda given: [{"keywords": _escaped(given["keyword_list"])}]
    ),
    "verify_keyword_frequency": Function("keywords:frequency", ("word", "N"), _about("frequency", "relation", _word)),
    "validate_forbidden_words": Function(
        "keywords:forbidden_words", ("forbidden_words",),
        lambda given: [{"forbidden_words": _escaped(given["forbidden_words"])}],
    ),
    "verify_letter_frequency": Function(
        "keywords:letter_frequency", ("letter", "N"),
        _about("let_frequency", "let_relation", lambda given: {"letter": given["letter"]}),
    ),
    "validate_response_language": Function("language:response_language", ("language",), _renamed(language="language")),
    "verify_paragraph_count": Function(
        "length_constraints:number_paragraphs", ("N",), _renamed(num_paragraphs="N"),
        lambda text: _PARAGRAPHS.sub("***", text),
    ),
    "validate_word_constraint": Function(
        "length_constraints:number_words", ("N", "quantifier"), _about("num_words", "relation")
    ),
    "verify_sentence_constraint": Function(
        "length_constraints:number_sentences", ("N", "quantifier"), _about("num_sentences", "relation", slack=0)
    ),
    "validate_paragraphs": Function(
        "length_constraints:nth_paragraph_first_word", ("N", "first_word", "i"),
        _renamed(num_paragraphs="N", nth_paragraph="i", first_word="first_word"),
    ),
    "verify_postscript": Function("detectable_content:postscript", ("postscript_marker",), _marker),
    "validate_placeholders": Function("detectable_content:number_placeholders", ("N",), _renamed(num_placeholders="N")),
    "verify_bullet_points": Function("detectable_format:number_bullet_lists", ("N",), _renamed(num_bullets="N")),
    "validate_title": Function("detectable_format:title"),
    "validate_choice": Function("detectable_format:constrained_response", ("options",)),
    "validate_highlighted_sections": Function(
        "detectable_format:number_highlighted_sections", ("N",), _renamed(num_highlights="N")
    ),
    "validate_sections": Function(
        "detectable_format:multiple_sections", ("N", "section_splitter"),
        lambda given: [{"num_sections": given["N"], "section_spliter": re.escape(given["section_splitter"].strip())}],
    ),
    "validate_json_format": Function("detectable_format:json_format"),
    "validate_repeat_prompt": Function(
        "combination:repeat_prompt", ("original_prompt",), _renamed(prompt_to_repeat="original_prompt")
    ),
    "validate_two_responses": Function("combination:two_responses"),
    "validate_uppercase": Function("change_case:english_capital"),
    "validate_lowercase": Function("change_case:english_lowercase"),
    "validate_frequency_capital_words": Function(
        "change_case:capital_word_frequency", ("N", "quantifier"), _about("capital_frequency", "capital_relation")
    ),
    "validate_end": Function("startend:end_checker", ("end_phrase",), _renamed(end_phrase="end_phrase")),
    "validate_quotation": Function("startend:quotation"),
    "validate_no_commas": Function("punctuation:no_comma"),
}  # fmt: skip

_TYPES: dict[str, Callable[[Any], bool]] = {
    "N": lambda n: isinstance(n, int) and not isinstance(n, bool) and n >= 0,
    "i": lambda i: isinstance(i, int) and not isinstance(i, bool) and i >= 1,
    "letter": lambda letter: isinstance(letter, str) and re.fullmatch("[A-Za-z]", letter) is not None,
    "quantifier": lambda word: word in QUANTIFIERS,
    "keyword_list": lambda words: isinstance(words, list) and bool(words) and all(map(_is_text, words)),
    "forbidden_words": lambda words: isinstance(words, list) and bool(words) and all(map(_is_text, words)),
    "options": lambda options: bool(_options(options)),
}
"""What an argument must look like; any other is a text. A class draws at random what it is not told."""


def row_of(raw: Row) -> Row | str:
    """A row of the hub (messages, ground_truth, …) as ours, or why it is left out."""
    messages = raw["messages"]
    turns = [m for m in messages if isinstance(m, dict)] if isinstance(messages, list) else []
    if len(turns) != 1 or turns[0].get("role") != "user" or not _is_text(turns[0].get("content")):
        return "it is not one message of a user"
    try:
        truth = json.loads(raw["ground_truth"])
        name = truth["func_name"]
    except (TypeError, ValueError, KeyError):
        return "its ground_truth is no JSON object with a func_name"
    if name not in FUNCTIONS:
        return f"its function {str(name)[:60]!r} is unknown"
    needs = FUNCTIONS[name].needs
    given = {key: truth.get(key) for key in needs}
    if bad := [key for key in needs if not _TYPES.get(key, _is_text)(given[key])]:
        return f"{name} lacks a usable {bad[0]}"
    if name == "validate_paragraphs" and given["i"] > given["N"]:
        return "validate_paragraphs asks for a paragraph that there is not"
    prompt, constraint = turns[0]["content"], str(raw["constraint"] or "")
    alike = " ".join(prompt.replace(constraint, " ").split()) if constraint else prompt
    return {"prompt": prompt, "func_name": name, "arguments": given, "cluster": alike[:200], "kind": name}


def retain_prepare() -> None:
    """Read the language data once: it takes longer than an answer may. Raises InputError where they are missing."""
    import langdetect

    registry = _registry()
    langdetect.detect("The first text takes long.")
    for name in ("length_constraints:number_sentences", "change_case:capital_word_frequency"):
        checker = registry[name](name)
        checker.build_description()
        checker.check_following("A sentence. Another one.")


def right(answer: str, row: Row) -> bool:
    """Whether the answer follows the row's instruction."""
    return bool(answer.strip()) and _follows(answer, row)


def lenient(answer: str, row: Row) -> bool:
    """lm-eval's loose reading: also without the first line, the last one, or asterisks."""
    lines = answer.split("\n")
    kept = [answer, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return any(right(text, row) for text in [*kept, *(text.replace("*", "") for text in kept)])


def _follows(answer: str, row: Row) -> bool:
    function, given = FUNCTIONS[row["func_name"]], row["arguments"]
    if row["func_name"] == "validate_choice":
        # The class knows its own three options only.
        return any(re.search(rf"(?<!\w){re.escape(option)}(?!\w)", answer) for option in _options(given["options"]))
    text = function.tidied(answer)
    try:
        if function.instruction.startswith(("language:", "change_case:english")) and not _detectable(text):
            return False
        return all(_checker(function.instruction, _frozen(one)).check_following(text) for one in function.settings(given))
    except (ValueError, LookupError, TypeError, re.error):
        return False


def _detectable(text: str) -> bool:
    """Whether langdetect can say a language; the classes take it as followed where it cannot, the paper does not."""
    import langdetect

    try:
        langdetect.detect(text)
    except langdetect.LangDetectException:
        return False
    return True


@lru_cache(maxsize=4096)
def _checker(instruction: str, settings: tuple[tuple[str, Any], ...]) -> Any:
    """An instruction of lm-eval with its arguments. Raises InputError where its language data are missing."""
    registry = _registry()
    checker = registry[instruction](instruction)
    checker.build_description(**{name: list(v) if isinstance(v, tuple) else v for name, v in settings})
    return checker


@lru_cache(maxsize=1)
def _registry() -> Any:
    check_language()
    import langdetect
    from lm_eval.tasks.ifeval.instructions_registry import INSTRUCTION_DICT

    # Without it the same text may get another language the next time.
    langdetect.DetectorFactory.seed = 0
    return INSTRUCTION_DICT


def _frozen(settings: Arguments) -> tuple[tuple[str, Any], ...]:
    return tuple((name, tuple(value) if isinstance(value, list) else value) for name, value in settings.items())


def _options(options: Any) -> list[str]:
    """Options as a list, or as the text that the prompt says: `yes/no/maybe`, `a), b), c)`, `I know or I don't know`."""
    parts = options if isinstance(options, list) else re.split(r"/|,| or ", options) if isinstance(options, str) else []
    return [part.strip() for part in parts if isinstance(part, str) and part.strip()]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
