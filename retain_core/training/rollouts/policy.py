"""The policy of a training on its server: weights handed over, their version checked, what the server finds likely compared.

Before every sampling the weights as they are go to the server through a folder, under a version of their own; after it the
version is asked for again, so samples come from exactly that policy or from none. The folder is
`<weights>/retain-<key of the training>/<version>`, there until the server has read it. Each request has a seed made of the
arm's seed, the target, the update and its place, so an arm that goes on asks what it would have asked.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from retain_core.canonical import digest
from retain_core.errors import RetainError
from retain_core.training import ranks
from retain_core.training.adapters import in_shards, plain_weights, save_plain
from retain_core.training.rollouts.server import PolicyServer, Sampled

if TYPE_CHECKING:
    import torch

    from retain_core.arms import ArmSpec

COMPARED = 16
"""Answers of every sampling whose log-probabilities are compared with the trainer's."""
MOST_GAP = 0.2
"""Mean gap in nats per token above which the server's weights are taken for others: rounding to bf16 makes a hundredth."""
POSITIONS = 512
"""Tokens whose log-probabilities are taken at once."""


class Rollouts:
    """What samples for one training. Raises RetainError with one sentence where the server does not do its part."""

    def __init__(self, spec: ArmSpec, tokenizer: Any, folder: Path, prompt: tuple[str, list[int]]) -> None:
        """`folder` takes the weights unless the study names one; `prompt` is one of the target's, rendered and as token ids."""
        assert spec.size.rollouts is not None
        setting = spec.size.rollouts
        self.gap: dict[str, float] = {}
        """How far server and trainer were apart at the last sampling, in nats per token."""
        self._spec, self._stop = spec, tokenizer.eos_token_id
        self._server = PolicyServer(setting)
        key = spec.key[:16]
        self._folder = Path(setting.weights or folder.absolute()) / f"retain-{key}"
        self._once = f"{key}-{os.urandom(4).hex()}"
        """Of this process alone: what one that was killed left on the server is not taken for this one's."""
        self._update, self._asked = -1, 0
        self._lock = _lock(setting.server)
        if ranks.is_main():
            shutil.rmtree(self._folder, ignore_errors=True)
        ranks.from_main(lambda: self._server.check(*prompt))

    def sample(
        self, model: Any, prompts: Sequence[Sequence[int]], *, update: int, temperature: float, longest: int, bf16: bool
    ) -> list[list[int]]:
        """One answer a prompt from the policy as it is after `update` updates, as token ids, the stop token last unless cut.

        Every process that trains the arm gives all prompts and gets all answers. No random stream is touched.
        """
        import torch

        weights: dict[str, torch.Tensor] = {}
        if ranks.is_main() or in_shards(model):
            dtype = torch.bfloat16 if bf16 else torch.float32  # of a policy that is trained in bf16 the own copy is bf16 too
            weights = {name: weight.detach().to(dtype) for name, weight in plain_weights(model).items()}
        seeds = self._seeds(update, len(prompts))
        answers = ranks.from_main(lambda: self._sampled(model, weights, prompts, seeds, update, temperature, longest))
        self._compare(model, prompts, answers, temperature, bf16)
        return [answer.ids for answer in answers]

    def _seeds(self, update: int, count: int) -> list[int]:
        """Of the next requests of an update."""
        if update != self._update:
            self._update, self._asked = update, 0
        first, self._asked = self._asked, self._asked + count
        said = [self._spec.seed, self._spec.target, update]
        return [int(digest([*said, place], 15), 16) for place in range(first, self._asked)]

    def _sampled(
        self, model: Any, weights: dict[str, torch.Tensor], prompts: Sequence[Sequence[int]], seeds: list[int], update: int,
        temperature: float, longest: int,
    ) -> list[Sampled]:  # fmt: skip
        version = f"{self._once}-{update}"
        with self._lock:  # other arms of this machine wait for the server
            if self._server.version() != version:
                self._hand_over(model, weights, version)
            answers = self._server.sample(prompts, seeds, temperature=temperature, longest=longest, stop=self._stop)
            found = self._server.version()
        if found != version:
            raise RetainError(
                f"the weights on {self._server.address} are version {found!r} now and no more those after update {update}: "
                "it was started again, or something else uses it; a training needs a server of its own"
            )
        return answers

    def _hand_over(self, model: Any, weights: dict[str, torch.Tensor], version: str) -> None:
        folder = self._folder / version
        try:
            save_plain(model, folder, weights)
            self._server.load(folder, version)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _compare(
        self, model: Any, prompts: Sequence[Sequence[int]], answers: list[Sampled], temperature: float, bf16: bool
    ) -> None:
        import torch

        gaps = []
        for prompt, answer in list(zip(prompts, answers, strict=True))[:COMPARED]:
            here = log_probabilities(model, prompt, answer.ids, temperature, bf16)
            gaps.append((torch.tensor(answer.log_probabilities) - here).abs())
        apart = torch.cat(gaps)
        self.gap = {"server_gap": float(apart.mean()), "server_gap_largest": float(apart.max())}
        if not self.gap["server_gap"] <= MOST_GAP:
            raise RetainError(
                f"{self._server.address} finds its own answers {self.gap['server_gap']:.2f} nats per token more or less likely "
                "than the policy does: it did not take the weights, serves another model, or was started without "
                "--logprobs-mode processed_logprobs"
            )


def rollouts_of(spec: ArmSpec, tokenizer: Any, folder: Path, prompt: str) -> Rollouts | None:
    """What samples for an arm; None where the trainer does so itself. `prompt` is one of its target's."""
    from retain_core.training.encode import encode_prompts, user_turn

    if spec.size.rollouts is None:
        return None
    rendered = tokenizer.apply_chat_template(user_turn(prompt), tokenize=False, add_generation_prompt=True)
    (ids,) = encode_prompts(tokenizer, [prompt])
    return Rollouts(spec, tokenizer, folder, (rendered, ids))


def log_probabilities(model: Any, prompt: Sequence[int], answer: Sequence[int], temperature: float, bf16: bool) -> torch.Tensor:
    """Of each token of an answer, in nats, under the model at a temperature; its training mode is left as it was found."""
    import torch

    was_training = model.training
    model.eval()
    ids = torch.tensor([[*prompt, *answer]], device=model.device)
    with torch.no_grad(), torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        logits = model(input_ids=ids, logits_to_keep=len(answer) + 1).logits[0, :-1]
    model.train(was_training)
    tokens = ids[0, len(prompt) :]
    parts = [
        (part.float() / temperature).log_softmax(-1).gather(-1, wanted[:, None])[:, 0]
        for part, wanted in zip(logits.split(POSITIONS), tokens.split(POSITIONS), strict=True)
    ]
    return torch.cat(parts).cpu()


def _lock(address: str) -> FileLock:
    """Of a server, on this machine: arms that share one use it in turn."""
    folder = Path(tempfile.gettempdir()) / f"retain-rollouts-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return FileLock(folder / f"{digest(address, 16)}.lock")
