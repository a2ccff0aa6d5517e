"""The alert: a flow run that failed or crashed is told of by RETAIN_ALERT_URL and RETAIN_ALERT_BLOCK."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import FlowRun
from prefect.settings import get_current_settings
from prefect.states import State

from retain_core.settings import settings
from tasks.notify import notify


def alert(flow: Any, flow_run: FlowRun, state: State) -> None:
    """A hook of flows, for `on_failure` and `on_crashed`."""
    config, name = settings(), str(state.name)
    subject = f"retain: {flow_run.name} {name.lower()}"
    place = get_current_settings().ui_url
    document = {
        "event": f"retain.run.{name.lower()}", "flow": flow.name, "flow_run": flow_run.name, "id": str(flow_run.id),
        "message": state.message, "url": f"{place}/runs/flow-run/{flow_run.id}" if place else None,
    }  # fmt: skip
    text = "\n".join(line for line in (state.message, document["url"]) if line)
    secret = config.alert_url
    notify(text, subject, document, address=secret.get_secret_value if secret else None, block=config.alert_block)
