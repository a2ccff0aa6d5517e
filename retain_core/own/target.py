"""The user's own target: two JSONL files of prompts and a verifier.

A row has `prompt`; `answer`, what an expert says; `valid`, every accepted answer; `cluster`, which items are alike; and
anything else that the verifier wants to see. The verifier is `right(answer, row) -> bool | float`; it gets the answer
without the white space around it, and the whole row.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from retain_core.errors import InputError, RetainError
from retain_core.own.files import Code, Row, Sealed, Source, locate, read_rows, seal
from retain_core.training.target import Exchange, Problem

VERIFIERS = "retain.verifiers"
"""The group of entry points in which installed packages offer verifiers."""


class TargetFiles(BaseModel):
    """A target of the user's own as the study names it; paths are relative to the study file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="name of the target and of its benchmark")
    train: str = Field(description="JSONL file of the training problems")
    items: str = Field(description="JSONL file of the held-out items")
    verifier: str = Field(description="module:function, or an entry point in the group retain.verifiers")
    retention: str | None = Field(None, description="JSONL file of prompts and answers of what must not be lost, for replay")
    longest_answer: int | None = Field(
        None, ge=1, description="tokens sampled at most; default: the longest answer in the files"
    )
    metric: Literal["acc", "score"] = Field("acc", description="acc: the verifier says right or wrong; score: from 0 to 1")


class OwnTarget(Sealed):
    """A target of the user's own with the content that its files had when the study was read."""

    train: Source
    items: Source
    retention: Source | None
    verifier: Code
    longest_answer: int | None
    metric: str
    exact: bool
    """Every held-out item lists its valid answers, so their probability can be summed."""
    answers: bool = True
    """Every training row says an answer, which can be imitated."""

    def length(self) -> dict[str, Any]:
        """What the length of sampled answers depends on, the tokenizer apart."""
        return {"longest_answer": self.longest_answer or [self.train.content, self.items.content]}

    def training_identity(self) -> dict[str, Any]:
        """What the training of an arm depends on; the held-out items are no part of it unless they set the length."""
        retention = self.retention.content if self.retention else None
        return {"train": self.train.content, "retention": retention, "verifier": self.verifier.identity(), **self.length()}

    def evaluation_identity(self) -> dict[str, Any]:
        """What the scores of a checkpoint depend on."""
        return {"items": self.items.content, "verifier": self.verifier.identity(), "metric": self.metric, **self.length()}


def seal_target(files: TargetFiles, folder: Path) -> OwnTarget:
    """Read and check the files of a target. Raises InputError with one sentence that names file and line."""
    train, items = folder / files.train, folder / files.items
    trained, held_out = read_rows(train), read_rows(items)
    lines = {row["prompt"]: number for number, row in trained}
    for number, row in held_out:
        if row["prompt"] in lines:
            raise InputError(f"{items}:{number}: this prompt is line {lines[row['prompt']]} of {train}; hold it out of one")
    with_valid = [number for number, row in held_out if "valid" in row]
    if with_valid and len(with_valid) < len(held_out):
        bare = next(number for number, row in held_out if "valid" not in row)
        raise InputError(f"{items}:{bare}: `valid` is missing, but line {with_valid[0]} has it: all items have it or none")
    if files.longest_answer is None and not _answers(row for _, row in [*trained, *held_out]):
        raise InputError(f"{train}: no row says an `answer`, so say how many tokens to sample, such as `longest_answer: 16`")
    retention = None
    if files.retention:
        text, asked = folder / files.retention, {row["prompt"] for _, row in held_out}
        for number, row in read_rows(text):
            if "answer" not in row:
                raise InputError(f"{text}:{number}: `answer` is missing, which replay trains on")
            if row["prompt"] in asked:
                raise InputError(f"{text}:{number}: this prompt is a held-out item of {items}; hold it out")
        retention = seal([text])
    return OwnTarget(
        train=seal([train]), items=seal([items]), retention=retention,
        verifier=locate("target.verifier", files.verifier, folder, VERIFIERS),
        longest_answer=files.longest_answer, metric=files.metric, exact=bool(with_valid),
        answers=all("answer" in row for _, row in trained),
    )  # fmt: skip


