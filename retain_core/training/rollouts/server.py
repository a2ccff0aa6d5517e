"""The protocol of vLLM's own server, as far as a trainer needs it: answers in token ids, weights from a folder, their version.

    GET  /v1/models               the model's name, and how many tokens it reads
    POST /tokenize                whether the server's vocabulary is the trainer's
    POST /v1/completions          one prompt in token ids, one seed; token ids with log-probabilities, and why it ended
    GET  /weight_info             the version of the weights, a text that whoever loads them chooses
    POST /update_weight_version   choose it
    POST /collective_rpc          `reload_weights` from a folder of safetensors
    POST /reset_prefix_cache      forget what was computed with other weights

The last four are there in vLLM's development mode (VLLM_SERVER_DEV_MODE=1). TRL's client would hand weights over from card to
card (NCCL), but it needs vLLM in the trainer's environment, and the two cannot share one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from retain_core.errors import InputError, RetainError
from retain_core.redact import redact
from retain_core.training.rollouts.setting import RolloutServer

SECONDS = 3600.0
"""Longest wait for one answer, or for weights to be loaded."""
LAST_WORDS = 300
"""Characters of a server's reply that an error quotes."""
LOADING = "loading "
"""Stands before a version while its weights are on their way, so that nobody takes them for others."""


class Sampled(NamedTuple):
    """One answer."""

    ids: list[int]
    """With the stop token, unless the answer was cut at the longest length."""
    log_probabilities: list[float]
    """Of each token, as the server found it when it drew it."""


