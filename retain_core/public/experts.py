"""Answers of a stronger model to the training problems of a public target, and the same in the base's own words.

Only what the verifier calls right is kept, and every answer is counted. Owns, in the data set's folder:
asked_<style>.jsonl   a line for whom, then every answer as it came (prompt, answer, outcome): who is interrupted goes on
<style>.jsonl         the right ones (prompt, answer), in the order of the training problems, written at the end
`experts` in counts.json: style -> model, asked, and how many answers had which outcome
<style> is `off_style`, or `in_style-<base>`: answers that a base rewrote are of no use to another.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from retain_core.errors import InputError, RetainError
from retain_core.own.files import Row
from retain_core.own.target import says
from retain_core.public.catalogue import LONGEST_ANSWER
from retain_core.public.folder import (
    TRAIN,
    answers_file,
    experts_line,
    folder_of,
    read_counts,
    read_rows_of,
    style_name,
    write_counts,
)
from retain_core.public.sealed import verifier_of
from retain_core.public.server import Answered, Server
from retain_core.store import write_atomically
from retain_core.study import Study
from retain_core.training.rewards import Judge, alarm

Ask = Callable[[Sequence[str], int], Iterable[Answered]]
RIGHT, WRONG, CUT, REFUSED = "right", "wrong", "cut", "refused"
OUTCOMES = (RIGHT, WRONG, CUT, REFUSED)
GIVE_UP = 3
"""So many refusals before the first answer mean that the request is wrong, and not the question."""
REWRITE = (
    "{prompt}\n\n---\nThis is a right answer to the question above:\n\n{answer}\n\n---\nAnswer the question yourself, in your "
    "own words and style. Come to the same final answer, in the form that the question asks for. Give only the answer."
)
SEED = 0
"""The random stream of a base that rewrites on this machine."""


class Speaker(NamedTuple):
    """Who answers."""

    name: str
    ask: Ask


def ask_expert(home: Path, study: Study, expert: Speaker) -> Iterator[str]:
    """Put every training problem of a study's public target to a stronger model. Yields a sentence at the end."""
    folder = _folder(home, study)
    rows = read_rows_of(folder, TRAIN)
    yield _collect(folder, study, "off_style", expert, {row["prompt"]: row["prompt"] for row in rows}, rows)


def ask_in_style(home: Path, study: Study, base: Speaker) -> Iterator[str]:
    """Have the base say the stronger model's answers in its own words. Yields a sentence at the end.

    Raises InputError where there are no such answers yet.
    """
    folder = _folder(home, study)
    source = answers_file(folder, "off_style")
    if not source.is_file():
        raise InputError(
            f"{study.target}: there are no answers of a stronger model to rewrite; fetch them with "
            "`retain prefetch STUDY.yaml --experts URL --expert-model NAME`"
        )
    said = {row["prompt"]: row["answer"] for row in read_rows_of(folder, source.name)}
    rows = [row for row in read_rows_of(folder, TRAIN) if row["prompt"] in said]
    asked = {row["prompt"]: REWRITE.format(prompt=row["prompt"], answer=said[row["prompt"]]) for row in rows}
    yield _collect(folder, study, style_name("in_style", study.base_name()), base, asked, rows)


def served(server: Server) -> Speaker:
    """A model behind a server, greedy."""
    return Speaker(server.model, server.answers)


def here(study: Study, folder: Path, batch: int = 64) -> Speaker:
    """The base on this machine, sampled at temperature 1, a batch at a time so that little is lost when it is stopped."""

    def ask(questions: Sequence[str], longest: int) -> Iterator[Answered]:
        from transformers import AutoModelForCausalLM, set_seed

        from retain_core.devices import has_cuda
        from retain_core.passes import tokens_at_once
        from retain_core.training.encode import read_tokenizer
        from retain_core.training.sampling import sample_answers

        tokenizer = read_tokenizer(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True).to("cuda" if has_cuda() else "cpu")
        set_seed(SEED)
        for first in range(0, len(questions), batch):
            part = questions[first : first + batch]
            answers = sample_answers(
                model, tokenizer, part, temperature=1.0, max_new_tokens=longest, at_once=tokens_at_once(model.config)
            )
            yield from (Answered(first + i, text, ended) for i, (text, ended, _) in enumerate(answers))

    return Speaker(study.base.model, ask)


