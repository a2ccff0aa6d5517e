"""A model behind an OpenAI-compatible server of completions, such as vLLM's, asked through lm-eval's own client.

The server runs in an environment of its own and lives as long as one checkpoint is asked. Prompts are rendered and tokenized
here, with the checkpoint's own tokenizer, so both backends put the same tokens to a model.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import aiohttp
from lm_eval.models.openai_completions import LocalCompletionsAPI

from retain_core.errors import RetainError
from retain_core.evaluation.generation import Generation
from retain_core.evaluation.harness import in_order, refuse_long

log = logging.getLogger(__name__)
LAST_WORDS = 300
"""Characters of a server's output that an error quotes."""
TRIES = 3


class HttpLM(LocalCompletionsAPI):  # type: ignore[misc]
    """lm-eval's client, which remembers the length and the end of every generated answer."""

    def __init__(self, address: str, weights: Path, concurrent: int) -> None:
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        super().__init__(
            base_url=f"{address}/v1/completions", model=_model_name(address), tokenizer=str(weights),
            tokenizer_backend="huggingface", tokenized_requests=True, batch_size=1, num_concurrent=max(2, concurrent),
            max_length=context_of(weights), max_retries=TRIES, timeout=3600,
        )  # fmt: skip
        self.address = address
        self.item_order: Literal["given", "reversed", "shuffled"] = "given"
        """The order in which requests are put to the model; answers come back in the given one."""
        self.generated: dict[str, tuple[int | None, str | None]] = {}
        """prompt -> (tokens, finish reason) of the last answer to it."""
        self._last: tuple[int | None, str | None] = (None, None)
        self.cache_hook = self

    def parse_generations(self, outputs: Any, **kwargs: Any) -> list[str]:
        """The texts of one reply, which is of one prompt; lm-eval tells `add_partial` of it before the next is read."""
        choice, usage = outputs["choices"][0], outputs.get("usage") or {}
        self._last = usage.get("completion_tokens"), choice.get("finish_reason")
        return list(LocalCompletionsAPI.parse_generations(outputs, **kwargs))

    def add_partial(self, kind: str, request: Any, _response: Any) -> None:
        """lm-eval's hook, called once an answer; nothing is cached."""
        if kind == "generate_until":
            self.generated[request[0]] = self._last

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy answers, in the order of the requests. Raises RetainError where a prompt is too long."""
        refuse_long(self, requests)
        answer = super().generate_until
        return in_order(self.item_order, requests, lambda asked: self._asked(lambda: answer(asked, disable_tqdm)))

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-likelihood, whether greedy) of each continuation, in their order. Raises RetainError where one is too long."""
        refuse_long(self, requests)
        answer = super().loglikelihood
        return in_order(self.item_order, requests, lambda asked: self._asked(lambda: answer(asked, disable_tqdm)))

    def _asked(self, ask: Callable[[], list[Any]]) -> list[Any]:
        try:
            return ask()
        except (aiohttp.ClientError, OSError) as error:
            raise RetainError(f"the server of completions failed: {type(error).__name__}: {str(error)[:LAST_WORDS]}") from error
        except (KeyError, TypeError, IndexError) as error:
            raise RetainError(
                f"the server's replies are not those of an OpenAI-compatible server of completions that gives `logprobs` "
                f"with `echo` ({type(error).__name__}: {error})"
            ) from error


def context_of(weights: Path) -> int:
    """How many tokens a model reads, its answer included, as its config says."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(weights)
    return int(getattr(config.get_text_config(), "max_position_embeddings", 2048))


@contextlib.contextmanager
def served(generation: Generation, weights: Path, folder: Path) -> Iterator[HttpLM]:
    """A model of a folder behind the server that a study names, which ends with the block or with this process.

    `folder` is where the server writes what it prints. Raises RetainError where it ends before it answers, or takes longer
    than it may.
    """
    assert generation.serve is not None
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    parts = shlex.split(generation.serve)
    command = [part.replace("{model}", str(weights)).replace("{port}", str(port)) for part in parts]
    output = folder / "server.log"
    with output.open("w", encoding="utf-8") as stream:
        attendant = subprocess.Popen(
            [sys.executable, "-m", "retain_core.evaluation.attend", *command],
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=stream,
        )
        try:
            _wait(address, attendant, generation, output)
            yield HttpLM(address, weights, generation.concurrent)
        finally:
            assert attendant.stdin is not None
            attendant.stdin.close()
            attendant.wait()


def _wait(address: str, attendant: subprocess.Popen[bytes], generation: Generation, output: Path) -> None:
    deadline = time.monotonic() + generation.start_seconds
    while True:
        with contextlib.suppress(urllib.error.URLError, OSError, RetainError):
            _model_name(address)
            return
        ended = attendant.poll() is not None
        if ended or time.monotonic() > deadline:
            told = " ".join(output.read_text(encoding="utf-8", errors="replace").split())[-LAST_WORDS:]
            what = "ended before it answered" if ended else f"did not answer within {generation.start_seconds} s"
            raise RetainError(f"the server of completions {what} (`{generation.serve}`): {told or 'it printed nothing'}")
        time.sleep(0.3)


def _model_name(address: str) -> str:
    """The name by which a server knows its model."""
    with urllib.request.urlopen(f"{address}/v1/models", timeout=10) as reply:  # noqa: S310
        body = json.load(reply)
    try:
        return str(body["data"][0]["id"])
    except (KeyError, IndexError, TypeError):
        raise RetainError(f"{address}/v1/models names no model") from None


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
