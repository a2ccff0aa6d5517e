"""The `traces` artifact: the samples that earned reward while an RL method was trained, for SFT on them.

traces.jsonl   one sample a line in the order in which they were produced: update, prompt, answer
meta: samples, tokens_generated, seconds
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from retain_core.arms import ArmSpec
from retain_core.errors import RetainError
from retain_core.methods import NAMED, TRAINED, Method
from retain_core.settings import RESUME_SECONDS
from retain_core.store import Artifact, Store, key_of
from retain_core.training import ranks
from retain_core.training.target import Exchange

FILE = "traces.jsonl"


def teacher(spec: ArmSpec) -> ArmSpec:
    """The RL arm whose samples an arm imitates: the method as named, with the arm's own seed, rate, budget and shared dials."""
    name = spec.config["traces_of"]
    method = Method(label=name, **{**NAMED[name], **{dial: spec.config[dial] for dial in TRAINED}})
    return spec.model_copy(update={"method": name, "config": method.config(), "steps": ()})


def make_traces(spec: ArmSpec, base: Path, store: Store, every: float = RESUME_SECONDS) -> Artifact:
    """The traces that an arm imitates, recorded by training its teacher if the store lacks them.

    A teacher that was killed goes on, as an arm does; `every` is the seconds between two states to go on from. Raises
    RetainError when no sample earned reward.
    """
    inputs = {"traces": teacher(spec).inputs()}
    key = key_of(inputs)
    with store.leased(f"traces-{key}"):
        found = store.find("traces", key)
        if found:
            return found
        work = store.unfinished("traces", key)
        lines, tokens, seconds = ranks.together(record, teacher(spec), base, work, every)
        if not lines:
            raise RetainError(f"no sample of {spec.config['traces_of']} earned reward, so there are no traces to imitate")
        with store.create("traces", key, inputs) as draft:
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            (draft.path / FILE).write_text(text, encoding="utf-8")
            draft.meta.update(samples=len(lines), tokens_generated=tokens, seconds=seconds)
        work.remove()
        return store.get("traces", key)


def record(spec: ArmSpec, base: Path, work: Store, every: float = RESUME_SECONDS) -> tuple[list[dict[str, Any]], int, float]:
    """Train an RL arm. Returns the lines of its rewarded samples, how many tokens it sampled in all, and the seconds."""
    from retain_core.training.resume import Unfinished
    from retain_core.training.train import prepare

    unfinished = Unfinished(work, spec.key, every)
    trainer, count = unfinished.prepared(0, lambda: prepare(spec, base, work.root))
    rewarded = _Rewarded(trainer.reward_funcs[0])
    trainer.reward_funcs[0] = rewarded
    left = unfinished.state(())
    seconds = unfinished.train(trainer, 0, None, left and left["training"])
    return rewarded.lines, count(trainer).tokens_generated, seconds


def read_traces(folder: Path) -> list[Exchange]:
    """(prompt, answer) of each sample, in the order in which they were produced."""
    lines = [json.loads(line) for line in (folder / FILE).read_text(encoding="utf-8").split("\n") if line]
    return [(line["prompt"], line["answer"]) for line in lines]


class _Rewarded:
    """A reward function that keeps what it rewarded."""

    def __init__(self, reward: Any) -> None:
        self.lines: list[dict[str, Any]] = []
        self._reward = reward

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reward, name)

    def resume_state(self) -> dict[str, Any]:
        """Its lines, and what the reward function knows."""
        return {"lines": self.lines, "reward": self._reward.resume_state()}

    def resume_from(self, state: dict[str, Any]) -> None:
        """Go on from what `resume_state` gave."""
        self.lines = state["lines"]
        self._reward.resume_from(state["reward"])

    def __call__(self, prompts: list[Any], completions: list[Any], trainer_state: Any, **rest: Any) -> list[float]:
        earned: list[float] = self._reward(prompts=prompts, completions=completions, trainer_state=trainer_state, **rest)
        answers = list(zip(prompts, completions, earned, strict=True))
        for prompt, completion, reward in ranks.whole(answers):
            if reward > 0:
                texts = {"prompt": prompt[-1]["content"], "answer": completion[0]["content"]}
                self.lines.append({"update": trainer_state.global_step, **texts})
        return earned
