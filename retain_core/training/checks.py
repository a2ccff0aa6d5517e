"""What must hold of a tokenizer and its chat template before anything is trained: checked on real prompts, in seconds.

Each of these mistakes trains and evaluates without an error and costs a night: a stop token that carries no loss is never
learned, a second token of beginning shifts every prompt, and a prompt that is longer than the context is cut or fails late.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from retain_core.arms import ArmSpec
from retain_core.errors import InputError
from retain_core.own.lengths import context_of
from retain_core.own.target import OwnTarget, longest_answer
from retain_core.training.encode import encode_exchanges, encode_prompts, read_tokenizer, user_turn
from retain_core.training.target import Exchange, target_of

SHOWN = 40
"""Characters of a text that an error quotes."""


def check_base(folder: Path, own: OwnTarget | None) -> None:
    """Whether a base can be trained on a target: its template, its stop token, and the length of every prompt.

    Prompts of the lab (`own` is None) are short. Raises InputError with one sentence and what mends it.
    """
    tokenizer = read_tokenizer(folder)
    if own is None:
        check_template(folder, tokenizer, ("hello", "yes"))
        return
    rows = [(part, line, row) for part in ("train", "items") for line, row in own.rows(part)]
    first = rows[0][2]
    check_template(folder, tokenizer, (first["prompt"], str(first.get("answer", "yes"))))
    check_context(folder, tokenizer, own, rows)


def check_template(folder: Path, tokenizer: Any, exchange: Exchange) -> None:
    """Whether the chat template renders prompts and answers so that they can be learned. Raises InputError."""
    if tokenizer.chat_template is None:
        raise InputError(f"base: the tokenizer of {folder} has no chat template; add chat_template.jinja to the folder")
    if tokenizer.eos_token_id is None:
        raise InputError(f"base: the tokenizer of {folder} has no stop token; set `eos_token` in tokenizer_config.json")
    try:
        encode_exchanges(tokenizer, [exchange])
    except ValueError as error:
        raise InputError(f"base: {folder}: {_mended(tokenizer, exchange, str(error))}") from None
    except Exception as error:  # a template is a program, and fails as one
        said = str(error).splitlines()[:1] or [type(error).__name__]
        raise InputError(f"base: the chat template of {folder} does not render a question with its answer: {said[0]}") from None
    (prompt,) = encode_prompts(tokenizer, [exchange[0]])
    begin = tokenizer.bos_token_id
    if begin is not None and prompt[:2] == [begin, begin]:
        raise InputError(
            f"base: the chat template of {folder} begins a prompt with {tokenizer.bos_token!r} twice; leave one of them out"
        )
    rendered = tokenizer.apply_chat_template([user_turn(exchange[0])], tokenize=False, add_generation_prompt=True)[0]
    if not (tokenizer.bos_token and rendered.startswith(tokenizer.bos_token)) and tokenizer(rendered)["input_ids"] != prompt:
        raise InputError(
            f"base: the tokenizer of {folder} puts tokens around a prompt that its chat template does not write, so training "
            "and evaluation would read different prompts; begin the template with `{{ bos_token }}`, or set "
            "`add_bos_token: false` in tokenizer_config.json"
        )


def check_context(folder: Path, tokenizer: Any, own: OwnTarget, rows: Iterable[tuple[str, int, Any]]) -> None:
    """Whether every prompt leaves room for the longest answer. Raises InputError: the longest, and how many."""
    context = context_of(folder)
    if context is None:
        return
    kept = list(rows)
    longest = longest_answer(own, tokenizer)
    lengths = [len(ids) for ids in encode_prompts(tokenizer, [row["prompt"] for _, _, row in kept])]
    most = max(lengths)
    if most + longest > context:
        part, line, _ = kept[lengths.index(most)]
        over = sum(length + longest > context for length in lengths)
        source = own.train if part == "train" else own.items
        assert source is not None
        raise InputError(
            f"{source.path}:{line}: the prompt takes {most} tokens and an answer up to {longest}, and the base reads "
            f"{context}; shorten it, set a smaller `longest_answer`, or leave the row out ({over:,} of {len(lengths):,} rows "
            "are too long)"
        )


def first_prompt(spec: ArmSpec, base: Path) -> dict[str, Any]:
    """A training prompt as the model reads it, for the record: text, token ids, and the tokens of beginning and end.

    Of a target of the user's own it is the first of its file, of the lab's the first that the arm asks.
    """
    tokenizer = read_tokenizer(base)
    if spec.own_target is not None:
        prompt = str(spec.own_target.rows("train")[0][1]["prompt"])
    else:
        prompt = next(target_of(spec, tokenizer).problems(spec.seed or 0)).prompt
    (ids,) = encode_prompts(tokenizer, [prompt])
    return {
        "prompt": prompt,
        "token_ids": ids,
        "begin": tokenizer.bos_token,
        "stop": [tokenizer.eos_token, tokenizer.eos_token_id],
    }


def _mended(tokenizer: Any, exchange: Exchange, problem: str) -> str:
    """A problem of a template with what mends it."""
    if "stop token" not in problem:
        return f"{problem}; keep what stands before an answer the same with and without one"
    turn = [*user_turn(exchange[0]), {"role": "assistant", "content": exchange[1]}]
    rendered = tokenizer.apply_chat_template([turn], tokenize=False)[0]
    end = rendered.rpartition(exchange[1])[2].strip()[:SHOWN]
    told = f"it writes {end!r}" if end else "it writes nothing"
    return (
        f"{problem} {tokenizer.eos_token!r} ({told}), so the model would never learn to stop; set `eos_token` in "
        "tokenizer_config.json to what the template ends an answer with, or mend the template"
    )
