"""Rows that are longer than the base reads, or than the study allows: nothing is cut, so they are refused or left out.

Looked for when the study is read, in every file whose rows are put to a model: training problems, held-out items, requests for
the judge, answers of experts, and text to retain. Bytes are counted first: no row has more tokens than bytes, so that of most
studies no tokenizer is loaded. What a template adds beyond `TEMPLATE` tokens is found by `retain_core.training.checks`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retain_core.errors import InputError
from retain_core.judge.benchmark import JudgedBenchmark
from retain_core.model_files import model_folder
from retain_core.own.files import Row
from retain_core.own.rows import LeftOut, read_rows
from retain_core.own.target import OwnTarget

if TYPE_CHECKING:
    from retain_core.own.study import Own
    from retain_core.study import Study

TEMPLATE = 512
"""Tokens that a chat template is taken to write around a prompt and its answer at most, before they are counted."""


class Limit(NamedTuple):
    """How long a row may be, with its answer."""

    tokens: int
    said: str
    """Where that comes from, and what mends it."""
    share: float
    """Share of a file's rows that may be left out."""
    measure: Callable[[Sequence[str], Sequence[str]], list[int]]
    """Tokens of prompts as they are put to the model, and of their answers."""


def without_long(study: Study, own: Own) -> Own:
    """The files of a study without rows that are too long. Raises InputError where they are more than may be left out.

    Where the base is one of the lab, or not there yet, rows are as long as they are.
    """
    limit = _limit(study)
    if limit is None:
        return own
    benchmarks = {
        name: _judged(found, found.longest_answer, limit) if isinstance(found, JudgedBenchmark) else found
        for name, found in own.benchmarks.items()
    }
    return own.model_copy(
        update={
            "target": own.target and _target(own.target, limit),
            "public": {name: _target(found, limit, ("items",)) for name, found in own.public.items()},
            "benchmarks": benchmarks,
        }
    )


def context_of(folder: Path) -> int | None:
    """How many tokens a model reads, as its config says; None where it does not say."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found = config.get("max_position_embeddings") or (config.get("text_config") or {}).get("max_position_embeddings")
    return found if isinstance(found, int) else None


def _limit(study: Study) -> Limit | None:
    if study.base.lab() is not None:
        return None
    try:
        folder = model_folder("base", study.base.model, study.base.revision)
        context = context_of(folder)
    except (InputError, ValueError):
        return None  # said where the base is looked for
    most = study.data.max_length
    if most is None and context is None:
        return None
    if most is not None and (context is None or most < context):
        said = f"`data: {{max_length: {most}}}` allows {most:,}; raise it"
    else:
        most = context
        said = f"the base reads {context:,}; set a smaller `longest_answer`"
    assert most is not None
    return Limit(most, said, study.data.bad_rows, lambda *texts: _tokens(folder, *texts))


def _tokens(folder: Path, prompts: Sequence[str], answers: Sequence[str]) -> list[int]:
    """Tokens of each prompt as it is put to the model, with its answer and stop token; none where that cannot be told."""
    from retain_core.training.encode import encode_prompts, read_tokenizer

    try:
        tokenizer = read_tokenizer(folder)
        asked = encode_prompts(tokenizer, prompts)
    except Exception:  # a tokenizer or template that is broken is said by `retain_core.training.checks`
        return [0] * len(prompts)
    said = tokenizer(list(answers), add_special_tokens=False)["input_ids"]
    return [len(prompt) + len(answer) + bool(answer) for prompt, answer in zip(asked, said, strict=True)]


def _target(own: OwnTarget, limit: Limit, parts: Sequence[str] = ("train", "items", "retention")) -> OwnTarget:
    gone = dict(own.left_out)
    sources = {"train": own.train, "items": own.items, "retention": own.retention, **own.experts}
    for part in [*parts, *(own.experts if "train" in parts else ())]:
        source = sources[part]
        if source is not None:
            rows = dict(read_rows(source.path, gone.get(part, ())))
            room = (own.longest_answer or 0) if part in ("train", "items") else 0
            gone[part] = _left_out(source.path, rows, room, gone.get(part, ()), limit)
    return own.model_copy(update={"left_out": {part: lines for part, lines in gone.items() if lines}})


def _judged(own: JudgedBenchmark, room: int, limit: Limit) -> JudgedBenchmark:
    gone = _left_out(own.items.path, dict(own.rows()), room, own.left_out, limit)
    return own.model_copy(update={"left_out": gone})


def _left_out(path: Path, rows: Mapping[int, Row], room: int, before: tuple[LeftOut, ...], limit: Limit) -> tuple[LeftOut, ...]:
    """What is left out of a file: bad rows as before, and rows that take too much with `room` tokens or their own answer."""
    said = {line: _longest_text(row) for line, row in rows.items()}
    suspects = [line for line, row in rows.items() if _bytes(row["prompt"], said[line], room) > limit.tokens]
    if not suspects:
        return before
    needed: dict[int, int] = {}
    prompts, answers = [rows[line]["prompt"] for line in suspects], [said[line] for line in suspects]
    both, alone = limit.measure(prompts, answers), limit.measure(prompts, [""] * len(prompts))
    for line, whole, asked in zip(suspects, both, alone, strict=True):
        if (most := max(whole, asked + room)) > limit.tokens:
            needed[line] = most
    if not needed:
        return before
    count, total = len(needed), len(rows) + len(before)
    longest = max(needed, key=needed.__getitem__)
    if count + len(before) > limit.share * total or count == len(rows):
        share = math.ceil(1000 * (count + len(before)) / total) / 1000
        mend = f" or leave them out with `data: {{bad_rows: {share:g}}}`" if share < 1 else ""
        takes = "takes" if count == 1 else "take"
        raise InputError(
            f"{path}:{longest}: {count:,} of {total:,} rows {takes} more tokens with the answer than are allowed, this one the "
            f"most, {needed[longest]:,}: {limit.said}, shorten them{mend}"
        )
    more = [
        LeftOut(line=line, reason=f"takes {tokens} tokens with its answer, and {limit.tokens} are allowed")
        for line, tokens in needed.items()
    ]
    return tuple(sorted([*before, *more], key=lambda row: row.line))


def _longest_text(row: Row) -> str:
    """The longest of the answers that a row says are right."""
    texts: list[str] = [row.get("answer", ""), *row.get("valid", [])]
    return max(texts, key=len)


def _bytes(prompt: str, answer: str, room: int) -> int:
    return len(prompt.encode()) + max(len(answer.encode()), room) + TEMPLATE
