"""The watch: new checkpoints are found, judged against their base, and told of."""

from __future__ import annotations

from prefect import flow, tags
from prefect.states import Completed, State

from retain_core.errors import ArmsFailedError
from retain_core.gate import watch as gate
from retain_core.gate.watch_file import load_watch
from retain_core.settings import settings
from tasks import watch as tasks
from tasks.alert import alert


@flow(name="watch", flow_run_name="{path}", on_failure=[alert], on_crashed=[alert])
def watch(path: str) -> State:
    """Judge what a watch file finds and was not judged before; `Unchanged` where that is nothing.

    The state's name is the worst new decision: ALLOW, REJECT or INCONCLUSIVE. A checkpoint that cannot be judged fails the
    flow, after all others were.
    """
    file = load_watch(path)
    study = file.load_study()
    seen = gate.look(file, study, settings())
    after = []
    with tags("retain", f"study:{study.study}"):
        for one in seen:
            if one.told is None and not one.problem:
                one = tasks.judge(one.found, file, study)
                if one.new:
                    tasks.tell(one, file, study)
            after.append(one)
    if problems := [one.line for one in after if one.problem]:
        raise ArmsFailedError(f"{len(problems)} of {len(after)} checkpoints cannot be judged; {problems[0]}")
    new = [one for one in after if one.new]
    if not new:
        return Completed(name="Unchanged", message=f"{len(after)} checkpoints, all seen before")
    words = {one.told["decision"] for one in new if one.told}
    word = next(word for word in ("REJECT", "INCONCLUSIVE", "ALLOW") if word in words)
    return Completed(name=word, message="; ".join(one.line for one in new))
