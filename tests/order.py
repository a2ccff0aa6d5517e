"""Which files of tests the processes of `make test` take first, and which one process takes together.

pytest-xdist begins with the files that hold the most tests. The few that start servers and train whole studies came last
then, and while one process ran through them the other had nothing to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

SHARED = (
    (
        "tests/flows/test_flow.py", "tests/flows/test_prefect_ui.py", "tests/browser/test_prefect.py",
        "tests/flows/test_interrupt.py",
    ),
    ("tests/flows/test_away.py", "tests/flows/test_watch.py", "tests/flows/test_simulate.py", "tests/component/test_doctor.py"),
)  # fmt: skip
"""Files whose tests share what lives in one process only, such as a server."""
LONGEST = (
    "tests/flows/test_flow.py",
    "tests/flows/test_away.py",
    "tests/component/test_ranks.py",
    "tests/faults/test_kill.py",
    "tests/flows/test_pool.py",
    "tests/component/test_rehearse.py",
    "tests/component/test_resume.py",
    "tests/component/test_policy.py",
    "tests/component/test_imitation.py",
    "tests/component/test_http.py",
    "tests/component/test_public.py",
    "tests/flows/test_up.py",
    "tests/component/test_again.py",
    "tests/component/test_own.py",
    "tests/component/test_compare.py",
    "tests/component/test_postgres.py",
    "tests/component/test_judge.py",
    "tests/component/test_suite.py",
    "tests/component/test_two_homes.py",
    "tests/flows/test_crossed.py",
    "tests/component/test_accelerator.py",
)
"""What takes longest, the longest first. A name that is missing here costs time at the end, nothing else."""
_HEAD = {file: group[0] for group in SHARED for file in group}


class LongestFirst(LoadFileScheduling):
    """Whole files, those that share something as if they were one, and of all that wait the longest first."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return _HEAD.get(file, file)

    def _assign_work_unit(self, node: object) -> None:
        self.workqueue.move_to_end(min(self.workqueue, key=_place), last=False)
        super()._assign_work_unit(node)


def _place(file: str) -> int:
    return LONGEST.index(file) if file in LONGEST else len(LONGEST)


def missing(root: Path) -> Sequence[str]:
    """Files that are named here and are not there."""
    named = {*LONGEST, *(file for group in SHARED for file in group)}
    return sorted(file for file in named if not (root / file).is_file())


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """What pytest-xdist asks for where whole files are given out (`--dist loadfile`)."""
    return LongestFirst(config, log) if config.getvalue("dist") == "loadfile" else None
