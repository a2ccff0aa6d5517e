"""What is asked of verifiers before anything is trained: a right answer must be right and a wrong one wrong."""

from __future__ import annotations

from functools import partial

from retain_core.errors import InputError
from retain_core.own.target import OwnTarget, says
from retain_core.training.rewards import Judge, alarm

NONSENSE = ("", "qx zq", "0" * 2000)
"""Texts that no verifier may fail on."""


def check_verifier(name: str, target: OwnTarget) -> str:
    """Ask the verifier of a target of the user's own the answers that its rows say are right. Returns a sentence.

    Raises InputError where it refuses one of them, accepts nonsense or fails on a text.
    """
    right, judge, asked = target.verifier.load(), Judge(), 0
    with alarm():
        for _, row in [*target.rows("train"), *target.rows("items")]:
            for answer in [*([row["answer"]] if "answer" in row else []), *row.get("valid", [])]:
                asked += 1
                if judge.earned(partial(says, right, row, answer)) <= 0:
                    raise InputError(
                        f"the verifier of {name} does not accept {answer!r}, the answer in the row of {row['prompt'][:80]!r}"
                    )
            for answer in NONSENSE:
                before = judge.failures
                earned = judge.earned(partial(says, right, row, answer))
                if judge.failures > before:
                    raise InputError(f"the verifier of {name} fails on {answer[:20]!r}: it must say right or wrong of any text")
                if earned > 0:
                    raise InputError(
                        f"the verifier of {name} accepts {answer[:20]!r}, which is no answer to {row['prompt'][:80]!r}"
                    )
    return f"verifier of {name}: accepts all {asked} right answers of the rows and none of {len(NONSENSE)} nonsense ones each"
