"""The user's own target: two JSONL files of prompts and a verifier.

A row has `prompt`; `answer`, what an expert says; `valid`, every accepted answer; `cluster`, which items are alike; and
anything else that the verifier wants to see. The verifier is `right(answer, row) -> bool | float`; it gets the answer
without the white space around it, and the whole row.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from retain_core.canonical import digest
from retain_core.errors import InputError, RetainError
from retain_core.own.files import Code, Row, Sealed, Source, locate, seal
from retain_core.own.rows import Examined, LeftOut, examine_prompts, marked, read_rows, refuse_beyond
from retain_core.training.target import Exchange, Problem

VERIFIERS = "retain.verifiers"
"""The group of entry points in which installed packages offer verifiers."""


Part = Literal["train", "items", "retention"]
PARTS: tuple[Part, ...] = ("train", "items", "retention")
"""The files of a target by what they are for."""


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

    train: Source | None
    """None for what is never trained on."""
    items: Source
    retention: Source | None
    verifier: Code
    longest_answer: int | None
    metric: str
    exact: bool
    """Every held-out item lists its valid answers, so their probability can be summed."""
    answers: bool = True
    """Every training row says an answer, which can be imitated."""
    public: str | None = None
    """Its name where it is a public data set (`retain_core.public`)."""
    lenient: Code | None = None
    """A second look at an answer for audits: what a reader would accept. A metric of its own."""
    parsed: Code | None = None
    """Whether an answer has the form in which the verifier looks for it."""
    experts: dict[str, Source] = Field(default_factory=dict)
    """Style -> file of a stronger model's answers (prompt, answer), where they do not stand in the training rows."""
    left_out: dict[str, tuple[LeftOut, ...]] = Field(default_factory=dict)
    """Part (train, items, retention) or style of an expert -> the bad rows of its file that the study goes on without."""

    def rows(self, part: Part) -> list[tuple[int, Row]]:
        """(line, row) of one of its files, without what is left out. Raises RetainError when the file has changed."""
        return read_rows(self._source(part).checked(), self.left_out.get(part, ()))

    def content(self, part: Part) -> str:
        """Hash of the rows of one of its files."""
        return self._without_bad(self._source(part), part)

    def said(self, style: str) -> str:
        """Hash of an expert's answers in one style."""
        return self._without_bad(self.experts[style], style)

    def _without_bad(self, source: Source, name: str) -> str:
        gone = [entry.line for entry in self.left_out.get(name, ())]
        return digest([source.content, gone], 64) if gone else source.content

    def _source(self, part: Part) -> Source:
        source = {"train": self.train, "items": self.items, "retention": self.retention}[part]
        if source is None and part == "retention":
            raise RetainError("the target has no retention text; give it `retention: text.jsonl`")
        if source is None:
            raise RetainError(f"{self.public} has no training problems")
        return source

    def length(self) -> dict[str, Any]:
        """What the length of sampled answers depends on, the tokenizer apart."""
        return {"longest_answer": self.longest_answer or [self.content("train"), self.content("items")]}

    def training_identity(self, expert: str | None = None) -> dict[str, Any]:
        """What the training of an arm depends on; the held-out items are no part of it unless they set the length.

        `expert` is the style that the arm imitates: answers that it does not see change nothing.
        """
        retention = self.content("retention") if self.retention else None
        imitated = {"expert": self.said(expert)} if expert in self.experts else {}
        return {
            "train": self.content("train"), "retention": retention, "verifier": self.verifier.identity(), **self.length(),
            **imitated,
        }  # fmt: skip

    def evaluation_identity(self) -> dict[str, Any]:
        """What the scores of a checkpoint depend on."""
        audits = {name: code.identity() for name, code in (("lenient", self.lenient), ("parsed", self.parsed)) if code}
        return {
            "items": self.content("items"), "verifier": self.verifier.identity(), "metric": self.metric, **self.length(),
            **audits,
        }  # fmt: skip