def refuse_without(target: OwnTarget, field: Literal["answer", "valid"], why: str) -> None:
    """Raise InputError where a training row lacks a field."""
    for number, row in read_rows(target.train.path):
        if field not in row:
            raise InputError(f"{target.train.path}:{number}: `{field}` is missing, which {why}")


def _answers(rows: Any) -> list[Exchange]:
    """Every answer that the rows say is right, with its prompt."""
    return [
        (row["prompt"], text) for row in rows for text in [*([row["answer"]] if "answer" in row else []), *row.get("valid", [])]
    ]


def longest_answer(target: OwnTarget, tokenizer: Any) -> int:
    """Tokens of the longest answer in the files, the stop token included, unless the study says how many."""
    if target.longest_answer:
        return target.longest_answer
    from retain_core.training.encode import IGNORED, encode_exchanges

    rows = [row for source in (target.train, target.items) for _, row in read_rows(source.checked())]
    return max(sum(label != IGNORED for label in row["labels"]) for row in encode_exchanges(tokenizer, _answers(rows)))


def says(right: Callable[[str, Row], Any], row: Row, answer: str) -> Any:
    """The verifier's word on an answer to a row, white space around it apart."""
    return right(answer.strip(), row)


class FileTarget:
    """A target of the user's own as training sees it (`retain_core.training.target.Target`)."""

    def __init__(self, target: OwnTarget, tokenizer: Any) -> None:
        self._rows = [row for _, row in read_rows(target.train.checked())]
        self._right = target.verifier.load()
        self._retention = target.retention
        self.longest_answer = longest_answer(target, tokenizer)

    @property
    def size(self) -> int:
        """How many training problems there are."""
        return len(self._rows)

    def problems(self, seed: int, only: list[Hashable] | None = None) -> Iterator[Problem]:
        """Training problems in the seed's order, again in another one when all have come."""
        for index in _shuffled_forever(self._chosen(only), random.Random(f"prompts {seed}")):
            row = self._rows[index]
            yield Problem(index, row["prompt"], partial(says, self._right, row))

    def expert(self, config: dict[str, Any], seed: int, count: int, only: list[Hashable] | None = None) -> list[Exchange]:  # noqa: ARG002
        """The first `count` exchanges of the one expert that there is: the answers of the file."""
        order = _shuffled_forever(self._chosen(only), random.Random(f"expert {seed}"))
        chosen = [self._rows[next(order)] for _ in range(count)]
        return [(row["prompt"], row["answer"]) for row in chosen]

    def right_answers(self, problem: Problem) -> list[str]:
        """The row's `valid`."""
        row: Row = self._rows[problem.key]  # type: ignore[call-overload]
        if "valid" not in row:
            raise InputError(f"the right answers to {row['prompt']!r} are not listed: its row has no `valid`")
        return list(row["valid"])

    def retention(self, seed: int) -> Iterator[Exchange]:
        """The rows of the target's retention file."""
        if self._retention is None:
            raise RetainError("the target has no retention text; give it `retention: text.jsonl`")
        rows = [row for _, row in read_rows(self._retention.checked())]
        for index in _shuffled_forever(range(len(rows)), random.Random(f"retention {seed}")):
            yield rows[index]["prompt"], rows[index]["answer"]

    def _chosen(self, only: list[Hashable] | None) -> Sequence[int]:
        return range(len(self._rows)) if only is None else only  # type: ignore[return-value]


def _shuffled_forever(indices: Sequence[int], rng: random.Random) -> Iterator[int]:
    while True:
        yield from rng.sample(indices, len(indices))
