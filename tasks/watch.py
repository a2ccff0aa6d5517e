"""The steps of the watch as Prefect tasks: judging one checkpoint, and telling of a decision."""

from __future__ import annotations

import logging
import os
import re
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from retain_core.gate import watch as gate
from retain_core.gate.find import Found
from retain_core.gate.watch_file import Notify, Watch
from retain_core.gate.webhook import post
from retain_core.settings import settings
from retain_core.study import Study

log = logging.getLogger("retain")
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
    _try("artifact", lambda: create_markdown_artifact(_markdown(seen, document), key=_key(study), description=seen.line))
    if document["decision"] in watch.notify.decisions:
        _notify(watch.notify, document)


def _notify(notify: Notify, document: dict[str, Any]) -> None:
    if notify.webhook_env or notify.webhook_secret:
        _try("webhook", lambda: _warn("webhook", post(_address(notify), document)))
    if notify.block:
        from prefect.blocks.core import Block

        text = f"{document['name']}: {document['sentence']}"
        _try(f"block {notify.block}", lambda: Block.load(notify.block).notify(text, subject=f"retain: {document['decision']}"))  # type: ignore[arg-type,union-attr,attr-defined]


def _address(notify: Notify) -> str:
    if notify.webhook_env:
        return os.environ[notify.webhook_env]
    from prefect.blocks.system import Secret

    return str(Secret.load(str(notify.webhook_secret)).get())  # type: ignore[union-attr]


def _try(what: str, tell: Any) -> None:
    try:
        tell()
    except Exception as error:  # whatever a block or a server does, the decision stands
        _warn(what, type(error).__name__)


def _warn(what: str, problem: str) -> None:
    """Errors of others may quote an address, so only their kind is told."""
    if problem:
        log.warning("the decision is kept, but %s was not told of it: %s", what, problem)


def _key(study: Study) -> str:
    return "watch-" + re.sub(r"[^a-z0-9-]+", "-", study.study.lower())


def _markdown(seen: gate.Seen, document: dict[str, Any]) -> str:
    rows = "\n".join(f"| {key} | {value} |" for key, value in document.items() if key != "sentence")
    return f"**{seen.found.name}**\n\n{document['sentence']}\n\n| | |\n|---|---|\n{rows}\n"
