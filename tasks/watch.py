"""The steps of the watch as Prefect tasks: judging one checkpoint, and telling of a decision."""

from __future__ import annotations

import os
import re
from functools import partial
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from retain_core.gate import watch as gate
from retain_core.gate.find import Found
from retain_core.gate.watch_file import Notify, Watch
from retain_core.settings import settings
from retain_core.study import Study
from tasks.notify import attempt, notify

DOCUMENT = ("name", "decision", "sentence", "margin", "drop", "ci_low", "ci_high", "at_most", "benchmarks", "harmed")
"""What is told of a decision; drops are fractions."""


@task(cache_policy=NO_CACHE, task_run_name="judge {found.name}")
def judge(found: Found, watch: Watch, study: Study) -> gate.Seen:
    """Evaluate one checkpoint and decide."""
    return gate.judge(found, watch, study, settings())


@task(cache_policy=NO_CACHE, task_run_name="tell {seen.found.name}")
def tell(seen: gate.Seen, watch: Watch, study: Study) -> None:
    """An event, an artifact, and whoever is to be told. None of it failing changes the decision, which is kept already."""
    assert seen.told is not None
    document = {"study": study.study, **{key: seen.told[key] for key in DOCUMENT}}
    emit_event(
        event=f"retain.gate.{document['decision'].lower()}",
        resource={"prefect.resource.id": f"retain.study.{study.study}", "prefect.resource.name": study.study},
        payload=document,
    )
    attempt("Prefect", lambda: create_markdown_artifact(_markdown(seen, document), key=_key(study), description=seen.line))
    told = watch.notify
    if document["decision"] in told.decisions:
        text, subject = f"{document['name']}: {document['sentence']}", f"retain: {document['decision']}"
        hook = told.webhook_env or told.webhook_secret
        notify(text, subject, document, address=partial(_address, told) if hook else None, block=told.block)


def _address(notify: Notify) -> str:
    if notify.webhook_env:
        return os.environ[notify.webhook_env]
    from prefect.blocks.system import Secret

    return str(Secret.load(str(notify.webhook_secret)).get())  # type: ignore[union-attr]


def _key(study: Study) -> str:
    return "watch-" + re.sub(r"[^a-z0-9-]+", "-", study.study.lower())


def _markdown(seen: gate.Seen, document: dict[str, Any]) -> str:
    rows = "\n".join(f"| {key} | {value} |" for key, value in document.items() if key != "sentence")
    return f"**{seen.found.name}**\n\n{document['sentence']}\n\n| | |\n|---|---|\n{rows}\n"