class PolicyServer:
    """A server behind an address. Every method raises RetainError with one sentence where it does not do its part."""

    def __init__(self, setting: RolloutServer) -> None:
        self.address = setting.server
        self._concurrent = setting.concurrent
        self._client = httpx.Client(
            timeout=httpx.Timeout(SECONDS, connect=10.0),
            # A connection that idles between two samplings may be closed by the server just when it is used again.
            limits=httpx.Limits(max_connections=setting.concurrent, max_keepalive_connections=0),
        )
        self._model, self._context = "", 0

    def check(self, text: str, ids: Sequence[int]) -> None:
        """Before training: the server is there, can be given weights, and reads a rendered prompt as the trainer does.

        Raises InputError where it is another one than a training needs.
        """
        try:
            first = self._get("/v1/models")["data"][0]
            self._model, self._context = str(first["id"]), int(first.get("max_model_len") or 0)
        except (LookupError, TypeError, ValueError, AttributeError):
            raise InputError(f"{self.address}/v1/models names no model; training.rollouts needs a vLLM server") from None
        self.version()
        said = self._post("/tokenize", {"model": self._model, "prompt": text, "add_special_tokens": False})
        if not isinstance(said, dict) or said.get("tokens") != list(ids):
            raise InputError(
                f"{self.address} has another vocabulary than the base: it reads the first prompt as other tokens; "
                "start it with the base of the study"
            )

    def version(self) -> str:
        """The version of the weights that it answers with. Raises InputError where it has none."""
        reply = self._send("GET", "/weight_info")
        if reply.status_code == 404:
            raise InputError(
                f"{self.address} cannot be given weights: it has no /weight_info; start vLLM with VLLM_SERVER_DEV_MODE=1, "
                "in a release that has it"
            )
        said = self._read("/weight_info", reply)
        if not isinstance(said, dict) or not isinstance(said.get("weight_version"), str):
            raise RetainError(f"{self.address}/weight_info names no version of the weights")
        return str(said["weight_version"])

    def load(self, folder: Path, version: str) -> None:
        """Have it take the weights of a folder, and know them by this version."""
        self._name_version(LOADING + version)
        reload = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        try:
            self._post("/collective_rpc", reload)
        except _RefusedError as refused:
            raise RetainError(
                f"{self.address} did not take the policy's weights from {folder} ({refused}); it must see that folder "
                "(training.rollouts.weights) and serve the base of the study"
            ) from None
        said = self._post("/reset_prefix_cache", {})
        if isinstance(said, dict) and said.get("success") is False:
            raise RetainError(f"{self.address} would not forget what it computed with other weights: somebody else asks it too")
        if self.version() != LOADING + version:
            raise RetainError(f"something else loads weights into {self.address}; a training needs a server of its own")
        self._name_version(version)

    def sample(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], *, temperature: float, longest: int, stop: int
    ) -> list[Sampled]:
        """One answer a prompt, each from a random stream of its own seed, from the whole distribution.

        A request each: vLLM gives all prompts of one request the same seed, and equal prompts would get equal answers.
        """
        if self._context and (needed := max(map(len, prompts)) + longest) > self._context:
            raise InputError(
                f"{self.address} reads {self._context} tokens, and a prompt with its answer takes up to {needed}; "
                f"start it with --max-model-len {needed} or more"
            )
        whole = {
            "model": self._model, "temperature": temperature, "top_p": 1.0, "top_k": 0, "min_p": 0.0,
            "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "n": 1, "max_tokens": longest,
            # Only the trainer's own stop token ends an answer: a model's generation_config.json may name more.
            "ignore_eos": True, "stop_token_ids": [stop], "logprobs": 0, "return_token_ids": True,
        }  # fmt: skip

        def ask(one: tuple[Sequence[int], int]) -> Sampled:
            prompt, seed = one
            return self._sampled(self._post("/v1/completions", {**whole, "prompt": list(prompt), "seed": seed}), longest, stop)

        with ThreadPoolExecutor(min(self._concurrent, len(prompts))) as pool:
            return list(pool.map(ask, zip(prompts, seeds, strict=True)))

    def _sampled(self, reply: Any, longest: int, stop: int) -> Sampled:
        try:
            (choice,) = reply["choices"]
            ids, reason = [int(token) for token in choice["token_ids"]], choice["finish_reason"]
            found = [float(value) for value in choice["logprobs"]["token_logprobs"]]
        except (KeyError, TypeError, ValueError):
            raise RetainError(
                f"{self.address} answers, but not with the token ids and log-probabilities of vLLM's completions"
            ) from None
        if reason == "length" and len(ids) < longest:
            raise RetainError(
                f"{self.address} cut an answer after {len(ids)} tokens, and {longest} were asked for; "
                "start it with a longer --max-model-len"
            )
        ended = {"stop": ids[-1:] == [stop], "length": len(ids) == longest}
        if not ended.get(reason, False) or stop in ids[:-1]:
            raise RetainError(f"{self.address} ended an answer of {len(ids)} tokens neither at the stop token nor at {longest}")
        if len(found) != len(ids) or not all(map(math.isfinite, found)):
            raise RetainError(f"{self.address} gave no log-probability for some token of an answer")
        return Sampled(ids, found)

    def _name_version(self, version: str) -> None:
        self._post("/update_weight_version", {"new_version": version})

    def _get(self, path: str) -> Any:
        return self._read(path, self._send("GET", path))

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self._read(path, self._send("POST", path, body))

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        try:
            return self._client.request(method, self.address + path, json=body)
        except httpx.HTTPError as error:
            said = redact(str(error)) or type(error).__name__
            raise RetainError(
                f"the server of rollouts at {self.address} does not answer ({said}); "
                "run again when it is back: the arm goes on from its last state"
            ) from error

    def _read(self, path: str, reply: httpx.Response) -> Any:
        """What a reply says; None where it is empty."""
        if reply.status_code >= 400:
            said = " ".join(redact(reply.text).split())[:LAST_WORDS]
            raise _RefusedError(f"{self.address}{path} answered HTTP {reply.status_code}: {said or 'nothing'}")
        try:
            return reply.json() if reply.content else None
        except ValueError:
            raise RetainError(f"{self.address}{path} did not answer in JSON") from None


class _RefusedError(RetainError):
    """The server answered that it would not."""