def _folder(home: Path, study: Study) -> Path:
    if study.target not in study.public_names():
        raise InputError(f"{study.study}: the answers of a stronger model are for public targets, and {study.target} is none")
    return folder_of(home, *study.data.wanted(study.target))


def _collect(folder: Path, study: Study, style: str, speaker: Speaker, asked: Mapping[str, str], rows: Sequence[Row]) -> str:
    """Ask what was not asked before, judge every answer, and write the right ones. Returns a sentence."""
    from tqdm import tqdm

    log = _Log(folder / f"asked_{style}.jsonl", speaker.name)
    of = {row["prompt"]: row for row in rows}
    left = [prompt for prompt in asked if prompt not in log.outcomes]
    right, judge = verifier_of(study.target), Judge()
    longest = study.data.longest_answer or LONGEST_ANSWER
    with alarm(), tqdm(total=len(asked), initial=len(asked) - len(left), desc=f"{speaker.name}", disable=None) as bar:
        for place, text, ended, refused in speaker.ask([asked[prompt] for prompt in left], longest) if left else ():
            prompt = left[place]
            outcome = REFUSED if refused else CUT
            if ended:
                outcome = RIGHT if judge.earned(partial(says, right, of[prompt], text)) > 0 else WRONG
            log.add(prompt, text.strip(), outcome)
            if refused and len(log.outcomes) == GIVE_UP and set(log.outcomes.values()) == {REFUSED}:
                log.path.unlink()
                raise InputError(f"{speaker.name} refuses every request: {refused}")
            bar.update()
    counted = Counter(log.outcomes[prompt] for prompt in asked)
    counts = {"model": speaker.name, "asked": len(asked), **{outcome: counted[outcome] for outcome in OUTCOMES}}
    if not counted[RIGHT]:
        raise RetainError(f"{study.target}: none of {len(asked):,} answers of {speaker.name} is right; they are in {log.path}")
    kept = [{"prompt": prompt, "answer": log.answers[prompt]} for prompt in asked if prompt in log.answers]
    write_atomically(answers_file(folder, style), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))
    known = read_counts(folder)
    write_counts(folder, {**known, "experts": {**known.get("experts", {}), style: counts}})
    return f"{experts_line(study.target, style, counts)}; in {answers_file(folder, style)}"


class _Log:
    """Every answer so far, on disk as soon as it is judged."""

    def __init__(self, path: Path, model: str) -> None:
        self.path = path
        self.outcomes: dict[str, str] = {}
        self.answers: dict[str, str] = {}
        """Of the right ones."""
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        # The last line is half a line where the writer was killed.
        lines = [json.loads(line) for line in text.split("\n")[:-1]]
        if lines and lines[0]["model"] != model:
            raise InputError(f"{path} has answers of {lines[0]['model']}; remove that file to ask {model} instead")
        if not lines:
            path.write_text(json.dumps({"model": model}) + "\n", encoding="utf-8")
        elif not text.endswith("\n"):
            path.write_text(text[: text.rindex("\n") + 1], encoding="utf-8")
        for line in lines[1:]:
            self._know(**line)

    def add(self, prompt: str, answer: str, outcome: str) -> None:
        """Write one answer down."""
        line = {"prompt": prompt, "answer": answer, "outcome": outcome}
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._know(**line)

    def _know(self, prompt: str, answer: str, outcome: str) -> None:
        self.outcomes[prompt] = outcome
        if outcome == RIGHT:
            self.answers[prompt] = answer
