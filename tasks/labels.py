"""What runs are called in Prefect's UI, and the tags that it filters by."""

from __future__ import annotations

from retain_core.arms import ArmSpec, rate_text
from retain_core.study import Study


def study_tags(study: Study) -> set[str]:
    """The tags of a study's flow run and of all its task runs."""
    return {"retain", f"study:{study.study}", f"base:{study.base.model}", f"target:{study.target}"}


def arm_name(arm: ArmSpec) -> str:
    """An arm in words: `grpo lr=3e-4 seed=1`."""
    rate = [] if arm.learning_rate is None else [f"lr={rate_text(arm.learning_rate)}"]
    seed = [] if arm.seed is None else [f"seed={arm.seed}"]
    return " ".join([arm.method, *rate, *seed])


def arm_tags(arm: ArmSpec) -> set[str]:
    """The tags of an arm's task run, beside those of its study.

    Few different ones: Prefect's client starts a service of its own for every new set of tags, which takes most of a second
    and stays. So learning rate and seed are in the name only.
    """
    return {f"method:{arm.method}"}
