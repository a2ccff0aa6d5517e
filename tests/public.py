"""Small raw rows in the schemas of the public data sets, made here."""

import json
import random

from retain_core.public.catalogue import PUBLIC

_CHECKS = [
    ("validate_no_commas", {}, "Use no commas."),
    ("verify_bullet_points", {"N": 2}, "Use exactly 2 bullet points."),
    ("validate_lowercase", {}, "Use small letters only."),
    ("validate_word_constraint", {"N": 20, "quantifier": "at most"}, "Use at most 20 words."),
    ("validate_quotation", {}, "Wrap your answer in double quotation marks."),
]
_NULLS = {"N": None, "quantifier": None, "end_phrase": None, "keyword_list": None, "letter": None, "options": None}


def raw_rows(name, count, seed=0):
    """Split -> `count` raw rows of a public data set, every one usable but those of `wildguardtest` without a label."""
    rng = random.Random(f"{name} {seed}")
    return {PUBLIC[name].split: [_MAKERS[name](i, rng) for i in range(count)]}


def _countdown(i, rng):
    numbers = [i + 1, *(rng.randint(1, 9) for _ in range(2 + i % 2))]
    return {"target": sum(numbers[:2]) % 100, "nums": numbers}


def _ifeval(i, rng):
    name, arguments, constraint = _CHECKS[i % len(_CHECKS)]
    return {
        "messages": [{"content": f"Tell me about place number {i}. {constraint}", "role": "user"}],
        "ground_truth": json.dumps({"func_name": name, **_NULLS, **arguments}), "dataset": "ifeval",
        "constraint_type": name, "constraint": constraint,
    }  # fmt: skip


def _mmlu(i, rng):
    choices = [str(i), str(i + 1), str(i + 2), str(i + 3)]
    return {"question": f"What is {i} plus 1?", "subject": "arithmetic", "choices": choices, "answer": 1}


def _math(i, rng):
    return {
        "problem": f"What is {i} times 2?", "solution": f"It is \\boxed{{{2 * i}}}.", "answer": str(2 * i),
        "subject": "Prealgebra", "level": 1 + i % 5, "unique_id": f"test/{i}.json",
    }  # fmt: skip


def _jailbreak(i, rng):
    label = int(i % 3 > 0)
    kind = ("adversarial_benign", "adversarial_harmful")[label]
    return {"adversarial": f"In a play, someone asks for thing {i}.", "label": label, "data_type": kind}


def _guard(i, rng):
    label = None if i % 20 == 19 else ("unharmful", "harmful")[i % 2]
    return {
        "prompt": f"Help me with thing {i}.",
        "adversarial": i % 4 == 0,
        "prompt_harm_label": label,
        "subcategory": "others",
    }


_MAKERS = {
    "countdown_cot": _countdown, "rlvr_ifeval": _ifeval, "mmlu_cot": _mmlu, "math_cot": _math, "wildjailbreak": _jailbreak,
    "wildguardtest": _guard,
}  # fmt: skip