def seal_target(
    files: TargetFiles, folder: Path, bad_rows: float = 0.0, imitated: Mapping[str, str] = MappingProxyType({})
) -> OwnTarget:
    """Read and check the files of a target.

    `bad_rows` is the share of a file's rows that may be left out, `imitated` the fields that every training row must have,
    with what needs them. Raises InputError with one sentence that names file and line.
    """
    train, items = folder / files.train, folder / files.items
    found = {"train": examine_prompts(train), "items": _valid_or_not(examine_prompts(items))}
    paths = {"train": train, "items": items}
    if files.retention:
        paths["retention"] = folder / files.retention
        found["retention"] = examine_prompts(paths["retention"])
    asked = {row["prompt"]: line for line, row in found["items"].rows.items()}
    for part in set(found) - {"items"}:
        missing = imitated if part == "train" else {"answer": "replay trains on"}
        found[part] = marked(found[part], dict(_unfit(found[part], missing, asked, items)))
    left_out = {part: refuse_beyond(paths[part], found[part], bad_rows) for part in paths}
    trained, held_out = list(found["train"].rows.values()), list(found["items"].rows.values())
    if files.longest_answer is None and not _answers([*trained, *held_out]):
        raise InputError(f"{train}: no row says an `answer`, so say how many tokens to sample, such as `longest_answer: 16`")
    return OwnTarget(
        train=seal([train]), items=seal([items]), retention=seal([paths["retention"]]) if files.retention else None,
        verifier=locate("target.verifier", files.verifier, folder, VERIFIERS),
        longest_answer=files.longest_answer, metric=files.metric, exact="valid" in held_out[0],
        answers=all("answer" in row for row in trained), left_out={part: gone for part, gone in left_out.items() if gone},
    )  # fmt: skip


def _valid_or_not(found: Examined) -> Examined:
    """Held-out items all list their valid answers or none does; a row that says otherwise than the first is bad."""
    with_valid = [line for line, row in found.rows.items() if "valid" in row]
    if not with_valid:
        return found
    bare = f"`valid` is missing, but line {with_valid[0]} has it: all items have it or none"
    return marked(found, {line: bare for line, row in found.rows.items() if "valid" not in row})


def _unfit(found: Examined, missing: Mapping[str, str], asked: Mapping[str, int], items: Path) -> Iterator[tuple[int, str]]:
    """Rows to be trained on that cannot be: (line, why)."""
    for line, row in found.rows.items():
        lacks = next((field for field in missing if field not in row), None)
        if lacks:
            yield line, f"`{lacks}` is missing, which {missing[lacks]}"
        elif row["prompt"] in asked:
            yield line, f"this prompt is a held-out item, line {asked[row['prompt']]} of {items}; hold it out of one"


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

    rows = [row for part in PARTS[:2] for _, row in target.rows(part)]
    return max(sum(label != IGNORED for label in row["labels"]) for row in encode_exchanges(tokenizer, _answers(rows)))


def says(right: Callable[[str, Row], Any], row: Row, answer: str) -> Any:
    """The verifier's word on an answer to a row, white space around it apart."""
    return right(answer.strip(), row)


class FileTarget:
    """A target of the user's own as training sees it (`retain_core.training.target.Target`)."""

    def __init__(self, target: OwnTarget, tokenizer: Any) -> None:
        self._rows = [row for _, row in target.rows("train")]
        self._right = target.verifier.load()
        self._target = target
        self._answers: dict[str, dict[int, str]] = {}
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

    def expert(self, config: dict[str, Any], seed: int, count: int, only: list[Hashable] | None = None) -> list[Exchange]:
        """The first `count` exchanges of the expert: the answers of the training rows, or of the file for the arm's style.

        Problems to which that file has no answer are passed over.
        """
        answers = self._said(str(config.get("expert", "off_style")))
        known = [index for index in self._chosen(only) if index in answers]
        if not known:
            raise RetainError("the expert answers none of the problems that it may be asked; fetch more of its answers")
        order = _shuffled_forever(known, random.Random(f"expert {seed}"))
        return [(self._rows[index]["prompt"], answers[index]) for index in (next(order) for _ in range(count))]

    def right_answers(self, problem: Problem) -> list[str]:
        """The row's `valid`."""
        row: Row = self._rows[problem.key]  # type: ignore[call-overload]
        if "valid" not in row:
            raise InputError(f"the right answers to {row['prompt']!r} are not listed: its row has no `valid`")
        return list(row["valid"])

    def retention(self, seed: int) -> Iterator[Exchange]:
        """The rows of the target's retention file."""
        rows = [row for _, row in self._target.rows("retention")]
        for index in _shuffled_forever(range(len(rows)), random.Random(f"retention {seed}")):
            yield rows[index]["prompt"], rows[index]["answer"]

    def _said(self, style: str) -> dict[int, str]:
        """Row -> the expert's answer in a style."""
        if style not in self._target.experts:
            return {index: row["answer"] for index, row in enumerate(self._rows) if "answer" in row}
        if style not in self._answers:
            rows = read_rows(self._target.experts[style].checked(), self._target.left_out.get(style, ()))
            said = {row["prompt"]: row["answer"] for _, row in rows}
            self._answers[style] = {i: said[row["prompt"]] for i, row in enumerate(self._rows) if row["prompt"] in said}
        return self._answers[style]

    def _chosen(self, only: list[Hashable] | None) -> Sequence[int]:
        return range(len(self._rows)) if only is None else only  # type: ignore[return-value]


def _shuffled_forever(indices: Sequence[int], rng: random.Random) -> Iterator[int]:
    while True:
        yield from rng.sample(indices, len(indices))
