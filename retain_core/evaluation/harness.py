"""Asking one model one benchmark through lm-eval, keeping what lm-eval throws away.

lm-eval does the prompting, the filtering and the scoring. A small subclass of its `HFLM` notes how
many tokens each answer took and whether it ended by itself. lm-eval's response cache is never used:
it is not keyed on the model.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import set_seed

from retain_core.errors import RetainError
from retain_core.evaluation.answers import Answer
from retain_core.evaluation.benchmarks import BATCH_SIZE, SAMPLING_SEED, Benchmark
from retain_core.passes import SCORED_AT_ONCE, groups

YAML_FOLDER = Path(__file__).parent.parent / "lab" / "benchmarks"


class RecordingLM(HFLM):  # type: ignore[misc]
    """`HFLM` that remembers the length and the end of every generated answer, and whose batches fit into memory."""

    def __init__(
        self, model: Any, tokenizer: Any, batch_size: int = BATCH_SIZE, at_once: int | None = None, softmax: str | None = None
    ) -> None:
        """`at_once`: tokens of a pass at most (`retain_core.passes`), None for batches of `batch_size` whatever their length.

        `softmax` is the precision of the log-likelihoods, None for that of the logits.
        """
        super().__init__(
            pretrained=model, tokenizer=tokenizer, batch_size=batch_size, device=str(model.device), softmax_dtype=softmax,
        )  # fmt: skip
        self._rows, self._at_once = batch_size, at_once
        self.item_order: Literal["given", "reversed", "shuffled"] = "given"
        """The order in which requests are put to the model; answers come back in the given one."""
        self.generated: dict[str, tuple[int, str]] = {}
        """prompt -> (tokens, finish reason) of the last answer to it."""
        self._lengths: list[tuple[int, str]] = []
        self.cache_hook = self

    def add_partial(self, kind: str, request: Any, _response: Any) -> None:
        """lm-eval's hook, called once an answer in the order of generation; nothing is cached."""
        if kind == "generate_until":
            self.generated[request[0]] = self._lengths.pop(0)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy answers, in the order of the requests. Raises RetainError where a prompt is too long."""
        refuse_long(self, requests)
        return in_order(self.item_order, requests, lambda asked: self._generated(asked, disable_tqdm))

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-likelihood, whether greedy) of each continuation, in their order. Raises RetainError where one is too long."""
        refuse_long(self, requests)
        return in_order(self.item_order, requests, lambda asked: super(RecordingLM, self).loglikelihood(asked, disable_tqdm))

    def _generated(self, asked: list[Any], disable_tqdm: bool) -> list[str]:
        answer = super().generate_until
        if self._at_once is None:
            return list(answer(asked, disable_tqdm))
        room = [request.args[1].get("max_gen_toks", self.max_gen_toks) for request in asked]
        needed = [len(self.tok_encode(request.args[0])) + most for request, most in zip(asked, room, strict=True)]
        places = sorted(range(len(asked)), key=lambda place: (-needed[place], place))
        found = [""] * len(asked)
        for part in groups([needed[place] for place in places], self._rows, self._at_once):
            self.batch_size_per_gpu = part.stop - part.start
            said = answer([asked[place] for place in places[part]], disable_tqdm=True)
            for place, text in zip(places[part], said, strict=True):
                found[place] = text
        return found

    def _loglikelihood_tokens(
        self, requests: list[Any], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """lm-eval's own, a part at a time: what differs in its last token only is one row of a pass."""
        answer = super()._loglikelihood_tokens
        if self._at_once is None:
            return list(answer(requests, disable_tqdm, override_bs))
        rows: dict[tuple[int, ...], list[int]] = {}
        for place, (_, context, rest) in enumerate(requests):
            rows.setdefault(tuple(context + rest[:-1]), []).append(place)
        longest_first = sorted(rows, key=lambda row: (-len(row), row))
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        most = min(self._at_once, SCORED_AT_ONCE // self.model.config.get_text_config().vocab_size)
        for part in groups([len(row) for row in longest_first], self._rows, most):
            self.batch_size_per_gpu = part.stop - part.start
            places = [place for row in longest_first[part] for place in rows[row]]
            scored = answer([requests[place] for place in places], disable_tqdm=True)
            for place, one in zip(places, scored, strict=True):
                found[place] = one
        return found

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **options: Any) -> Any:
        out = super()._model_generate(context=context, max_length=max_length, stop=stop, **options)
        end = self.tokenizer.eos_token_id
        for row in out[:, context.shape[1] :].tolist():
            finished = end in row
            self._lengths.append((row.index(end) + 1, "stop") if finished else (len(row), "length"))
        return out


USUAL_ANSWER = 256
"""Tokens that lm-eval generates at most where a benchmark does not say how many."""


def refuse_long(lm: Any, requests: list[Any]) -> None:
    """Raises RetainError where a prompt would be cut, before any is put to the model: how many, and the longest of them."""
    over: dict[int, Any] = {}
    for request in requests:
        context, rest = request.args
        asked = isinstance(rest, dict)
        room = rest.get("max_gen_toks", USUAL_ANSWER) if asked else len(rest.encode())
        if len(context.encode()) + room < lm.max_length:  # no text has more tokens than bytes
            continue
        needed = len(lm.tok_encode(context)) + (room if asked else len(lm.tok_encode(rest)))
        if needed > lm.max_length:
            over[needed] = request, over.get(needed, (None, 0))[1] + 1
    if over:
        longest, many = over[max(over)][0], sum(count for _, count in over.values())
        raise RetainError(
            f"{longest.task_name}: {many:,} of {len(requests):,} prompts are too long; item {longest.doc_id} takes {max(over)} "
            f"tokens with its answer; the model reads {lm.max_length}: take those items out, ask with fewer examples, or let "
            "answers be shorter"
        )


LM = Any
"""What is asked: a `RecordingLM`, or a `retain_core.evaluation.http.HttpLM`, which remembers the same."""


def in_order(order: str, requests: list[Any], answer: Callable[[list[Any]], list[Any]]) -> list[Any]:
    """Answers in the order of the requests, which are put in another `order`: given, reversed or shuffled."""
    places = list(range(len(requests)))
    if order == "reversed":
        places.reverse()
    elif order == "shuffled":
        random.Random("item order").shuffle(places)
    found = answer([requests[place] for place in places])
    return [given for _, given in sorted(zip(places, found, strict=True), key=lambda pair: pair[0])]


@lru_cache(maxsize=8)
def task_manager(items: str) -> TaskManager:
    """lm-eval's task manager over the lab's YAML files only, with the items of one dataset artifact."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return TaskManager(include_path=str(YAML_FOLDER), include_defaults=False, metadata={"items": items})


@lru_cache(maxsize=64)
def _task(items: str, harness_name: str) -> Any:
    return task_manager(items).load([harness_name])


def ask(lm: LM, benchmark: Benchmark, items: str) -> list[Answer]:
    """Every item of a benchmark of the lab put to the model, with lm-eval's own scores."""
    name, samples = benchmark.harness_name, benchmark.samples
    lm.generated.clear()
    set_seed(SAMPLING_SEED)
    results: Any = evaluate(lm=lm, task_dict=_task(items, name), bootstrap_iters=0, apply_chat_template=True, log_samples=True)
    if samples > 1:
        return [answer for sample in results["samples"][name] for answer in _sampled_answers(sample)]
    return [_answer(lm, sample) for sample in results["samples"][name]]


def _sampled_answers(sample: dict[str, Any]) -> list[Answer]:
    """An answer a draw; what is said of all draws of an item together stands with the first."""
    doc, each = sample["doc"], {name: sample[name] for name in sample["metrics"]}
    return [
        Answer(
            doc_id=doc["doc_id"], prompt=doc["prompt"], target=str(doc["target"]), cluster=doc["cluster"],
            response=text, repeat=repeat, kind=doc.get("kind"),
            scores={
                name: float(score[repeat] if isinstance(score, list) else score)
                for name, score in each.items()
                if repeat == 0 or isinstance(score, list)
            },
        )
        for repeat, text in enumerate(sample["filtered_resps"][0])
    ]  # fmt: skip


def _answer(lm: LM, sample: dict[str, Any]) -> Answer:
    doc = sample["doc"]
    scores = {name: float(sample[name]) for name in sample["metrics"]}
    parsed = scores.pop("parsed", None)
    tokens, finish = lm.generated.get(sample["arguments"][0][0], (None, None))
    return Answer(
        doc_id=doc["doc_id"], prompt=doc["prompt"], target=str(doc["target"]), cluster=doc["cluster"],
        response=response_of(sample), scores=scores, parsed=None if parsed is None else bool(parsed),
        finish_reason=finish, n_tokens=tokens, kind=doc.get("kind"),
    )  # fmt: skip


def response_of(sample: dict[str, Any]) -> str:
    """The text answered; for multiple choice, the choice with the highest likelihood."""
    first = sample["filtered_resps"][0]
    if isinstance(first, str):
        return first
    likelihoods = [response[0] for response in sample["filtered_resps"]]
    if len(likelihoods) == 1:
        return ""
    best = max(range(len(likelihoods)), key=likelihoods.__getitem__)
    return str(sample["arguments"][best][1]).strip()
