"""A server that speaks OpenAI's chat completions, such as vLLM's: many questions, answers as they come."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx
from pydantic import SecretStr

from retain_core.errors import InputError, RetainError
from retain_core.redact import public_address, redact

AT_ONCE = 16
"""Requests that are under way at a time: a server batches them."""
SECONDS = 600.0
"""Longest wait for one answer."""
TRIES = 5
"""How often a question is put again after the server failed, each time after twice the wait."""


class Answered(NamedTuple):
    """One answer of a server."""

    place: int
    """Which question."""
    text: str
    ended: bool
    """It stopped by itself, and was not cut."""
    refused: str = ""
    """What the server said where it would not answer this question."""


@dataclass(frozen=True)
class Server:
    """A model behind an address. The key is sent to that address only, and stands in no message."""

    url: str
    model: str
    key: SecretStr | None = None
    first_wait: float = 1.0

    @property
    def address(self) -> str:
        """The address without user, password and query, for people to read."""
        return public_address(self.url) or "the server"

    def answers(self, questions: Sequence[str], longest: int) -> Iterator[Answered]:
        """One greedy answer a question, as they come. Raises InputError or RetainError with one sentence."""
        if public_address(self.url) is None:
            raise InputError(f"{self.url!r} is no address of a server, such as http://localhost:8000/v1")
        left = iter(enumerate(questions))
        with httpx.Client(timeout=httpx.Timeout(SECONDS, connect=10.0)) as client, ThreadPoolExecutor(AT_ONCE) as pool:
            running: set[Future[Answered]] = set()
            try:
                while True:
                    for place, question in left:
                        running.add(pool.submit(self._ask, client, place, question, longest))
                        if len(running) >= AT_ONCE:
                            break
                    if not running:
                        return
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            finally:
                for future in running:
                    future.cancel()

    def _ask(self, client: httpx.Client, place: int, question: str, longest: int) -> Answered:
        body = {
            "model": self.model, "messages": [{"role": "user", "content": question}], "temperature": 0.0, "max_tokens": longest,
        }  # fmt: skip
        headers = {"Authorization": f"Bearer {self.key.get_secret_value()}"} if self.key else {}
        said = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(self.first_wait * 2 ** (attempt - 1))
            try:
                reply = client.post(f"{self.url.rstrip('/')}/chat/completions", json=body, headers=headers)
            except httpx.HTTPError as error:
                said = redact(str(error)) or type(error).__name__
                continue
            if reply.status_code < 500 and reply.status_code != 429:
                return self._read(reply, place)
            said = f"HTTP {reply.status_code}"
        raise RetainError(f"{self.address} does not answer ({said}); what was answered is kept, so run the same command again")

    def _read(self, reply: httpx.Response, place: int) -> Answered:
        if reply.status_code in (401, 403):
            raise InputError(f"{self.address} refuses the key (HTTP {reply.status_code}); set RETAIN_EXPERT_KEY")
        if reply.status_code == 404:
            raise InputError(f"{self.address} has no /chat/completions, or no model {self.model!r}")
        if reply.status_code >= 400:
            return Answered(place, "", False, _first_line(reply.text) or f"HTTP {reply.status_code}")
        try:
            choice: Any = reply.json()["choices"][0]
            return Answered(place, str(choice["message"]["content"] or ""), choice["finish_reason"] == "stop")
        except (ValueError, LookupError, TypeError):
            raise RetainError(f"{self.address} answers, but not in the form of OpenAI's chat completions") from None


def _first_line(text: str) -> str:
    said = redact(text).strip().splitlines()[:1]
    return said[0][:200] if said else ""
